import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { BOUNCE_BYTES } from "../src/wasi/context.ts";
import { Fdflag, Oflag } from "../src/wasi/layouts.ts";
import { Right } from "../src/wasi/rights.ts";
import { at, makeFifo, temporaryDirectory, TestGuest } from "./wasi-guest.ts";

const CREATE = { oflags: Oflag.CREAT };
const STDIN = 0;
const STDOUT = 1;
/** First page of the buffer. */
const PAGE = at.buffer / 4096;

const withGuest = (body: (guest: TestGuest, path: string) => void): void => {
  using directory = temporaryDirectory();
  const guest = new TestGuest({ directories: { "/": directory.path } });
  try {
    body(guest, directory.path);
  } finally {
    guest.descriptors.closeAll();
  }
};

const bytesOf = (text: string): Uint8Array<ArrayBuffer> => new TextEncoder().encode(text);

describe("WASI: scattered input and output", () => {
  it("pieces are filled and written in order, empty ones skipped", () =>
    withGuest((guest, path) => {
      const fd = guest.open("file", CREATE);
      guest.memory.bytes.set(bytesOf("abcdef"), at.buffer);
      const pieces = guest.iovecs([at.buffer + 4, 2], [0, 0], [at.buffer, 2], [at.buffer + 2, 2]);
      assert.equal(guest.call("fd_write", fd, ...pieces, at.result), "SUCCESS");
      assert.equal(readFileSync(join(path, "file"), "utf8"), "efabcd");
      const into = guest.iovecs([at.buffer + 10, 1], [at.buffer + 20, 0], [at.buffer + 30, 100]);
      assert.equal(guest.call("fd_pread", fd, ...into, 0n, at.result), "SUCCESS");
      assert.equal(guest.text(at.buffer + 10, 1) + guest.text(at.buffer + 30, 5), "efabcd");
    }));

  it("1024 pieces are transferred, 1025 and more are EINVAL", () =>
    withGuest((guest, path) => {
      const fd = guest.open("file", CREATE);
      guest.memory.bytes.fill(0x78, at.buffer, at.buffer + 1024);
      const pieces = Array.from({ length: 1025 }, (_, index) => [at.buffer + index, 1] as const);
      assert.equal(guest.call("fd_write", fd, ...guest.iovecs(...pieces.slice(1)), at.result), "SUCCESS");
      assert.equal(readFileSync(join(path, "file")).length, 1024);
      for (const count of [1025, 2 ** 29, 2 ** 31, 2 ** 32 - 1]) {
        assert.equal(guest.call("fd_write", fd, at.iovecs, count, at.result), "INVAL");
        assert.equal(guest.call("fd_read", fd, at.iovecs, count, at.result), "INVAL");
      }
    }));

  it("no piece at all transfers nothing", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      assert.equal(guest.call("fd_write", fd, 0, 0, at.result), "SUCCESS");
      assert.equal(guest.result(), 0);
      assert.equal(guest.call("fd_read", STDIN, 0, 0, at.result), "SUCCESS");
    }));

  it("a transfer larger than the bounce buffer is partial and can be continued", () =>
    withGuest((guest, path) => {
      const large = new Uint8Array(BOUNCE_BYTES + 5000).map((_, index) => index * 7);
      writeFileSync(join(path, "large"), large);
      const fd = guest.open("large");
      const buffer = 0x40000;
      assert.equal(guest.call("fd_read", fd, ...guest.iovecs([buffer, large.length]), at.result), "SUCCESS");
      assert.equal(guest.result(), BOUNCE_BYTES);
      assert.deepEqual(guest.memory.bytes.slice(buffer, buffer + BOUNCE_BYTES), large.slice(0, BOUNCE_BYTES));
      assert.equal(guest.call("fd_read", fd, ...guest.iovecs([buffer, large.length]), at.result), "SUCCESS");
      assert.equal(guest.result(), 5000);
    }));

  it("pieces of 4 GiB in sum are cut off, not added up modulo 2^32", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      guest.memory.bytes.fill(0x61, at.buffer, at.buffer + 3);
      const pieces = guest.iovecs([at.buffer, 3], [0x40000, 0xffff_fff0], [0x40000, 0xffff_fff0]);
      assert.equal(guest.call("fd_write", fd, ...pieces, at.result), "SUCCESS");
      assert.equal(guest.result(), BOUNCE_BYTES);
    }));
});

describe("WASI: bad addresses (W01)", () => {
  const bad = [0x3fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fffc, PAGE * 4096 + 8191];

  it("a piece, a list or a result at a bad address is EFAULT, and the file stays as it was", () =>
    withGuest((guest, path) => {
      const fd = guest.open("file", CREATE);
      guest.write(fd, "contents");
      guest.memory.protect(PAGE + 1, "none");
      guest.memory.protect(PAGE + 2, "none");
      const before = guest.memory.bytes.slice();
      for (const address of bad) {
        const pieces = guest.iovecs([at.buffer, 1], [address, 100]);
        before.set(guest.memory.bytes.subarray(at.iovecs, at.iovecs + 16), at.iovecs);
        assert.equal(guest.call("fd_write", fd, ...pieces, at.result), "FAULT");
        assert.equal(guest.call("fd_pread", fd, ...pieces, 0n, at.result), "FAULT");
        assert.equal(guest.call("fd_write", fd, address, 2, at.result), "FAULT");
        guest.iovecs([at.buffer, 1]);
        before.set(guest.memory.bytes.subarray(at.iovecs, at.iovecs + 8), at.iovecs);
        assert.equal(guest.call("fd_write", fd, at.iovecs, 1, address), "FAULT");
        assert.equal(guest.call("fd_pread", fd, at.iovecs, 1, 0n, address), "FAULT");
      }
      assert.equal(readFileSync(join(path, "file"), "utf8"), "contents");
      assert.deepEqual(guest.memory.bytes, before);
      assert.equal(guest.call("fd_write", fd, ...guest.iovecs([at.buffer, 1]), at.result), "SUCCESS");
    }));

  it("a read whose buffer is absent takes nothing from a stream", () =>
    withGuest((guest) => {
      guest.stdio.input = bytesOf("precious");
      guest.memory.protect(PAGE, "none");
      assert.equal(guest.read(STDIN), "[FAULT]");
      guest.memory.protect(PAGE, "read");
      assert.equal(guest.read(STDIN), "[FAULT]");
      guest.memory.protect(PAGE, "write");
      assert.equal(guest.read(STDIN), "precious");
    }));

  it("a read of a file whose buffer is absent does not move the offset", () =>
    withGuest((guest) => {
      guest.write(guest.open("file", CREATE), "contents");
      const fd = guest.open("file");
      guest.memory.protect(PAGE, "read");
      assert.equal(guest.read(fd), "[FAULT]");
      guest.memory.protect(PAGE, "write");
      assert.equal(guest.read(fd), "contents");
    }));

  it("a page that vanishes between the check and the copy does not move a file's offset either", () =>
    withGuest((guest) => {
      guest.write(guest.open("file", CREATE), "contents");
      const fd = guest.open("file");
      const { memory } = guest;
      const copy = memory.copyToGuest.bind(memory);
      memory.copyToGuest = () => -14;
      assert.equal(guest.read(fd), "[FAULT]");
      memory.copyToGuest = copy;
      assert.equal(guest.read(fd), "contents");
    }));

  it("every function that writes a result answers EFAULT for a bad address and changes nothing", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "file"), "x");
      const fd = guest.open("file");
      const cases: readonly [Parameters<TestGuest["call"]>[0], (address: number) => readonly (number | bigint)[]][] = [
        ["args_sizes_get", (address) => [address, at.result]],
        ["args_sizes_get", (address) => [at.result, address]],
        ["environ_sizes_get", (address) => [address, at.result]],
        ["clock_res_get", (address) => [0, address]],
        ["clock_time_get", (address) => [1, 0n, address]],
        ["fd_fdstat_get", (address) => [fd, address]],
        ["fd_filestat_get", (address) => [fd, address]],
        ["fd_filestat_get", (address) => [0, address]],
        ["fd_prestat_get", (address) => [3, address]],
        ["fd_prestat_dir_name", (address) => [3, address, 1]],
        ["fd_readdir", (address) => [3, address, 100, 0n, at.result]],
        ["fd_readdir", (address) => [3, at.buffer, 100, 0n, address]],
        ["fd_seek", (address) => [fd, 0n, 1, address]],
        ["fd_tell", (address) => [fd, address]],
        ["path_filestat_get", (address) => [3, 0, ...guest.path("file"), address]],
        ["poll_oneoff", (address) => [address, at.buffer, 1, at.result]],
        ["random_get", (address) => [address, 8]],
      ];
      for (const [name, values] of cases) {
        for (const address of [0x8000_0000, 0xffff_ffff, 0x7fff_fff8]) {
          assert.equal(guest.call(name, ...values(address)), "FAULT", name);
        }
      }
    }));
});

describe("WASI: streams", () => {
  it("standard output takes everything, standard input gives what is there", () =>
    withGuest((guest) => {
      assert.equal(guest.write(STDOUT, "out"), "SUCCESS");
      assert.deepEqual(guest.stdio.output, [...bytesOf("out")]);
      guest.stdio.input = bytesOf("input");
      assert.equal(guest.read(STDIN, 3), "inp");
      assert.equal(guest.read(STDIN), "ut");
      guest.stdio.inputClosed = true;
      assert.equal(guest.read(STDIN), "");
    }));

  it("reading output and writing input lack the right", () =>
    withGuest((guest) => {
      assert.equal(guest.read(STDOUT), "[NOTCAPABLE]");
      assert.equal(guest.write(STDIN, "x"), "NOTCAPABLE");
    }));

  it("a read waits for input unless the descriptor does not block", () =>
    withGuest((guest) => {
      guest.stdio.onWait = () => void (guest.stdio.input = bytesOf("late"));
      assert.equal(guest.read(STDIN), "late");
      assert.equal(guest.call("fd_fdstat_set_flags", STDIN, Fdflag.NONBLOCK), "SUCCESS");
      assert.equal(guest.read(STDIN), "[AGAIN]");
    }));

  it("seeking in a stream is ESPIPE", () =>
    withGuest((guest) => {
      for (const fd of [0, 1, 2]) {
        assert.equal(guest.call("fd_seek", fd, 0n, 0, at.result), "SPIPE");
        assert.equal(guest.call("fd_tell", fd, at.result), "SPIPE");
        assert.equal(guest.call("fd_pread", fd, ...guest.iovecs([at.buffer, 1]), 0n, at.result), "SPIPE");
        assert.equal(guest.call("fd_sync", fd), "SPIPE");
      }
    }));

  it("a FIFO is opened without waiting, and read by sleeping until something comes", () =>
    withGuest((guest, path) => {
      const name = join(path, "fifo");
      makeFifo(name);
      const fd = guest.open("fifo", { base: Right.FD_READ | Right.POLL_FD_READWRITE });
      assert.equal(guest.read(fd), "", "without a writer it is at its end");
      const writer = openSync(name, "w");
      let sleeps = 0;
      guest.onSleep = () => {
        sleeps += 1;
        if (sleeps === 3) writeSync(writer, "through the pipe");
      };
      assert.equal(guest.read(fd), "through the pipe");
      assert.equal(sleeps, 3);
      closeSync(writer);
      assert.equal(typeof guest.tryOpen("fifo", { base: Right.FD_WRITE }), "number", "there is a reader now");
    }));

  it("a FIFO that nobody reads cannot be opened for writing: ENXIO", () =>
    withGuest((guest, path) => {
      makeFifo(join(path, "fifo"));
      assert.equal(guest.tryOpen("fifo", { base: Right.FD_WRITE }), "NXIO");
    }));
});
