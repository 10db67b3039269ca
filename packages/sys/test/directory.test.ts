import assert from "node:assert/strict";
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { constants as systemConstants, tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import {
  createMemfd,
  type DirectoryEntry,
  EntryType,
  memfdResidentBytes,
  NativeBuffer,
  openBeneath,
  openDescriptorCount,
  OpenFlag,
  readDirectory,
  setTimes,
  setTimesBeneath,
  statusBeneath,
  statusOf,
  writeAt,
} from "@xenolith/sys";

const { EBADF, ENOENT, ENOTDIR } = systemConstants.errno;
const S_IFMT = 0o170000;

const directory = mkdtempSync(join(tmpdir(), "xenolith-directory-"));
after(() => {
  rmSync(directory, { recursive: true });
});
const CLOSED = 1_000_000;

/** A result that is no negative errno. */
const must = <T>(result: T | number): T => {
  if (typeof result === "number") throw new Error(`unexpected result ${String(result)}`);
  return result;
};
const entriesAfter = (fd: number, cookie: bigint): readonly DirectoryEntry[] => must(readDirectory(fd, cookie));
const nameOf = (entry: DirectoryEntry): string => Buffer.from(entry.name).toString();

describe("readDirectory", () => {
  it("gives every entry once over many reads, with type and inode, and ends with an empty list", () => {
    const many = join(directory, "many");
    mkdirSync(many);
    for (let n = 0; n < 2000; n++) writeFileSync(join(many, `file-with-a-name-of-some-length-${String(n)}`), "");
    const fd = openSync(many, constants.O_RDONLY);
    const names: string[] = [];
    let readCount = 0;
    for (let cookie = 0n; ;) {
      const entries = entriesAfter(fd, cookie);
      if (entries.length === 0) break;
      readCount++;
      names.push(...entries.map(nameOf));
      cookie = entries.at(-1)?.nextCookie ?? 0n;
    }
    assert.ok(readCount > 1);
    assert.deepEqual(names.toSorted(), [".", "..", ...readdirSync(many)].toSorted());
    closeSync(fd);
  });

  it("continues after any entry by its cookie, in any order", () => {
    const fd = openSync(join(directory, "many"), constants.O_RDONLY);
    const entries = entriesAfter(fd, 0n);
    for (const index of [40, 3, 100, 0]) {
      const [following] = entriesAfter(fd, entries[index]?.nextCookie ?? -1n);
      assert.equal(following && nameOf(following), nameOf(entries[index + 1] as DirectoryEntry));
    }
    closeSync(fd);
  });

  it("names types, and keeps names that are not UTF-8 as bytes", () => {
    const types = join(directory, "types");
    mkdirSync(join(types, "folder"), { recursive: true });
    writeFileSync(join(types, "file"), "");
    symlinkSync("file", join(types, "link"));
    writeFileSync(Buffer.concat([Buffer.from(`${types}/`), Uint8Array.of(0xff, 0x41)]), "");
    const fd = openSync(types, constants.O_RDONLY);
    const found = new Map(
      entriesAfter(fd, 0n).map((entry) => [Buffer.from(entry.name).toString("latin1"), entry] as const),
    );
    assert.equal(found.get("folder")?.type, EntryType.DIRECTORY);
    assert.equal(found.get("file")?.type, EntryType.FILE);
    assert.equal(found.get("link")?.type, EntryType.LINK);
    assert.equal(found.get("\xffA")?.type, EntryType.FILE);
    assert.equal(found.get("file")?.inode, BigInt(statSync(join(types, "file")).ino));
    closeSync(fd);
  });

  it("refuses what is no directory, no descriptor, or gone", () => {
    writeFileSync(join(directory, "plain"), "");
    mkdirSync(join(directory, "doomed"));
    const file = openSync(join(directory, "plain"), constants.O_RDONLY);
    const doomed = openSync(join(directory, "doomed"), constants.O_RDONLY);
    assert.equal(entriesAfter(doomed, 0n).length, 2);
    rmdirSync(join(directory, "doomed"));
    assert.equal(readDirectory(file, 0n), -ENOTDIR);
    assert.equal(readDirectory(CLOSED, 0n), -EBADF);
    assert.equal(readDirectory(doomed, 0n), -ENOENT);
    assert.equal(typeof readDirectory(doomed, 2n ** 64n - 1n), "number", "an impossible cookie does no harm");
    closeSync(file);
    closeSync(doomed);
  });
});

describe("status and times", () => {
  it("statusOf is what fstat says, in exact numbers", () => {
    const path = join(directory, "status");
    writeFileSync(path, "12345");
    const fd = openSync(path, constants.O_RDONLY);
    const status = must(statusOf(fd));
    const reference = statSync(path, { bigint: true });
    assert.equal(status.inode, reference.ino);
    assert.equal(status.sizeBytes, 5n);
    assert.equal(BigInt(status.mode), reference.mode);
    assert.equal(BigInt(status.linkCount), reference.nlink);
    assert.equal(status.modifiedNs, reference.mtimeNs);
    assert.equal(status.changedNs, reference.ctimeNs);
    assert.equal(status.accessedNs, reference.atimeNs);
    assert.equal(status.storageBytes, reference.blocks * 512n);
    assert.equal(statusOf(CLOSED), -EBADF);
    closeSync(fd);
  });

  it("times are set exactly, also before 1970, to the present, or kept", () => {
    const fd = openSync(join(directory, "times"), constants.O_RDWR | constants.O_CREAT, 0o600);
    assert.equal(setTimes(fd, { accessed: 1_234_567_890_987_654_321n, modified: -1_500_000_000n }), 0);
    const set = must(statusOf(fd));
    assert.equal(set.accessedNs, 1_234_567_890_987_654_321n);
    assert.equal(set.modifiedNs, -1_500_000_000n);
    assert.equal(setTimes(fd, { accessed: "keep", modified: "now" }), 0);
    const later = must(statusOf(fd));
    assert.equal(later.accessedNs, 1_234_567_890_987_654_321n);
    assert.ok(later.modifiedNs > 1_600_000_000_000_000_000n);
    assert.equal(setTimes(CLOSED, { accessed: "now", modified: "now" }), -EBADF);
    closeSync(fd);
  });

  it("a link's own status and times are told apart from its target's", () => {
    writeFileSync(join(directory, "target"), "12345678");
    symlinkSync("target", join(directory, "pointer"));
    const before = openDescriptorCount();
    const fd = openSync(directory, constants.O_RDONLY);
    assert.equal(must(statusBeneath(fd, "pointer", true)).sizeBytes, 8n);
    const own = must(statusBeneath(fd, "pointer", false));
    assert.equal(own.mode & S_IFMT, constants.S_IFLNK);
    assert.equal(setTimesBeneath(fd, "pointer", false, { accessed: "keep", modified: 5n }), 0);
    assert.equal(must(statusBeneath(fd, "pointer", false)).modifiedNs, 5n);
    assert.notEqual(must(statusBeneath(fd, "pointer", true)).modifiedNs, 5n);
    assert.equal(setTimesBeneath(fd, "pointer", true, { accessed: "keep", modified: 7n }), 0);
    assert.equal(must(statusBeneath(fd, "target", false)).modifiedNs, 7n);
    assert.equal(statusBeneath(fd, "absent", false), -ENOENT);
    const named = openBeneath(fd, "target", { flags: OpenFlag.PATH });
    assert.equal(must(statusOf(named)).sizeBytes, 8n, "a file that is only named has a status");
    assert.equal(setTimes(named, { accessed: "now", modified: "now" }), -EBADF);
    closeSync(named);
    closeSync(fd);
    assert.equal(openDescriptorCount(), before);
  });

  it("a memory file's storage is the pages that exist", () => {
    const fd = createMemfd({ name: "test-resident", sizeBytes: 2 ** 30 });
    assert.equal(memfdResidentBytes(fd), 0);
    const word = new NativeBuffer(8);
    for (const page of [1, 5, 9]) writeAt(fd, { address: word.address, lengthBytes: 8 }, page * 4096);
    assert.equal(memfdResidentBytes(fd), 3 * 4096);
    assert.equal(must(statusOf(fd)).storageBytes, 3n * 4096n);
    closeSync(fd);
  });
});
