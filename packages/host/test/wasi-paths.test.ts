import assert from "node:assert/strict";
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { Filestat, Filetype, Fstflag, Oflag } from "../src/wasi/layouts.ts";
import { Right } from "../src/wasi/rights.ts";
import { at, temporaryDirectory, TestGuest } from "./wasi-guest.ts";

const CREATE = { oflags: Oflag.CREAT };
const FOLLOW = { lookup: 1 };

/**
 * Runs `body` with a guest that has `inside` as descriptor 3 and `fixed`, read-only, as descriptor 4. Beside them lies
 * `outside`, which the guest must never reach.
 */
const withGuest = (body: (guest: TestGuest, root: string) => void): void => {
  using directory = temporaryDirectory();
  for (const name of ["inside", "outside", "fixed"]) mkdirSync(join(directory.path, name));
  writeFileSync(join(directory.path, "outside", "secret"), "secret");
  writeFileSync(join(directory.path, "fixed", "file"), "fixed");
  const guest = new TestGuest({
    directories: { "/": join(directory.path, "inside"), "/fixed:ro": join(directory.path, "fixed") },
  });
  try {
    body(guest, directory.path);
    assert.deepEqual(readdirSync(join(directory.path, "outside")), ["secret"]);
    assert.equal(readFileSync(join(directory.path, "outside", "secret"), "utf8"), "secret");
  } finally {
    guest.descriptors.closeAll();
  }
};

/** Every call that takes one path, with what it needs besides; the path is at `at.path`. */
const pathCalls: Readonly<Record<string, (guest: TestGuest, fd: number, path: [number, number]) => string>> = {
  path_create_directory: (guest, fd, path) => guest.call("path_create_directory", fd, ...path),
  path_filestat_get: (guest, fd, path) => guest.call("path_filestat_get", fd, 1, ...path, at.buffer),
  path_filestat_set_times: (guest, fd, path) =>
    guest.call("path_filestat_set_times", fd, 1, ...path, 0n, 0n, Fstflag.MTIM),
  path_link_old: (guest, fd, path) => guest.call("path_link", fd, 0, ...path, fd, ...guest.path("new", at.path2)),
  path_link_new: (guest, fd, path) => guest.call("path_link", fd, 0, ...guest.path("file", at.path2), fd, ...path),
  path_open: (guest, fd, path) => guest.call("path_open", fd, 1, ...path, 0, 0n, 0n, 0, at.result),
  path_open_create: (guest, fd, path) => guest.call("path_open", fd, 1, ...path, Oflag.CREAT, 0n, 0n, 0, at.result),
  path_open_truncate: (guest, fd, path) => guest.call("path_open", fd, 1, ...path, Oflag.TRUNC, 0n, 0n, 0, at.result),
  path_readlink: (guest, fd, path) => guest.call("path_readlink", fd, ...path, at.buffer, 100, at.result),
  path_remove_directory: (guest, fd, path) => guest.call("path_remove_directory", fd, ...path),
  path_rename_old: (guest, fd, path) => guest.call("path_rename", fd, ...path, fd, ...guest.path("new", at.path2)),
  path_rename_new: (guest, fd, path) => guest.call("path_rename", fd, ...guest.path("file", at.path2), fd, ...path),
  path_symlink: (guest, fd, path) => guest.call("path_symlink", ...guest.path("file", at.path2), fd, ...path),
  path_unlink_file: (guest, fd, path) => guest.call("path_unlink_file", fd, ...path),
};

describe("WASI: paths cannot leave their directory (W18)", () => {
  const escapes = {
    "an absolute path": "/etc/passwd",
    "a path with too many ..": "../outside/secret",
    "a path that leaves and would come back": "sub/../../inside/file",
    "a path through a link to outside": "out/secret",
    "a path through an absolute link": "absolute/secret",
    "a path through a chain of links": "chain/secret",
    "a path with slashes at its end through a link": "out/sub//",
  };
  for (const [what, path] of Object.entries(escapes)) {
    it(`${what} is refused by every function`, () =>
      withGuest((guest, root) => {
        mkdirSync(join(root, "inside", "sub"));
        writeFileSync(join(root, "inside", "file"), "");
        symlinkSync("../outside", join(root, "inside", "out"));
        symlinkSync(join(root, "outside"), join(root, "inside", "absolute"));
        symlinkSync("sub/../out", join(root, "inside", "chain"));
        const refusals = new Set<string>();
        for (const call of Object.values(pathCalls)) refusals.add(call(guest, 3, guest.path(path)));
        assert.deepEqual([...refusals], ["NOTCAPABLE"]);
      }));
  }

  it("control: the same functions work beneath the directory, with .., links and slashes that stay inside", () =>
    withGuest((guest, root) => {
      mkdirSync(join(root, "inside", "sub"));
      writeFileSync(join(root, "inside", "file"), "here");
      symlinkSync("sub", join(root, "inside", "in"));
      for (const path of ["file", "sub/../file", "in/../file", "./sub/.././/file"]) {
        assert.equal(guest.read(guest.open(path, { ...FOLLOW, base: Right.FD_READ })), "here", path);
      }
    }));

  it("a last component .. that would name the parent of the directory is refused", () =>
    withGuest((guest) => {
      for (const [name, call] of Object.entries(pathCalls)) {
        const result = call(guest, 3, guest.path(".."));
        assert(["NOTCAPABLE", "INVAL"].includes(result), `${name}: ${result}`);
      }
    }));

  it("magic links of /proc are not followed", () => {
    const guest = new TestGuest({ directories: { "/proc": "/proc/self" } });
    assert.equal(guest.tryOpen("root/etc/passwd", FOLLOW), "LOOP");
    assert.equal(guest.tryOpen("cwd/package.json", FOLLOW), "LOOP");
    assert.equal(guest.tryOpen("fd/0", { ...FOLLOW, base: Right.FD_READ }), "LOOP");
    assert.equal(typeof guest.tryOpen("status", { base: Right.FD_READ }), "number");
    guest.descriptors.closeAll();
  });

  it("a link swapped while the guest opens through it never leads outside", async () => {
    using directory = temporaryDirectory();
    for (const name of ["inside", "inside/sub", "outside"]) mkdirSync(join(directory.path, name));
    writeFileSync(join(directory.path, "outside", "file"), "secret");
    writeFileSync(join(directory.path, "inside", "sub", "file"), "inside");
    symlinkSync("sub", join(directory.path, "inside", "good"));
    symlinkSync("../outside", join(directory.path, "inside", "bad"));
    linkSync(join(directory.path, "inside", "good"), join(directory.path, "inside", "link"));
    const stop = new Int32Array(new SharedArrayBuffer(4));
    const swapper = new Worker(
      `const { workerData: { stop, inside } } = require("node:worker_threads");
       const { linkSync, renameSync } = require("node:fs");
       for (let turn = 0; Atomics.load(stop, 0) === 0; turn += 1) {
         linkSync(inside + (turn % 2 ? "/good" : "/bad"), inside + "/next");
         renameSync(inside + "/next", inside + "/link");
       }`,
      { eval: true, workerData: { stop, inside: join(directory.path, "inside") } },
    );
    const guest = new TestGuest({ directories: { "/": join(directory.path, "inside") } });
    const seen = new Set<string>();
    for (let attempt = 0; attempt < 20_000 && seen.size < 2; attempt += 1) {
      const fd = guest.tryOpen("link/file", { ...FOLLOW, base: Right.FD_READ });
      seen.add(typeof fd === "number" ? guest.read(fd) : fd);
      if (typeof fd === "number") guest.call("fd_close", fd);
    }
    Atomics.store(stop, 0, 1);
    await new Promise((resolve) => swapper.once("exit", resolve));
    guest.descriptors.closeAll();
    assert(!seen.has("secret"), [...seen].join());
  });

  it("a link to an absolute target cannot be made, one to a relative target can", () =>
    withGuest((guest, root) => {
      const make = (target: string): string =>
        guest.call("path_symlink", ...guest.path(target, at.path2), 3, ...guest.path("link"));
      assert.equal(make("/etc/passwd"), "NOTCAPABLE");
      assert.equal(make("sub/file"), "SUCCESS");
      assert.equal(readlinkSync(join(root, "inside", "link")), "sub/file");
    }));
});

describe("WASI: names are bytes", () => {
  it("W22: a path that is not UTF-8 is EILSEQ, also where its replacement exists", () =>
    withGuest((guest, root) => {
      writeFileSync(join(root, "inside", "\ufffd"), "");
      for (const bytes of [[0xff], [0xfe], [0xc3], [0xed, 0xa0, 0x80], [0x66, 0x80]]) {
        assert.equal(guest.tryOpen(new Uint8Array(bytes)), "ILSEQ");
      }
      assert.equal(typeof guest.tryOpen("\ufffd"), "number");
    }));

  it("W22: names that differ in a byte order mark or in normal form are different files", () =>
    withGuest((guest, root) => {
      const names = ["\u{feff}a", "a", "\u00e9", "e\u0301"];
      for (const name of names) guest.write(guest.open(name, CREATE), name);
      assert.equal(readdirSync(join(root, "inside")).length, 4);
      for (const name of names) assert.equal(readFileSync(join(root, "inside", name), "utf8"), name);
    }));

  it("W22: a zero within a path is EINVAL", () =>
    withGuest((guest) => {
      assert.equal(guest.tryOpen("file\0", CREATE), "INVAL");
      assert.equal(guest.tryOpen("file\0.txt", CREATE), "INVAL");
      assert.equal(typeof guest.tryOpen("file", CREATE), "number");
    }));

  it("an empty path is ENOENT, one of more than 4095 bytes ENAMETOOLONG", () =>
    withGuest((guest) => {
      assert.equal(guest.tryOpen(""), "NOENT");
      assert.equal(guest.tryOpen("./".repeat(2048)), "NAMETOOLONG");
      assert.equal(typeof guest.tryOpen("./".repeat(2047), { base: 0 }), "number");
      assert.equal(guest.call("path_unlink_file", 3, at.path, 0xffff_ffff), "NAMETOOLONG");
    }));

  it("W01: a path at a bad address is EFAULT", () =>
    withGuest((guest) => {
      guest.memory.protect(2, "none");
      for (const address of [0x2000, 0x1fff, 0xffff_ffff, 0x8000_0000, 0xffff_fffe]) {
        assert.equal(guest.call("path_create_directory", 3, address, 2), "FAULT");
      }
      assert.equal(guest.call("path_create_directory", 3, ...guest.path("ok")), "SUCCESS");
    }));

  it("a path beneath something that is no directory is ENOTDIR", () =>
    withGuest((guest) => {
      const file = guest.open("file", CREATE);
      for (const [name, call] of Object.entries(pathCalls)) {
        assert.equal(call(guest, file, guest.path("x")), "NOTDIR", name);
        assert.equal(call(guest, 0, guest.path("x")), "NOTDIR", name);
        assert.equal(call(guest, 99, guest.path("x")), "BADF", name);
      }
    }));
});

describe("WASI: changing names", () => {
  it("directories are made and removed when empty", () =>
    withGuest((guest, root) => {
      assert.equal(guest.call("path_create_directory", 3, ...guest.path("a/")), "SUCCESS");
      assert.equal(guest.call("path_create_directory", 3, ...guest.path("a")), "EXIST");
      assert.equal(guest.call("path_create_directory", 3, ...guest.path("a/b")), "SUCCESS");
      assert.equal(guest.call("path_remove_directory", 3, ...guest.path("a")), "NOTEMPTY");
      assert.equal(guest.call("path_unlink_file", 3, ...guest.path("a/b")), "ISDIR");
      assert.equal(guest.call("path_remove_directory", 3, ...guest.path("a/b/")), "SUCCESS");
      assert.deepEqual(readdirSync(join(root, "inside", "a")), []);
    }));

  it("files are unlinked, not directories and not through a trailing slash", () =>
    withGuest((guest) => {
      guest.open("file", CREATE);
      assert.equal(guest.call("path_unlink_file", 3, ...guest.path("file/")), "NOTDIR");
      assert.equal(guest.call("path_remove_directory", 3, ...guest.path("file")), "NOTDIR");
      assert.equal(guest.call("path_unlink_file", 3, ...guest.path("file")), "SUCCESS");
      assert.equal(guest.call("path_unlink_file", 3, ...guest.path("file")), "NOENT");
    }));

  it("renaming replaces a file, and a directory only if it is empty", () =>
    withGuest((guest, root) => {
      const rename = (from: string, to: string): string =>
        guest.call("path_rename", 3, ...guest.path(from), 3, ...guest.path(to, at.path2));
      guest.write(guest.open("one", CREATE), "1");
      guest.write(guest.open("two", CREATE), "2");
      mkdirSync(join(root, "inside", "full"));
      mkdirSync(join(root, "inside", "empty"));
      writeFileSync(join(root, "inside", "full", "x"), "");
      assert.equal(rename("one", "two"), "SUCCESS");
      assert.equal(readFileSync(join(root, "inside", "two"), "utf8"), "1");
      assert.equal(rename("two", "empty"), "ISDIR");
      assert.equal(rename("empty", "two"), "NOTDIR");
      assert.equal(rename("empty", "full"), "NOTEMPTY");
      assert.equal(rename("two", "new/"), "NOTDIR");
      assert.equal(rename("missing", "new"), "NOENT");
      assert.equal(rename("full", "empty"), "SUCCESS");
    }));

  it("a hard link shares the file; a link to a directory is EPERM", () =>
    withGuest((guest, root) => {
      const link = (from: string, to: string, flags = 0): string =>
        guest.call("path_link", 3, flags, ...guest.path(from), 3, ...guest.path(to, at.path2));
      guest.write(guest.open("file", CREATE), "x");
      mkdirSync(join(root, "inside", "sub"));
      assert.equal(link("file", "again"), "SUCCESS");
      assert.equal(lstatSync(join(root, "inside", "again")).nlink, 2);
      assert.equal(link("file", "again"), "EXIST");
      assert.equal(link("file", "new/"), "NOENT");
      assert.equal(link("sub", "other"), "PERM");
      assert.equal(link("file", "third", 1), "INVAL");
    }));

  it("a symbolic link is read, cut off where the buffer ends, and unlinked itself", () =>
    withGuest((guest, root) => {
      symlinkSync("target", join(root, "inside", "link"));
      const read = (length: number): string => {
        const error = guest.call("path_readlink", 3, ...guest.path("link"), at.buffer, length, at.result);
        return error === "SUCCESS" ? guest.text(at.buffer, guest.result()) : error;
      };
      assert.deepEqual([read(100), read(4), read(0)], ["target", "targ", ""]);
      guest.open("file", CREATE);
      assert.equal(guest.call("path_readlink", 3, ...guest.path("file"), at.buffer, 9, at.result), "INVAL");
      assert.equal(guest.call("path_unlink_file", 3, ...guest.path("link")), "SUCCESS");
    }));

  it("without the follow flag a link itself is looked at, and opening it is ELOOP", () =>
    withGuest((guest, root) => {
      writeFileSync(join(root, "inside", "file"), "12345");
      symlinkSync("file", join(root, "inside", "link"));
      const typeOf = (lookup: number): number => {
        assert.equal(guest.call("path_filestat_get", 3, lookup, ...guest.path("link"), at.buffer), "SUCCESS");
        return Filestat.filetype.get(guest.memory.view, at.buffer);
      };
      assert.deepEqual([typeOf(0), typeOf(1)], [Filetype.SYMBOLIC_LINK, Filetype.REGULAR_FILE]);
      assert.equal(guest.tryOpen("link"), "LOOP");
      assert.equal(typeof guest.tryOpen("link", FOLLOW), "number");
    }));

  it("a link that names itself is ELOOP", () =>
    withGuest((guest, root) => {
      symlinkSync("loop", join(root, "inside", "loop"));
      assert.equal(guest.tryOpen("loop", FOLLOW), "LOOP");
    }));

  it("between two file systems renaming is EXDEV, which is not an escape", () =>
    withGuest((guest) => {
      using other = temporaryDirectoryIn("/dev/shm");
      if (other === undefined) return;
      const two = new TestGuest({ directories: { "/": other.path, "/b": "/tmp" } });
      two.open("file", CREATE);
      const names = [3, ...two.path("file"), 4, ...two.path("xenolith-never-made", at.path2)];
      assert.equal(two.call("path_rename", ...names), "XDEV");
      assert.equal(two.call("path_rename", 3, ...two.path("../file"), 4, ...two.path("x", at.path2)), "NOTCAPABLE");
      two.descriptors.closeAll();
      guest.open("file", CREATE);
    }));
});

describe("WASI: read-only directories (W18)", () => {
  it("every change is EROFS, reading works", () =>
    withGuest((guest, root) => {
      for (const [name, call] of Object.entries(pathCalls)) {
        if (["path_filestat_get", "path_open", "path_readlink"].includes(name)) continue;
        const path = name.endsWith("new") || name.endsWith("create") ? "made" : "file";
        assert.equal(call(guest, 4, guest.path(path)), "ROFS", name);
      }
      assert.equal(guest.tryOpen("file", { directory: 4, base: Right.FD_WRITE }), "ROFS");
      assert.equal(guest.read(guest.open("file", { directory: 4, base: Right.FD_READ })), "fixed");
      assert.deepEqual(readdirSync(join(root, "fixed")), ["file"]);
      assert.equal(readFileSync(join(root, "fixed", "file"), "utf8"), "fixed");
    }));

  it("a directory opened beneath one is read-only too, and so are the times of its files", () =>
    withGuest((guest, root) => {
      mkdirSync(join(root, "fixed", "sub"));
      const directory = guest.open("sub", { directory: 4, oflags: Oflag.DIRECTORY, base: READ_DIRECTORY });
      assert.equal(guest.tryOpen("new", { directory, ...CREATE, base: 0 }), "ROFS");
      const file = guest.open("file", { directory: 4, base: Right.FD_READ | Right.FD_FILESTAT_SET_TIMES });
      assert.equal(guest.call("fd_filestat_set_times", file, 0n, 0n, Fstflag.MTIM), "ROFS");
    }));

  it("a file cannot be linked or moved from one into a writable one", () =>
    withGuest((guest, root) => {
      const names = [...guest.path("file"), 3, ...guest.path("copy", at.path2)];
      assert.equal(guest.call("path_link", 4, 0, ...names), "ROFS");
      assert.equal(guest.call("path_rename", 4, ...names), "ROFS");
      assert.equal(existsSync(join(root, "inside", "copy")), false);
    }));

  it("a file cannot be linked or moved into a directory that passes on more rights than its own", () =>
    withGuest((guest, root) => {
      mkdirSync(join(root, "inside", "sub"));
      writeFileSync(join(root, "inside", "sub", "file"), "x");
      const base = Right.PATH_LINK_SOURCE | Right.PATH_RENAME_SOURCE | Right.PATH_LINK_TARGET;
      const narrow = guest.open("sub", { oflags: Oflag.DIRECTORY, base, inheriting: Right.FD_READ });
      const names = [...guest.path("file"), 3, ...guest.path("copy", at.path2)];
      assert.equal(guest.call("path_link", narrow, 0, ...names), "NOTCAPABLE");
      assert.equal(guest.call("path_rename", narrow, ...names), "NOTCAPABLE");
      const inner = [...guest.path("file"), narrow, ...guest.path("copy", at.path2)];
      assert.equal(guest.call("path_link", narrow, 0, ...inner), "SUCCESS");
      renameSync(join(root, "inside", "sub", "copy"), join(root, "inside", "copy"));
    }));
});

const READ_DIRECTORY = Right.PATH_OPEN | Right.PATH_CREATE_FILE | Right.FD_READDIR;

/** A temporary directory on another file system, where there is one. */
function temporaryDirectoryIn(parent: string): ReturnType<typeof temporaryDirectory> | undefined {
  if (!existsSync(parent)) return undefined;
  const before = process.env["TMPDIR"];
  process.env["TMPDIR"] = parent;
  try {
    return temporaryDirectory();
  } finally {
    if (before === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = before;
  }
}
