import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Fdflag, Fdstat, Filestat, Filetype, Fstflag, Oflag } from "../src/wasi/layouts.ts";
import { Right } from "../src/wasi/rights.ts";
import { at, seek, temporaryDirectory, TestGuest, withGuest } from "./wasi-guest.ts";

const CREATE = { oflags: Oflag.CREAT };
const FOLLOW = { lookup: 1 };
const SET = 0;
const CURRENT = 1;
const END = 2;

describe("WASI: reading and writing", () => {
  it("what is written is read back from the same file", () =>
    withGuest((guest, path) => {
      const fd = guest.open("file", CREATE);
      assert.equal(guest.write(fd, "hello"), "SUCCESS");
      assert.equal(guest.result(), 5);
      assert.equal(readFileSync(join(path, "file"), "utf8"), "hello");
      assert.equal(seek(guest, fd, 0n, SET), 0n);
      assert.equal(guest.read(fd), "hello");
      assert.equal(guest.read(fd), "");
    }));

  it("each descriptor has its own offset", () =>
    withGuest((guest) => {
      const first = guest.open("file", CREATE);
      guest.write(first, "abcdef");
      const second = guest.open("file");
      assert.equal(guest.read(second, 2), "ab");
      assert.equal(guest.read(second, 2), "cd");
      assert.equal(seek(guest, first, 0n, CURRENT), 6n);
      assert.equal(seek(guest, second, 0n, CURRENT), 4n);
    }));

  it("fd_seek counts from the start, the present offset and the end", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      guest.write(fd, "0123456789");
      assert.equal(seek(guest, fd, 3n, SET), 3n);
      assert.equal(seek(guest, fd, 2n, CURRENT), 5n);
      assert.equal(seek(guest, fd, -4n, END), 6n);
      assert.equal(guest.read(fd), "6789");
      assert.equal(guest.call("fd_tell", fd, at.result), "SUCCESS");
      assert.equal(guest.wideResult(), 10n);
    }));

  it("fd_seek before the start, with an unknown whence, or beyond 2^53 is EINVAL and does not move", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      guest.write(fd, "01234");
      assert.equal(seek(guest, fd, -6n, CURRENT), "INVAL");
      assert.equal(seek(guest, fd, 0n, 3), "INVAL");
      assert.equal(seek(guest, fd, 2n ** 53n, SET), "INVAL");
      assert.equal(seek(guest, fd, -(2n ** 63n), SET), "INVAL");
      assert.equal(seek(guest, fd, 0n, CURRENT), 5n);
    }));

  it("fd_seek with a result that cannot be written is EFAULT and does not move", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      guest.write(fd, "01234");
      assert.equal(guest.call("fd_seek", fd, 0n, SET, 0xffff_fffc), "FAULT");
      assert.equal(seek(guest, fd, 0n, CURRENT), 5n);
    }));

  it("fd_pread and fd_pwrite leave the offset alone", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      guest.write(fd, "aaaa");
      guest.memory.bytes.set([0x62, 0x62], at.buffer);
      assert.equal(guest.call("fd_pwrite", fd, ...guest.iovecs([at.buffer, 2]), 1n, at.result), "SUCCESS");
      assert.equal(guest.call("fd_pread", fd, ...guest.iovecs([at.buffer, 10]), 1n, at.result), "SUCCESS");
      assert.equal(guest.text(at.buffer, guest.result()), "bba");
      assert.equal(seek(guest, fd, 0n, CURRENT), 4n);
    }));

  it("an offset of 2^53 or more is EINVAL for fd_pread, fd_pwrite, fd_allocate, fd_advise and fd_filestat_set_size", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      for (const offset of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
        assert.equal(guest.call("fd_pread", fd, ...guest.iovecs([at.buffer, 1]), offset, at.result), "INVAL");
        assert.equal(guest.call("fd_pwrite", fd, ...guest.iovecs([at.buffer, 1]), offset, at.result), "INVAL");
        assert.equal(guest.call("fd_allocate", fd, offset, 1n), "INVAL");
        assert.equal(guest.call("fd_advise", fd, offset, 1n, 0), "INVAL");
        assert.equal(guest.call("fd_filestat_set_size", fd, offset), "INVAL");
      }
      assert.equal(guest.call("fd_allocate", fd, 0n, 100n), "SUCCESS");
      assert.equal(guest.call("fd_advise", fd, 0n, 100n, 5), "SUCCESS");
      assert.equal(guest.call("fd_filestat_set_size", fd, 50n), "SUCCESS");
    }));

  it("fd_allocate makes the file longer, and nothing when the length is 0", () =>
    withGuest((guest, path) => {
      const fd = guest.open("file", CREATE);
      assert.equal(guest.call("fd_allocate", fd, 100n, 100n), "SUCCESS");
      assert.equal(statSync(join(path, "file")).size, 200);
      assert.equal(guest.call("fd_allocate", fd, 0n, 0n), "INVAL");
    }));

  it("a file opened to append writes at its end wherever its offset is, until the flag is cleared", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "log"), "one ");
      const fd = guest.open("log", { fdflags: Fdflag.APPEND });
      seek(guest, fd, 0n, SET);
      guest.write(fd, "two");
      assert.equal(readFileSync(join(path, "log"), "utf8"), "one two");
      assert.equal(guest.call("fd_fdstat_set_flags", fd, 0), "SUCCESS");
      seek(guest, fd, 0n, SET);
      guest.write(fd, "ONE");
      assert.equal(readFileSync(join(path, "log"), "utf8"), "ONE two");
      assert.equal(guest.call("fd_fdstat_set_flags", fd, Fdflag.APPEND), "SUCCESS");
      seek(guest, fd, 0n, SET);
      guest.write(fd, "!");
      assert.equal(readFileSync(join(path, "log"), "utf8"), "ONE two!");
    }));

  it("fd_fdstat_set_flags cannot change how writes are synchronised", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      assert.equal(guest.call("fd_fdstat_set_flags", fd, Fdflag.SYNC), "INVAL");
      assert.equal(guest.call("fd_fdstat_set_flags", fd, 0x8000), "INVAL");
      const synchronous = guest.open("file", { fdflags: Fdflag.SYNC });
      assert.equal(guest.call("fd_fdstat_set_flags", synchronous, Fdflag.SYNC | Fdflag.NONBLOCK), "SUCCESS");
    }));

  it("fd_sync and fd_datasync work on files and directories", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      assert.deepEqual([guest.call("fd_sync", fd), guest.call("fd_datasync", fd)], ["SUCCESS", "SUCCESS"]);
      assert.equal(guest.call("fd_sync", 3), "SUCCESS");
      assert.equal(guest.call("fd_sync", 60), "BADF");
    }));
});

describe("WASI: attributes", () => {
  it("fd_filestat_get and path_filestat_get tell the same as the host", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "file"), "12345");
      const host = statSync(join(path, "file"), { bigint: true });
      const fd = guest.open("file");
      const calls = [
        () => guest.call("fd_filestat_get", fd, at.buffer),
        () => guest.call("path_filestat_get", 3, 0, ...guest.path("file"), at.buffer),
      ];
      for (const call of calls) {
        guest.memory.bytes.fill(0xff, at.buffer, at.buffer + Filestat.sizeBytes);
        assert.equal(call(), "SUCCESS");
        const { view } = guest.memory;
        assert.equal(Filestat.ino.get(view, at.buffer), host.ino);
        assert.equal(Filestat.size.get(view, at.buffer), 5n);
        assert.equal(Filestat.nlink.get(view, at.buffer), 1n);
        assert.equal(Filestat.filetype.get(view, at.buffer), Filetype.REGULAR_FILE);
        assert.equal(Filestat.mtim.get(view, at.buffer), host.mtimeNs);
        // W16: no byte between the members is left over from somebody else.
        assert.deepEqual([...guest.memory.bytes.subarray(at.buffer + 17, at.buffer + 24)], [0, 0, 0, 0, 0, 0, 0]);
      }
    }));

  it("times are set to what is given, to now, or kept", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "file"), "");
      const set = (flags: number): string =>
        guest.call("path_filestat_set_times", 3, 0, ...guest.path("file"), 1_000_000_001n, 2_500_000_000n, flags);
      const times = (): bigint[] => {
        const status = statSync(join(path, "file"), { bigint: true });
        return [status.atimeNs, status.mtimeNs];
      };
      assert.equal(set(Fstflag.ATIM | Fstflag.MTIM), "SUCCESS");
      assert.deepEqual(times(), [1_000_000_001n, 2_500_000_000n]);
      const fd = guest.open("file");
      assert.equal(guest.call("fd_filestat_set_times", fd, 7n, 9n, Fstflag.MTIM), "SUCCESS");
      assert.deepEqual(times(), [1_000_000_001n, 9n]);
      assert.equal(set(Fstflag.MTIM_NOW), "SUCCESS");
      const [accessed, modified] = times();
      assert.equal(accessed, 1_000_000_001n);
      assert(modified! > 10n ** 18n);
    }));

  it("times that are both given and now, or unknown flags, are EINVAL", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      for (const flags of [Fstflag.ATIM | Fstflag.ATIM_NOW, Fstflag.MTIM | Fstflag.MTIM_NOW, 16, 0x8000_0000]) {
        assert.equal(guest.call("fd_filestat_set_times", fd, 0n, 0n, flags), "INVAL");
      }
      assert.equal(guest.call("fd_filestat_set_times", fd, 0n, 0n, 0), "SUCCESS");
    }));

  it("fd_fdstat_get tells type, flags and rights, and leaves no old bytes between them", () =>
    withGuest((guest) => {
      const fd = guest.open("file", { ...CREATE, base: Right.FD_WRITE, fdflags: Fdflag.APPEND });
      guest.memory.bytes.fill(0xff, at.buffer, at.buffer + 24);
      assert.equal(guest.call("fd_fdstat_get", fd, at.buffer), "SUCCESS");
      const { view } = guest.memory;
      assert.equal(Fdstat.fs_filetype.get(view, at.buffer), Filetype.REGULAR_FILE);
      assert.equal(Fdstat.fs_flags.get(view, at.buffer), Fdflag.APPEND);
      assert.equal(Fdstat.fs_rights_base.get(view, at.buffer), Right.FD_WRITE);
      assert.equal(Fdstat.fs_rights_inheriting.get(view, at.buffer), 0);
      assert.deepEqual(
        [1, 4, 5, 6, 7].map((byte) => view.getUint8(at.buffer + byte)),
        [0, 0, 0, 0, 0],
      );
    }));
});

describe("WASI: opening", () => {
  it("creating follows the open flags", () =>
    withGuest((guest, path) => {
      assert.equal(guest.tryOpen("file"), "NOENT");
      guest.write(guest.open("file", CREATE), "x");
      assert.equal(guest.tryOpen("file", { oflags: Oflag.CREAT | Oflag.EXCL }), "EXIST");
      assert.equal(guest.tryOpen("file", { oflags: Oflag.DIRECTORY, base: 0 }), "NOTDIR");
      guest.open("file", { oflags: Oflag.CREAT | Oflag.TRUNC });
      assert.equal(statSync(join(path, "file")).size, 0);
      assert.equal(statSync(join(path, "file")).mode & 0o111, 0);
    }));

  it("unknown flags are EINVAL", () =>
    withGuest((guest) => {
      assert.equal(guest.tryOpen("file", { oflags: 16 | Oflag.CREAT }), "INVAL");
      assert.equal(guest.tryOpen("file", { ...CREATE, lookup: 2 }), "INVAL");
      assert.equal(guest.tryOpen("file", { ...CREATE, fdflags: 32 }), "INVAL");
    }));

  it("W13: one descriptor too many is EMFILE, opens nothing, and one closed makes room", () => {
    using directory = temporaryDirectory();
    const guest = new TestGuest({ directories: { "/": directory.path }, capacity: 6 });
    const before = readdirSync("/proc/self/fd").length;
    guest.open("a", CREATE);
    const second = guest.open("b", CREATE);
    assert.equal(guest.tryOpen("c", CREATE), "MFILE");
    assert.equal(existsSync(join(directory.path, "c")), false);
    assert.equal(readdirSync("/proc/self/fd").length, before + 2);
    guest.call("fd_close", second);
    assert.equal(guest.open("c", CREATE), second);
    guest.descriptors.closeAll();
  });

  it("a character device is a stream; a whole disk cannot be opened", () => {
    const guest = new TestGuest({ directories: { "/dev": "/dev" } });
    assert.equal(guest.write(guest.open("null", { base: Right.FD_WRITE }), "gone"), "SUCCESS");
    assert.equal(guest.read(guest.open("zero", { base: Right.FD_READ }), 4), "\0\0\0\0");
    const disk = readdirSync("/dev").find((name) =>
      statSync(join("/dev", name), { throwIfNoEntry: false })?.isBlockDevice(),
    );
    if (disk !== undefined) assert.equal(guest.tryOpen(disk, { ...FOLLOW, base: Right.FD_READ }), "ACCES");
    guest.descriptors.closeAll();
  });

  it("a result that cannot be written is EFAULT and leaves no descriptor", () =>
    withGuest((guest) => {
      const count = guest.descriptors.openCount;
      const values = [3, 0, ...guest.path("file"), Oflag.CREAT, 0n, 0n, 0, 0xffff_fffd] as const;
      assert.equal(guest.call("path_open", ...values), "FAULT");
      assert.equal(guest.descriptors.openCount, count);
    }));

  it("closing everything gives every host descriptor back", () => {
    using directory = temporaryDirectory();
    const before = readdirSync("/proc/self/fd").length;
    const guest = new TestGuest({ directories: { "/": directory.path } });
    for (let index = 0; index < 20; index += 1) guest.open(`file${index}`, CREATE);
    assert.equal(readdirSync("/proc/self/fd").length, before + 21);
    assert.equal(guest.descriptors.closeAll(), 21);
    assert.equal(readdirSync("/proc/self/fd").length, before);
  });

  it("a refused open leaves no host descriptor", () =>
    withGuest((guest, path) => {
      symlinkSync("/etc", join(path, "out"));
      const before = readdirSync("/proc/self/fd").length;
      for (const name of ["out/passwd", "missing", "out", "../x", ""]) guest.tryOpen(name, { lookup: 1 });
      assert.equal(readdirSync("/proc/self/fd").length, before);
    }));
});

describe("WASI: preopened directories", () => {
  it("are listed from 3 with their names, and end with EBADF", () => {
    using one = temporaryDirectory();
    using two = temporaryDirectory();
    const guest = new TestGuest({ directories: { "/": one.path, "/data:ro": two.path } });
    const names: string[] = [];
    for (let fd = 3; guest.call("fd_prestat_get", fd, at.result) === "SUCCESS"; fd += 1) {
      assert.equal(guest.memory.view.getUint8(at.result), 0);
      const length = guest.memory.view.getUint32(at.result + 4, true);
      assert.equal(guest.call("fd_prestat_dir_name", fd, at.buffer, length), "SUCCESS");
      names.push(guest.text(at.buffer, length));
    }
    assert.deepEqual(names, ["/", "/data"]);
    assert.equal(guest.call("fd_prestat_get", 5, at.result), "BADF");
    assert.equal(guest.call("fd_prestat_get", 0, at.result), "BADF");
    guest.descriptors.closeAll();
  });

  it("a name that does not fit is ENAMETOOLONG, more room than needed is fine", () =>
    withGuest((guest) => {
      assert.equal(guest.call("fd_prestat_dir_name", 3, at.buffer, 4), "NAMETOOLONG");
      assert.equal(guest.call("fd_prestat_dir_name", 3, at.buffer, 6), "SUCCESS");
    }));

  it("can be closed and renumbered", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      assert.equal(guest.call("fd_renumber", 3, fd), "SUCCESS");
      assert.equal(guest.call("fd_prestat_get", fd, at.result), "SUCCESS");
      assert.equal(guest.call("fd_close", fd), "SUCCESS");
      assert.equal(guest.call("fd_close", fd), "BADF");
    }));
});
