import assert from "node:assert/strict";
import { mkdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Dirent, Filetype, Oflag } from "../src/wasi/layouts.ts";
import { Right } from "../src/wasi/rights.ts";
import { at, temporaryDirectory, TestGuest } from "./wasi-guest.ts";

interface Entry {
  readonly name: string;
  readonly next: bigint;
  readonly inode: bigint;
  readonly type: number;
}

/** One fd_readdir: the whole entries, and whether the directory ended. */
const list = (guest: TestGuest, cookie: bigint, length: number, fd = 3): { entries: Entry[]; ended: boolean } => {
  assert.equal(guest.call("fd_readdir", fd, at.buffer, length, cookie, at.result), "SUCCESS");
  const used = guest.result();
  assert(used <= length);
  const { view } = guest.memory;
  const entries: Entry[] = [];
  for (let offset = 0; offset + Dirent.sizeBytes <= used;) {
    const entry = at.buffer + offset;
    const nameLength = Dirent.d_namlen.get(view, entry);
    offset += Dirent.sizeBytes + nameLength;
    if (offset > used) break;
    entries.push({
      name: guest.text(entry + Dirent.sizeBytes, nameLength),
      next: Dirent.d_next.get(view, entry),
      inode: Dirent.d_ino.get(view, entry),
      type: Dirent.d_type.get(view, entry),
    });
  }
  return { entries, ended: used < length };
};

/** Every entry, read in pieces of `length` bytes; `between` is called after each piece. */
const listAll = (guest: TestGuest, length: number, between: (entries: Entry[]) => void = () => undefined): string[] => {
  const names: string[] = [];
  for (let cookie = 0n; ;) {
    const { entries, ended } = list(guest, cookie, length);
    names.push(...entries.map(({ name }) => name));
    if (ended) return names;
    cookie = entries.at(-1)!.next;
    between(entries);
  }
};

const withGuest = (body: (guest: TestGuest, path: string) => void): void => {
  using directory = temporaryDirectory();
  const guest = new TestGuest({ directories: { "/": directory.path } });
  try {
    body(guest, directory.path);
  } finally {
    guest.descriptors.closeAll();
  }
};

describe("WASI: fd_readdir", () => {
  it("an empty directory has itself and its parent, whose inode number is not told", () =>
    withGuest((guest, path) => {
      const { entries, ended } = list(guest, 0n, 4096);
      assert(ended);
      const byName = new Map(entries.map((entry) => [entry.name, entry]));
      assert.deepEqual([...byName.keys()].toSorted(), [".", ".."]);
      assert.equal(byName.get(".")!.inode, statSync(path, { bigint: true }).ino);
      assert.equal(byName.get("..")!.inode, 0n);
    }));

  it("entries tell name, inode and type", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "file"), "");
      mkdirSync(join(path, "sub"));
      symlinkSync("nowhere", join(path, "link"));
      const { entries } = list(guest, 0n, 4096);
      const types = new Map(entries.map(({ name, type }) => [name, type]));
      assert.equal(types.get("file"), Filetype.REGULAR_FILE);
      assert.equal(types.get("sub"), Filetype.DIRECTORY);
      assert.equal(types.get("link"), Filetype.SYMBOLIC_LINK);
      const file = entries.find(({ name }) => name === "file")!;
      assert.equal(file.inode, statSync(join(path, "file"), { bigint: true }).ino);
    }));

  it("a listing in small pieces gives every entry once", () =>
    withGuest((guest, path) => {
      const names = Array.from({ length: 1000 }, (_, index) => `file.${index}`);
      for (const name of names) writeFileSync(join(path, name), "");
      for (const length of [64, 256, 4096, 100_000]) {
        assert.deepEqual(listAll(guest, length).toSorted(), [".", "..", ...names].toSorted(), `${length}`);
      }
    }));

  it("a cookie continues after its entry, any number of times", () =>
    withGuest((guest, path) => {
      for (let index = 0; index < 20; index += 1) writeFileSync(join(path, `${index}`), "");
      const all = list(guest, 0n, 4096).entries;
      for (const [index, { next }] of all.entries()) {
        assert.deepEqual(list(guest, next, 4096).entries, all.slice(index + 1));
      }
      assert.deepEqual(list(guest, 0n, 4096).entries, all);
    }));

  it("removing what was listed does not hide the rest", () =>
    withGuest((guest, path) => {
      const names = Array.from({ length: 300 }, (_, index) => `entry-${index}`);
      for (const name of names) writeFileSync(join(path, name), "");
      const seen = listAll(guest, 512, (entries) => {
        for (const { name } of entries) if (name.startsWith("entry")) rmSync(join(path, name));
      });
      assert.deepEqual(seen.filter((name) => name.startsWith("entry")).toSorted(), names.toSorted());
    }));

  it("an entry that does not fit is cut off and fills the buffer", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "a-rather-long-name"), "");
      for (const length of [1, 10, 24, 25]) {
        assert.equal(guest.call("fd_readdir", 3, at.buffer, length, 0n, at.result), "SUCCESS");
        assert.equal(guest.result(), length);
      }
      assert.equal(guest.call("fd_readdir", 3, at.buffer, 0, 0n, at.result), "SUCCESS");
      assert.equal(guest.result(), 0);
    }));

  it("W16: nothing from an earlier transfer is left between the members of an entry", () =>
    withGuest((guest, path) => {
      writeFileSync(join(path, "secret"), new Uint8Array(10_000).fill(0xa5));
      guest.call("fd_read", guest.open("secret"), ...guest.iovecs([0x40000, 10_000]), at.result);
      list(guest, 0n, 4096);
      const used = guest.result();
      assert(used > 0 && !guest.memory.bytes.subarray(at.buffer, at.buffer + used).includes(0xa5));
    }));

  it("a cookie that no entry has is answered without harm", () =>
    withGuest((guest) => {
      for (const cookie of [1n, 2n ** 31n, 2n ** 53n, 2n ** 63n - 1n, 2n ** 64n - 1n]) {
        const error = guest.call("fd_readdir", 3, at.buffer, 4096, cookie, at.result);
        assert(["SUCCESS", "INVAL", "OVERFLOW"].includes(error), error);
      }
      assert.equal(list(guest, 0n, 4096).entries.length, 2);
    }));

  it("needs the right, and a directory", () =>
    withGuest((guest) => {
      const file = guest.open("file", { oflags: Oflag.CREAT });
      assert.equal(guest.call("fd_readdir", file, at.buffer, 100, 0n, at.result), "NOTDIR");
      const directory = guest.open(".", { oflags: Oflag.DIRECTORY, base: Right.PATH_OPEN });
      assert.equal(guest.call("fd_readdir", directory, at.buffer, 100, 0n, at.result), "NOTCAPABLE");
      assert.equal(list(guest, 0n, 4096).entries.length, 3);
    }));

  it("a directory that was removed ends at once", () =>
    withGuest((guest, path) => {
      mkdirSync(join(path, "gone"));
      const fd = guest.open("gone", { oflags: Oflag.DIRECTORY, base: Right.FD_READDIR });
      rmSync(join(path, "gone"), { recursive: true });
      const error = guest.call("fd_readdir", fd, at.buffer, 4096, 0n, at.result);
      assert(error === "NOENT" || (error === "SUCCESS" && guest.result() === 0), error);
    }));
});
