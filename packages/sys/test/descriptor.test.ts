import assert from "node:assert/strict";
import { closeSync, constants, fstatSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants as systemConstants, tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import {
  adviseFile,
  allocate,
  check,
  closeDescriptor,
  createPipe,
  descriptorFlags,
  duplicate,
  FileAdvice,
  IoVector,
  type MemoryRange,
  NativeBuffer,
  openDescriptorCount,
  type Pipe,
  PollSet,
  punchHole,
  read,
  readAt,
  Readiness,
  seek,
  setDescriptorFlags,
  SystemCallError,
  synchronize,
  truncate,
  Whence,
  write,
  writeAt,
} from "@xenolith/sys";

const { EAGAIN, EBADF, EFAULT, EINVAL, EISDIR, EOPNOTSUPP, EPIPE, ESPIPE } = systemConstants.errno;

const directory = mkdtempSync(join(tmpdir(), "xenolith-descriptor-"));
after(() => {
  rmSync(directory, { recursive: true });
});

const text = (content: string): MemoryRange & { readonly keep: NativeBuffer } => {
  const keep = new NativeBuffer(Math.max(1, Buffer.byteLength(content)));
  new TextEncoder().encodeInto(content, keep.bytes);
  return { address: keep.address, lengthBytes: Buffer.byteLength(content), keep };
};
const openFile = (name: string, flags: number): number => openSync(join(directory, name), flags, 0o600);
const pipe = (nonBlocking = true): Pipe => {
  const made = createPipe({ nonBlocking });
  assert.ok(typeof made !== "number");
  return made;
};
const CLOSED = 1_000_000;
const NOWHERE: MemoryRange = { address: 0x1000, lengthBytes: 8 };

describe("read and write", () => {
  it("move bytes between a file and memory, at the offset or at a given one", () => {
    const fd = openFile("bytes", constants.O_RDWR | constants.O_CREAT);
    assert.equal(write(fd, text("hello world")), 11);
    assert.equal(writeAt(fd, text("W"), 6), 1);
    assert.equal(seek(fd, 0, Whence.SET), 0);
    const into = text("................");
    assert.equal(read(fd, into), 11);
    assert.equal(Buffer.from(into.keep.bytes).toString(), "hello World.....");
    assert.equal(read(fd, into), 0, "the end");
    assert.equal(readAt(fd, into, 4), 7);
    assert.equal(readAt(fd, into, 2n ** 62n), 0);
    closeSync(fd);
  });

  it("answer EBADF, EFAULT, EISDIR, EINVAL and ESPIPE, each beside a control", () => {
    const fd = openFile("refusals", constants.O_WRONLY | constants.O_CREAT);
    const folder = openSync(directory, constants.O_RDONLY);
    const { readFd, writeFd } = pipe();
    assert.equal(write(CLOSED, text("x")), -EBADF);
    assert.equal(read(fd, text("x")), -EBADF, "not open for reading");
    assert.equal(write(fd, NOWHERE), -EFAULT);
    assert.equal(write(fd, text("x")), 1);
    assert.equal(read(folder, text("x")), -EISDIR);
    assert.equal(readAt(readFd, text("x"), 0), -ESPIPE);
    assert.equal(seek(readFd, 0, Whence.CUR), -ESPIPE);
    assert.equal(writeAt(fd, text("x"), -1), -EINVAL);
    assert.equal(seek(fd, -1, Whence.SET), -EINVAL);
    assert.equal(seek(fd, 0, Whence.END), 1);
    for (const open of [fd, folder, readFd, writeFd]) closeSync(open);
  });

  it("a pipe without bytes gives EAGAIN, a full one too, one without readers EPIPE and no signal", () => {
    const { readFd, writeFd } = pipe();
    const word = text("12345678");
    assert.equal(read(readFd, word), -EAGAIN);
    assert.equal(write(writeFd, word), 8);
    assert.equal(read(readFd, word), 8);
    const page = text("x".repeat(65536));
    assert.equal(write(writeFd, page), 65536);
    assert.equal(write(writeFd, word), -EAGAIN);
    closeSync(readFd);
    assert.equal(write(writeFd, word), -EPIPE);
    closeSync(writeFd);
  });
});

describe("IoVector", () => {
  it("writes and reads scattered pieces in order, in one call", () => {
    const fd = openFile("vector", constants.O_RDWR | constants.O_CREAT);
    const [one, two, three] = [text("abc"), text("DEF"), text("ghi")];
    const vector = new IoVector(3);
    for (const piece of [one, two, three]) assert.ok(vector.add(piece.address, piece.lengthBytes));
    assert.equal(vector.totalBytes, 9);
    assert.equal(vector.write(fd), 9);
    assert.equal(readFileSync(join(directory, "vector"), "latin1"), "abcDEFghi");
    vector.clear();
    assert.ok(vector.add(three.address, 3) && vector.add(one.address, 2));
    assert.equal(vector.readAt(fd, 1), 5);
    assert.equal(Buffer.from(three.keep.bytes).toString(), "bcD");
    assert.equal(Buffer.from(one.keep.bytes).toString(), "EFc");
    assert.equal(vector.writeAt(fd, 9n), 5);
    assert.equal(seek(fd, 0, Whence.SET), 0);
    assert.equal(vector.read(fd), 5);
    assert.equal(Buffer.from(three.keep.bytes).toString(), "abc");
    closeSync(fd);
  });

  it("joins pieces that touch, ignores empty ones, and refuses more than fit", () => {
    const whole = text("abcdef");
    const other = text("z");
    const vector = new IoVector(1);
    assert.ok(vector.add(whole.address, 2));
    assert.ok(vector.add(whole.address + 2, 4));
    assert.ok(vector.add(other.address, 0));
    assert.equal(vector.add(other.address, 1), false);
    const { readFd, writeFd } = pipe();
    assert.equal(vector.write(writeFd), 6);
    assert.equal(vector.read(readFd), 6);
    vector.clear();
    assert.ok(vector.add(other.address, 1));
    assert.equal(vector.readAt(readFd, 0), -ESPIPE);
    assert.equal(vector.write(CLOSED), -EBADF);
    closeSync(readFd);
    closeSync(writeFd);
  });
});

describe("other calls on descriptors", () => {
  it("flags can be read and changed", () => {
    const fd = openFile("flags", constants.O_WRONLY | constants.O_CREAT);
    assert.equal(descriptorFlags(fd) & (constants.O_APPEND | constants.O_NONBLOCK), 0);
    assert.equal(setDescriptorFlags(fd, constants.O_APPEND | constants.O_NONBLOCK), 0);
    assert.equal(descriptorFlags(fd) & constants.O_APPEND, constants.O_APPEND);
    assert.equal(descriptorFlags(CLOSED), -EBADF);
    assert.equal(setDescriptorFlags(CLOSED, 0), -EBADF);
    closeSync(fd);
  });

  it("truncate, allocate, punchHole, adviseFile and synchronize do what they say, or refuse", () => {
    const fd = openFile("sizes", constants.O_RDWR | constants.O_CREAT);
    const { readFd, writeFd } = pipe();
    assert.equal(truncate(fd, 100), 0);
    assert.equal(fstatSync(fd).size, 100);
    assert.equal(truncate(fd, -1), -EINVAL);
    assert.equal(truncate(readFd, 0), -EINVAL);
    const allocated = allocate(fd, { offsetBytes: 0, lengthBytes: 8192 });
    assert.ok(allocated === 0 || allocated === -EOPNOTSUPP, "not every file system allocates");
    assert.equal(fstatSync(fd).size, allocated === 0 ? 8192 : 100);
    assert.equal(allocate(fd, { offsetBytes: 0, lengthBytes: 0 }), -EINVAL);
    assert.equal(punchHole(CLOSED, 0, 4096), -EBADF);
    assert.equal(adviseFile(fd, { offsetBytes: 0, lengthBytes: 0 }, FileAdvice.SEQUENTIAL), 0);
    assert.equal(adviseFile(readFd, { offsetBytes: 0, lengthBytes: 0 }, FileAdvice.NORMAL), -ESPIPE);
    assert.equal(adviseFile(CLOSED, { offsetBytes: 0, lengthBytes: 0 }, FileAdvice.NORMAL), -EBADF);
    assert.equal(synchronize(fd, true), 0);
    assert.equal(synchronize(fd, false), 0);
    assert.equal(synchronize(readFd, true), -EINVAL);
    for (const open of [fd, readFd, writeFd]) closeSync(open);
  });

  it("a duplicate shares the offset and lives on its own; closing twice is EBADF", () => {
    const before = openDescriptorCount();
    writeFileSync(join(directory, "shared"), "0123456789");
    const fd = openFile("shared", constants.O_RDONLY);
    const copy = duplicate(fd);
    assert.ok(copy > fd);
    assert.equal(seek(fd, 4, Whence.SET), 4);
    assert.equal(seek(copy, 0, Whence.CUR), 4);
    assert.equal(closeDescriptor(fd), 0);
    assert.equal(closeDescriptor(fd), -EBADF);
    assert.equal(seek(copy, 1, Whence.CUR), 5);
    assert.equal(closeDescriptor(copy), 0);
    assert.equal(duplicate(CLOSED), -EBADF);
    assert.equal(openDescriptorCount(), before);
  });

  it("check passes a result through and throws a typed error for a negative one", () => {
    assert.equal(check(7, "read"), 7);
    assert.throws(
      () => check(-EBADF, "read", { fd: 9, path: "a b", address: 4096n }),
      (error: unknown) =>
        error instanceof SystemCallError &&
        error.message === 'read(fd 9, path "a b", address 0x1000) failed: EBADF (errno 9)',
    );
    assert.throws(() => check(-4095, "read"), { errnoName: "EUNKNOWN" });
  });
});

describe("PollSet", () => {
  it("tells which descriptors are ready, and what happened to them", () => {
    const [quiet, busy] = [pipe(), pipe()];
    assert.equal(write(busy.writeFd, text("x")), 1);
    const set = new PollSet(4);
    const quietIndex = set.add(quiet.readFd, Readiness.READABLE);
    const busyIndex = set.add(busy.readFd, Readiness.READABLE);
    const fullIndex = set.add(quiet.writeFd, Readiness.WRITABLE);
    const badIndex = set.add(CLOSED, Readiness.READABLE);
    assert.equal(set.add(0, 0), -1, "the set is full");
    assert.equal(set.wait(Number.POSITIVE_INFINITY), 3);
    assert.equal(set.happened(quietIndex), 0);
    assert.equal(set.happened(busyIndex), Readiness.READABLE);
    assert.equal(set.happened(fullIndex), Readiness.WRITABLE);
    assert.equal(set.happened(badIndex), Readiness.INVALID);
    closeSync(quiet.writeFd);
    set.clear();
    set.add(quiet.readFd, Readiness.READABLE);
    assert.equal(set.wait(0), 1);
    assert.equal(set.happened(0), Readiness.HANG_UP);
    for (const fd of [quiet.readFd, busy.readFd, busy.writeFd]) closeSync(fd);
  });

  it("waits at least as long as it was told when nothing happens", () => {
    const { readFd, writeFd } = pipe();
    const set = new PollSet(1);
    set.add(readFd, Readiness.READABLE);
    for (const timeoutMs of [0, 0.5, 20, 999.9999999 / 50]) {
      const before = performance.now();
      assert.equal(set.wait(timeoutMs), 0);
      assert.ok(performance.now() - before >= timeoutMs - 0.01);
    }
    assert.throws(() => set.wait(-1), assert.AssertionError);
    assert.throws(() => set.wait(Number.NaN), assert.AssertionError);
    closeSync(readFd);
    closeSync(writeFd);
  });
});
