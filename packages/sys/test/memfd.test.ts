import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, fstatSync, openSync, readFileSync, readSync } from "node:fs";
import { describe, it } from "node:test";
import { errno } from "@xenolith/abi";
import {
  closeDescriptor,
  createMemfd,
  createSecretMemfd,
  duplicate,
  mapAnywhere,
  NativeBuffer,
  PAGE_BYTES,
  PROT_READ_WRITE,
  punchHole,
  Seal,
  sealsOf,
  SystemCallError,
  truncate,
  unmap,
  viewMemory,
  writeAt,
} from "@xenolith/sys";

describe("createMemfd", () => {
  it("makes a sparse file of the wanted size that is named in /proc/self/maps", () => {
    const fd = createMemfd({ name: "test-named", sizeBytes: 2 ** 32 });
    assert.equal(fstatSync(fd).size, 2 ** 32);
    assert.equal(fstatSync(fd).blocks, 0);
    const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes: PAGE_BYTES, protection: PROT_READ_WRITE });
    assert.match(readFileSync("/proc/self/maps", "latin1"), /\/memfd:test-named/);
    unmap(address, PAGE_BYTES);
    closeDescriptor(fd);
  });

  it("seals the size and the seals, and leaves writing and punching allowed", () => {
    const fd = createMemfd({ name: "test-sealed", sizeBytes: 4 * PAGE_BYTES });
    const seals = sealsOf(fd);
    assert.equal(seals & (Seal.GROW | Seal.SHRINK | Seal.SEAL), Seal.GROW | Seal.SHRINK | Seal.SEAL);
    assert.equal(seals & Seal.WRITE, 0);
    assert.equal(truncate(fd, PAGE_BYTES), -errno.EPERM);
    assert.equal(truncate(fd, 8 * PAGE_BYTES), -errno.EPERM);
    assert.equal(truncate(fd, 4 * PAGE_BYTES), 0, "control: the size that it has");
    const word = new NativeBuffer(8);
    assert.equal(writeAt(fd, { address: word.address, lengthBytes: 8 }, PAGE_BYTES), 8);
    assert.equal(fstatSync(fd).blocks, 8);
    assert.equal(punchHole(fd, PAGE_BYTES, PAGE_BYTES), 0);
    assert.equal(fstatSync(fd).blocks, 0);
    assert.equal(punchHole(fd, 0, -1), -errno.EINVAL);
    closeDescriptor(fd);
  });

  it("throws EFBIG beyond RLIMIT_FSIZE and leaves no descriptor behind; a size within the limit works", () => {
    const program = `
      import { readdirSync } from "node:fs";
      import { createMemfd } from ${JSON.stringify(new URL("../src/index.js", import.meta.url).href)};
      createMemfd({ name: "within", sizeBytes: 4096 });
      const before = readdirSync("/proc/self/fd").length;
      let refused;
      try { createMemfd({ name: "beyond", sizeBytes: 2 ** 20 }); } catch (error) { refused = error; }
      console.log(refused?.syscall, refused?.errnoName, readdirSync("/proc/self/fd").length - before);`;
    const command = 'ulimit -f 64; exec "$0" --input-type=module --eval "$1"';
    const child = spawnSync("sh", ["-c", command, process.execPath, program], { encoding: "utf8" });
    assert.equal(child.stdout, "ftruncate EFBIG 0\n", child.stderr);
  });

  it("throws EMFILE when no descriptor is left, and works again when one is closed", () => {
    const taken: number[] = [];
    let last = duplicate(0);
    for (; last >= 0; last = duplicate(0)) taken.push(last);
    try {
      assert.equal(last, -errno.EMFILE);
      assert.throws(
        () => createMemfd({ name: "one-too-many", sizeBytes: PAGE_BYTES }),
        (error: unknown) => error instanceof SystemCallError && error.errnoName === "EMFILE",
      );
      closeDescriptor(taken.pop() ?? -1);
      closeDescriptor(createMemfd({ name: "fits", sizeBytes: PAGE_BYTES }));
    } finally {
      for (const fd of taken) closeDescriptor(fd);
    }
  });

  it("asserts on names and sizes that are not ours to ask for", () => {
    for (const name of ["", "two words", "x".repeat(250), "nul\0"]) {
      assert.throws(() => createMemfd({ name, sizeBytes: PAGE_BYTES }), assert.AssertionError);
    }
    for (const sizeBytes of [0, -PAGE_BYTES, 1, PAGE_BYTES + 1, Number.NaN, Number.POSITIVE_INFINITY]) {
      assert.throws(() => createMemfd({ name: "test", sizeBytes }), assert.AssertionError);
      assert.throws(() => createSecretMemfd(sizeBytes), assert.AssertionError);
    }
  });
});

describe("createSecretMemfd", () => {
  const made = ((): number | SystemCallError => {
    try {
      return createSecretMemfd(2 * PAGE_BYTES);
    } catch (error) {
      if (error instanceof SystemCallError) return error;
      throw error;
    }
  })();
  const absent = typeof made === "number" ? false : `this kernel has no secret memory: ${made.message}`;

  it("gives memory that this process uses and the kernel refuses to read", { skip: absent }, () => {
    assert.ok(typeof made === "number");
    const address = mapAnywhere({ fd: made, offsetBytes: 0, lengthBytes: PAGE_BYTES, protection: PROT_READ_WRITE });
    const bytes = new Uint8Array(viewMemory(address, PAGE_BYTES));
    bytes[0] = 42;
    assert.equal(bytes[0], 42);
    const self = openSync("/proc/self/mem", "r");
    assert.throws(() => readSync(self, new Uint8Array(1), 0, 1, address), { code: "EIO" });
    const plain = new NativeBuffer(PAGE_BYTES);
    assert.equal(readSync(self, new Uint8Array(1), 0, 1, plain.address), 1, "control: ordinary memory");
    closeSync(self);
    assert.equal(punchHole(made, 0, PAGE_BYTES), -errno.EOPNOTSUPP);
    assert.equal(truncate(made, PAGE_BYTES), -errno.EINVAL, "its size is set once");
    unmap(address, PAGE_BYTES);
    closeDescriptor(made);
  });
});
