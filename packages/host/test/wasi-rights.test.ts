import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Oflag } from "../src/wasi/layouts.ts";
import { ALL_RIGHTS, Right } from "../src/wasi/rights.ts";
import { at, seek, withGuest } from "./wasi-guest.ts";

const CREATE = { oflags: Oflag.CREAT };
const SET = 0;
const CURRENT = 1;

describe("WASI: rights", () => {
  it("an operation without its right is ENOTCAPABLE, with it it succeeds", () =>
    withGuest((guest) => {
      guest.write(guest.open("file", CREATE), "x");
      const writer = guest.open("file", { base: Right.FD_WRITE });
      const reader = guest.open("file", { base: Right.FD_READ });
      assert.equal(guest.read(writer), "[NOTCAPABLE]");
      assert.equal(guest.write(reader, "y"), "NOTCAPABLE");
      assert.equal(guest.read(reader), "x");
      assert.equal(guest.write(writer, "y"), "SUCCESS");
      assert.equal(guest.call("fd_sync", reader), "NOTCAPABLE");
      assert.equal(guest.call("fd_filestat_get", reader, at.buffer), "NOTCAPABLE");
      assert.equal(guest.call("fd_filestat_set_size", writer, 0n), "NOTCAPABLE");
      assert.equal(seek(guest, reader, 0n, SET), "NOTCAPABLE");
    }));

  it("the right to seek implies the right to tell, and not the other way round", () =>
    withGuest((guest) => {
      const seeker = guest.open("file", { ...CREATE, base: Right.FD_SEEK });
      assert.equal(guest.call("fd_tell", seeker, at.result), "SUCCESS");
      const teller = guest.open("file", { base: Right.FD_TELL });
      assert.equal(seek(guest, teller, 0n, CURRENT), 0n);
      assert.equal(seek(guest, teller, 0n, SET), "NOTCAPABLE");
    }));

  it("rights can be dropped and never regained", () =>
    withGuest((guest) => {
      const fd = guest.open("file", CREATE);
      assert.equal(guest.call("fd_fdstat_set_rights", fd, BigInt(Right.FD_READ), 0n), "SUCCESS");
      assert.equal(guest.write(fd, "x"), "NOTCAPABLE");
      assert.equal(guest.call("fd_fdstat_set_rights", fd, BigInt(ALL_RIGHTS), 0n), "NOTCAPABLE");
      assert.equal(guest.call("fd_fdstat_set_rights", fd, 2n ** 63n, 0n), "NOTCAPABLE");
      assert.equal(guest.read(fd), "");
    }));

  it("a descriptor gets no right that its directory does not pass on", () =>
    withGuest((guest, path) => {
      mkdirSync(join(path, "sub"));
      const passing = Right.FD_READ | Right.PATH_OPEN;
      const directory = guest.open("sub", { oflags: Oflag.DIRECTORY, base: Right.PATH_OPEN, inheriting: passing });
      writeFileSync(join(path, "sub", "file"), "x");
      assert.equal(guest.tryOpen("file", { directory, base: Right.FD_WRITE, inheriting: 0 }), "NOTCAPABLE");
      assert.equal(guest.tryOpen("file", { directory, base: 0, inheriting: Right.FD_WRITE }), "NOTCAPABLE");
      assert.equal(guest.tryOpen("new", { directory, ...CREATE, base: 0, inheriting: 0 }), "NOTCAPABLE");
      assert.equal(guest.read(guest.open("file", { directory, base: Right.FD_READ, inheriting: 0 })), "x");
    }));

  it("W18: truncating needs the directory's right to set sizes", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "file"), "contents");
      const rights = BigInt(ALL_RIGHTS & ~Right.PATH_FILESTAT_SET_SIZE);
      const directory = guest.open(".", { oflags: Oflag.DIRECTORY, base: Number(rights) & ~0x40_0142 });
      assert.equal(guest.tryOpen("file", { directory, oflags: Oflag.TRUNC, base: 0, inheriting: 0 }), "NOTCAPABLE");
      assert.equal(readFileSync(join(path, "file"), "utf8"), "contents");
      guest.open("file", { oflags: Oflag.TRUNC, base: 0, inheriting: 0 });
      assert.equal(readFileSync(join(path, "file"), "utf8"), "");
    }));

  it("a directory opened for writing is EISDIR, for reading it opens", () =>
    withGuest((guest, path) => {
      mkdirSync(join(path, "sub"));
      assert.equal(guest.tryOpen("sub", { base: Right.FD_READ | Right.FD_WRITE }), "ISDIR");
      assert.equal(guest.tryOpen("sub", { oflags: Oflag.DIRECTORY, base: Right.FD_WRITE }), "ISDIR");
      assert.equal(typeof guest.tryOpen("sub", { oflags: Oflag.DIRECTORY, base: Right.FD_READ }), "number");
    }));

  it("a directory can be neither read, written nor sought in as a file", () =>
    withGuest((guest) => {
      assert.equal(guest.read(3), "[NOTCAPABLE]");
      assert.equal(guest.write(3, "x"), "NOTCAPABLE");
      assert.equal(seek(guest, 3, 0n, CURRENT), "NOTCAPABLE");
      assert.equal(guest.call("fd_tell", 3, at.result), "NOTCAPABLE");
      assert.equal(guest.call("fd_allocate", 3, 0n, 1n), "NOTCAPABLE");
      assert.equal(guest.call("fd_filestat_set_size", 3, 0n), "NOTCAPABLE");
    }));
});
