/** Rows of docs/advisories.md, section 11: what went wrong with the kernel's secret memory, asked of the pool. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { closeDescriptor, createMemfd, duplicate, PAGE_BYTES, truncate } from "@xenolith/sys";
import { SecretRefusal } from "@xenolith/secrets";
import { openPool, refused, runChild, withoutSecretMemory } from "./pools.ts";

describe("published bugs of secret memory", () => {
  it("Z02: what is asked of a secret or region answers in every state that it can be in", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const [secret, region] = [owner.allocate(8), owner.allocateRegion(PAGE_BYTES)];
    const descriptor = region.share();
    const states = [
      () => undefined,
      () => region.removeFromView(),
      () => region.restoreView(),
      () => [secret.seal(), region.seal()],
      () => region.removeFromView(),
      () => [secret.release(), region.revoke()],
      () => owner.close(),
    ];
    for (const enter of states) {
      enter();
      for (const each of [secret, region]) {
        assert.equal(typeof each.isLive, "boolean");
        assert.equal(each.hidden, pool.hidden);
        assert.equal(each.isSealed, states.indexOf(enter) >= 3);
      }
      using adopter = pool.owner("adopter");
      assert.equal(adopter.adoptRegion(descriptor).hidden, pool.hidden);
    }
    closeDescriptor(descriptor);
    const [plain, gone] = [createMemfd({ name: "plain", sizeBytes: PAGE_BYTES }), duplicate(0)];
    closeDescriptor(gone);
    if (pool.hidden) refused(() => pool.owner("plain").adoptRegion(plain), "INVALID_ARGUMENT");
    assert.throws(() => pool.owner("gone").adoptRegion(gone), { code: "ENOENT" });
    closeDescriptor(plain);
  });

  it("Z03: growing that fails half-way leaves no mapping and no descriptor, and what is given back is zeros", () => {
    const { output, errors } = runChild(
      `import { readFileSync } from "node:fs";
      dropRights();
      const pool = open({ policy: "degraded", lowWaterBytes: 0, reserveShare: 0 });
      const owner = pool.owner("child");
      const first = owner.keep(Buffer.alloc(2 ** 21 - 16, 0xff));
      const fd = sys.createMemfd({ name: "others", sizeBytes: 5 * 2 ** 20 });
      const others = sys.mapAnywhere({ fd, offsetBytes: 0, lengthBytes: 5 * 2 ** 20, protection: 3 });
      sys.lockMemory(others, 5 * 2 ** 20);
      const mapped = () => sys.mappingsIn(0, 2 ** 48).filter(({ path }) => /secret/.test(path)).length;
      const before = [sys.openDescriptorCount(), mapped(), sys.lockedBytes()].join();
      const codes = new Set();
      for (let attempt = 0; attempt < 5; attempt += 1) codes.add(codeOf(() => owner.allocate(1)));
      for (let attempt = 0; attempt < 5; attempt += 1) codes.add(codeOf(() => owner.allocateRegion(2 ** 20 + 4096)));
      const after = [sys.openDescriptorCount(), mapped(), sys.lockedBytes()].join();
      first.release();
      const next = owner.allocate(2 ** 21 - 16);
      console.log(before === after, [...codes].join(), next.withBytes((bytes) => bytes.every((byte) => byte === 0)));`,
      { before: "ulimit -l 8192;" },
    );
    assert.equal(output, "true SECRET_MEMLOCK true", errors);
  });

  it("Z04: a strict pool opens only where a page of it was tried, and hides it", { skip: withoutSecretMemory }, () => {
    const { output, errors } = runChild(`
      import { openSync, readSync } from "node:fs";
      const pool = open({ policy: "strict" });
      const memory = openSync("/proc/self/mem", "r");
      const owner = pool.owner("child");
      const codes = [32, 500, 4080, 9000].map((size) => {
        const address = owner.allocate(size).withBytes(sys.addressOf);
        return codeOf(() => readSync(memory, Buffer.alloc(1), 0, 1, address));
      });
      const address = owner.allocateRegion(4096).withBytes(sys.addressOf);
      codes.push(codeOf(() => readSync(memory, Buffer.alloc(1), 0, 1, address)));
      codes.push(codeOf(() => readSync(memory, Buffer.alloc(1), 0, 1, sys.addressOf(Buffer.alloc(1)))));
      console.log(pool.hidden, codes.join());`);
    assert.equal(output, "true EIO,EIO,EIO,EIO,EIO,none", errors);
  });

  it("Z05: whichever way something secret is come by, it passes the same quotas", () => {
    using pool = openPool();
    const descriptor = pool.owner("rich").allocateRegion(PAGE_BYTES).share();
    const poor = pool.owner("poor", { bytes: 64 });
    const below = poor.owner("below");
    const ways = [
      () => below.allocate(100),
      () => below.keep(Buffer.alloc(100)),
      () => below.allocateRegion(PAGE_BYTES),
      () => below.adoptRegion(descriptor),
    ];
    for (const way of ways) refused(way, "SECRET_QUOTA", /owner poor/);
    assert.ok(below.tryAllocate(100) instanceof SecretRefusal);
    assert.ok(below.tryAllocateRegion(PAGE_BYTES) instanceof SecretRefusal);
    assert.equal(pool.statistics().refusals.SECRET_QUOTA, 6);
    assert.equal(pool.statistics().owners.find(({ path }) => path === "poor/below")?.refusals, 6);
    below.allocate(48);
    closeDescriptor(descriptor);
  });

  it("Z06: the file behind a region keeps its size, whoever has the descriptor", () => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(2 * PAGE_BYTES);
    const descriptor = region.share();
    for (const size of [0, PAGE_BYTES, 3 * PAGE_BYTES]) assert.ok(truncate(descriptor, size) < 0, `to ${size}`);
    closeDescriptor(descriptor);
    region.copyFrom(Buffer.from("still there"), PAGE_BYTES);
  });

  it("Z07: all secret memory counts, in its owner, in the pool and in what the process has locked", () => {
    const { output, errors } = runChild(`
      const pool = open({ policy: "degraded", bytesMax: 6 * 2 ** 20, reserveShare: 0, lowWaterBytes: 0 });
      const owner = pool.owner("child");
      for (const size of [2 ** 21 - 16, 2 ** 21 - 16]) owner.allocate(size);
      owner.allocateRegion(2 ** 20);
      const codes = [() => owner.allocate(2 ** 21 - 16), () => owner.allocateRegion(2 ** 20 + 4096)].map(codeOf);
      const { lockedBytes, usedBytes, ceilingBytes } = pool.statistics();
      console.log(codes.join(), lockedBytes === sys.lockedBytes(), lockedBytes <= ceilingBytes, usedBytes / 2 ** 20);
      pool.close();
      console.log(sys.lockedBytes(), pool.statistics().lockedBytes);`);
    assert.equal(output, "SECRET_CEILING,SECRET_CEILING true true 5\n0 0", errors);
  });
});
