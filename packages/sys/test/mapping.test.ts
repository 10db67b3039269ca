import assert from "node:assert/strict";
import { openSync } from "node:fs";
import { describe, it } from "node:test";
import { errno } from "@xenolith/abi";
import {
  Advice,
  advise,
  baseAddress,
  closeDescriptor,
  createMemfd,
  mapAnywhere,
  mapFrames,
  mappingsIn,
  PAGE_BYTES,
  PROT_NONE,
  PROT_READ,
  PROT_READ_WRITE,
  protect,
  punchHole,
  reserve,
  reserveAnywhere,
  SystemCallError,
  unmap,
  viewMemory,
} from "@xenolith/sys";

const GiB = 2 ** 30;
const bank = (): number => createMemfd({ name: "test-bank", sizeBytes: GiB });
/** Mappings of banks in the whole process; the engine's own come and go. */
const bankMappingCount = (): number =>
  mappingsIn(0, 2 ** 47).filter((mapping) => mapping.path.includes("test-bank")).length;
const guestMemory = (): WebAssembly.Memory => new WebAssembly.Memory({ initial: 65536, maximum: 65536, shared: true });

describe("mapFrames", () => {
  it("makes one frame visible at two places: a write through one is read through the other", () => {
    const fd = bank();
    const [one, other] = [guestMemory(), guestMemory()];
    assert.equal(mapFrames(baseAddress(one) + 5 * PAGE_BYTES, PAGE_BYTES, PROT_READ_WRITE, fd, 7 * PAGE_BYTES), 0);
    assert.equal(mapFrames(baseAddress(other) + 9 * PAGE_BYTES, PAGE_BYTES, PROT_READ, fd, 7 * PAGE_BYTES), 0);
    new Uint8Array(one.buffer)[5 * PAGE_BYTES + 3] = 0x5a;
    assert.equal(new Uint8Array(other.buffer)[9 * PAGE_BYTES + 3], 0x5a);
    assert.equal(closeDescriptor(fd), 0);
    assert.equal(new Uint8Array(other.buffer)[9 * PAGE_BYTES + 3], 0x5a, "a mapping outlives its descriptor");
  });

  it("replaces a page by another in one call", () => {
    const fd = bank();
    const memory = guestMemory();
    const base = baseAddress(memory);
    const bytes = new Uint8Array(memory.buffer);
    assert.equal(mapFrames(base, 2 * PAGE_BYTES, PROT_READ_WRITE, fd, 0), 0);
    bytes[0] = 1;
    bytes[PAGE_BYTES] = 2;
    assert.equal(mapFrames(base, PAGE_BYTES, PROT_READ, fd, PAGE_BYTES), 0);
    assert.equal(bytes[0], 2);
    closeDescriptor(fd);
  });

  it("refuses a bad descriptor, alignment and protection with the errno, and leaves mappings and memory as before", () => {
    const fd = bank();
    const readOnly = openSync(process.execPath, "r");
    const memory = guestMemory();
    const base = baseAddress(memory);
    assert.equal(mapFrames(base, PAGE_BYTES, PROT_READ_WRITE, fd, 0), 0);
    new Uint8Array(memory.buffer)[1] = 77;
    const before = mappingsIn(base, base + memory.buffer.byteLength);

    assert.equal(mapFrames(base, PAGE_BYTES, PROT_READ, 1_000_000, 0), -errno.EBADF);
    assert.equal(mapFrames(base, PAGE_BYTES, PROT_READ_WRITE, readOnly, 0), -errno.EACCES);
    assert.equal(mapFrames(base + 1, PAGE_BYTES, PROT_READ, fd, 0), -errno.EINVAL);
    assert.equal(mapFrames(base, PAGE_BYTES, PROT_READ, fd, 100), -errno.EINVAL);
    assert.equal(mapFrames(base, PAGE_BYTES, PROT_READ, 0x7fffffff, 0), -errno.EBADF);

    assert.deepEqual(mappingsIn(base, base + memory.buffer.byteLength), before);
    assert.equal(new Uint8Array(memory.buffer)[1], 77);
    closeDescriptor(readOnly);
    closeDescriptor(fd);
  });

  it("asserts on addresses that no reservation of ours can have", () => {
    for (const [address, lengthBytes] of [
      [0, PAGE_BYTES],
      [-PAGE_BYTES, PAGE_BYTES],
      [Number.NaN, PAGE_BYTES],
      [2 ** 48, PAGE_BYTES],
      [2 ** 40, 0],
      [2 ** 40, -1],
      [2 ** 40, 2 ** 48],
      [2 ** 40, 0.5],
    ] as const) {
      assert.throws(() => mapFrames(address, lengthBytes, PROT_READ, 0, 0), assert.AssertionError);
      assert.throws(() => reserve(address, lengthBytes), assert.AssertionError);
      assert.throws(() => unmap(address, lengthBytes), assert.AssertionError);
      assert.throws(() => protect(address, lengthBytes, PROT_NONE), assert.AssertionError);
    }
  });
});

describe("reserve", () => {
  it("takes a range out of a memory: its neighbours stay, and frames can be laid over it again", () => {
    const fd = bank();
    const memory = guestMemory();
    const base = baseAddress(memory);
    const bytes = new Uint8Array(memory.buffer);
    assert.equal(mapFrames(base, 3 * PAGE_BYTES, PROT_READ_WRITE, fd, 0), 0);
    for (const page of [0, 1, 2]) bytes[page * PAGE_BYTES] = page + 1;
    assert.equal(reserve(base + PAGE_BYTES, PAGE_BYTES), 0);
    assert.deepEqual([bytes[0], bytes[2 * PAGE_BYTES]], [1, 3]);
    assert.equal(mapFrames(base + PAGE_BYTES, PAGE_BYTES, PROT_READ, fd, PAGE_BYTES), 0);
    assert.equal(bytes[PAGE_BYTES], 2);
    closeDescriptor(fd);
  });

  it("covers a whole 4 GiB memory with one call", () => {
    const memory = guestMemory();
    assert.equal(reserve(baseAddress(memory), 4 * GiB), 0);
    assert.equal(reserve(baseAddress(memory) + 1, PAGE_BYTES), -errno.EINVAL);
  });
});

describe("protect, advise, unmap", () => {
  it("protect: read-only and back; EINVAL off a page boundary; ENOMEM where nothing is mapped", () => {
    const fd = bank();
    const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes: 4 * PAGE_BYTES, protection: PROT_READ_WRITE });
    assert.equal(protect(address, PAGE_BYTES, PROT_READ), 0);
    assert.equal(protect(address, PAGE_BYTES, PROT_READ_WRITE), 0);
    assert.equal(protect(address + 8, PAGE_BYTES, PROT_READ), -errno.EINVAL);
    assert.equal(unmap(address, 4 * PAGE_BYTES), 0);
    assert.equal(protect(address, PAGE_BYTES, PROT_READ), -errno.ENOMEM);
    closeDescriptor(fd);
  });

  it("advise REMOVE loses contents, DONTNEED keeps those of a shared file, DONTDUMP and DONTFORK are accepted", () => {
    const fd = bank();
    const lengthBytes = 2 * PAGE_BYTES;
    const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes, protection: PROT_READ_WRITE });
    const bytes = new Uint8Array(viewMemory(address, lengthBytes));
    bytes[0] = 9;
    assert.equal(advise(address, PAGE_BYTES, Advice.DONTNEED), 0);
    assert.equal(bytes[0], 9);
    assert.equal(advise(address, PAGE_BYTES, Advice.REMOVE), 0);
    assert.equal(bytes[0], 0);
    assert.equal(advise(address, lengthBytes, Advice.DONTDUMP), 0);
    assert.equal(advise(address, lengthBytes, Advice.DONTFORK), 0);
    assert.equal(advise(address + 1, PAGE_BYTES, Advice.DONTNEED), -errno.EINVAL);
    closeDescriptor(fd);
  });

  it("mapAnywhere throws a typed error that names the call, the errno and the arguments; nothing stays mapped", () => {
    const before = bankMappingCount();
    assert.throws(
      () => mapAnywhere({ fd: 1_000_000, offsetBytes: 0, lengthBytes: PAGE_BYTES, protection: PROT_READ }),
      (error: unknown) =>
        error instanceof SystemCallError &&
        error.code === "SYSTEM_CALL" &&
        error.errno === errno.EBADF &&
        error.errnoName === "EBADF" &&
        error.syscall === "mmap" &&
        error.message === "mmap(length 4096, protection 1, fd 1000000, offset 0x0) failed: EBADF (errno 9)",
    );
    assert.equal(bankMappingCount(), before);
    const fd = bank();
    const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes: PAGE_BYTES, protection: PROT_READ });
    assert.equal(unmap(address, PAGE_BYTES), 0);
    closeDescriptor(fd);
  });

  it("reserveAnywhere fails with ENOMEM for more than the address space, and succeeds for 4 GiB", () => {
    assert.throws(
      () => reserveAnywhere(2 ** 50),
      (error: unknown) => error instanceof SystemCallError && error.errnoName === "ENOMEM",
    );
    const address = reserveAnywhere(4 * GiB);
    assert.equal(unmap(address, 4 * GiB), 0);
  });
});

describe("viewMemory", () => {
  it("shows 4 GiB of a direct map from the first byte to the last, again and again, without a copy", () => {
    const fd = createMemfd({ name: "test-direct-map", sizeBytes: 4 * GiB });
    const memory = guestMemory();
    const base = baseAddress(memory);
    assert.equal(mapFrames(base, 4 * GiB, PROT_READ_WRITE, fd, 0), 0);
    for (let round = 1; round <= 3; round++) {
      const view = viewMemory(base, 4 * GiB);
      assert.equal(view.byteLength, 4 * GiB);
      const bytes = new Uint8Array(view);
      bytes[0] = round;
      bytes[4 * GiB - 1] = round;
    }
    const shared = new Uint8Array(memory.buffer);
    assert.deepEqual([shared[0], shared[4 * GiB - 1]], [3, 3]);
    assert.equal(punchHole(fd, 4 * GiB - PAGE_BYTES, PAGE_BYTES), 0);
    assert.deepEqual([shared[0], shared[4 * GiB - 1]], [3, 0]);
    closeDescriptor(fd);
  });

  it("asserts on sizes beyond 4 GiB and on address 0", () => {
    assert.throws(() => viewMemory(2 ** 40, 4 * GiB + 1), assert.AssertionError);
    assert.throws(() => viewMemory(0, 1), assert.AssertionError);
  });
});

describe("baseAddress", () => {
  it("refuses a memory that is not shared, because its address may change", () => {
    assert.throws(() => baseAddress(new WebAssembly.Memory({ initial: 1 })), assert.AssertionError);
    assert.ok(baseAddress(new WebAssembly.Memory({ initial: 0, maximum: 1, shared: true })) > 0);
    assert.ok(baseAddress(guestMemory()) > 0);
  });
});
