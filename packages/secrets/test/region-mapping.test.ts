import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SecretRegion, SecretRefusal } from "@xenolith/secrets";
import { mapAnywhere, PROT_READ, unmap, viewMemory } from "@xenolith/sys";
import { openPool, refused } from "./pools.ts";

const KIB = 1024;

/** Code of a refusal, or "granted". */
const codeOf = (result: SecretRegion | SecretRefusal | undefined): string =>
  result instanceof SecretRefusal ? result.code : "granted";

/** A region that must be granted. */
const given = (result: SecretRegion | SecretRefusal): SecretRegion => {
  assert.ok(result instanceof SecretRegion, codeOf(result));
  return result;
};

describe("regions that are mapped by their user", () => {
  it("count once for each mapping, as locked memory does, within what the owner may have", () => {
    using pool = openPool();
    const tenant = pool.owner("tenant", { bytes: 64 * KIB });
    const worker = tenant.owner("worker");
    const { lockedBytes } = pool.statistics();
    assert.equal(worker.tryReserveMapping(40 * KIB), undefined);
    assert.equal(codeOf(worker.tryReserveMapping(28 * KIB)), "SECRET_QUOTA");
    assert.equal(codeOf(tenant.tryReserveMapping(24 * KIB)), "granted");
    const [above, below] = pool.statistics().owners;
    assert.deepEqual([above?.mappedBytes, below?.mappedBytes], [64 * KIB, 40 * KIB]);
    assert.equal(pool.statistics().lockedBytes - lockedBytes, 64 * KIB);
    worker.returnMapping(40 * KIB);
    worker.close();
    tenant.returnMapping(24 * KIB);
    const { mappedBytes, owners } = pool.statistics();
    assert.deepEqual([mappedBytes, owners[0]?.mappedBytes], [0, 0]);
    refused(() => worker.tryReserveMapping(4 * KIB), "SECRET_RELEASED");
  });

  it("are mapped by the region's own descriptor, which ends with it", () => {
    using pool = openPool();
    const region = pool.owner("tests").allocateRegion(8 * KIB);
    region.copyFrom(Uint8Array.of(7), 4 * KIB);
    const run = { fd: region.descriptor, offsetBytes: 4 * KIB, lengthBytes: 4 * KIB, protection: PROT_READ } as const;
    const address = mapAnywhere(run);
    const shown = new Uint8Array(viewMemory(address, 1))[0];
    unmap(address, 4 * KIB);
    region.release();
    assert.equal(shown, 7);
    refused(() => region.descriptor, "SECRET_RELEASED");
  });

  it("stop at the pool's ceiling, and leave the reserve to the privileged", () => {
    using pool = openPool({ bytesMax: 4096 * KIB, reserveShare: 0.25 });
    const owner = pool.owner("tests");
    assert.equal(codeOf(owner.tryReserveMapping(2052 * KIB)), "SECRET_CEILING");
    const all = pool.owner("root", { privileged: true });
    assert.equal(all.tryReserveMapping(2048 * KIB), undefined);
    assert.equal(codeOf(owner.tryAllocateRegion(4 * KIB)), "SECRET_CEILING");
    all.returnMapping(2048 * KIB);
    given(owner.tryAllocateRegion(4 * KIB)).release();
  });
});

describe("a region made while the program goes on", () => {
  it("is one like any other, and charged before it is there", async () => {
    using pool = openPool({ growth: "helper" });
    const owner = pool.owner("tests", { bytes: 16 * KIB });
    const first = owner.allocateRegionSoon(12 * KIB);
    const second = owner.allocateRegionSoon(8 * KIB);
    assert.equal(pool.statistics().regionBytes, 12 * KIB);
    const region = given(await first);
    assert.equal(codeOf(await second), "SECRET_QUOTA");
    assert.ok(region.withBytes((bytes) => bytes.length === 12 * KIB && bytes.every((byte) => byte === 0)));
    region.release();
    const { usedBytes, regionBytes } = pool.statistics();
    assert.deepEqual([usedBytes, regionBytes], [0, 0]);
  });

  it("is nobody's when its owner was closed meanwhile", async () => {
    using pool = openPool({ growth: "helper" });
    const owner = pool.owner("tests");
    const coming = owner.allocateRegionSoon(8 * KIB);
    owner.close();
    await assert.rejects(coming, { code: "SECRET_RELEASED" });
    const { usedBytes, regionBytes } = pool.statistics();
    assert.deepEqual([usedBytes, regionBytes], [0, 0]);
  });

  it("of a size that is none is refused at once", async () => {
    using pool = openPool();
    for (const size of [0, 100, Number.NaN]) {
      assert.equal(codeOf(await pool.owner(`tests-${String(size)}`).allocateRegionSoon(size)), "INVALID_SIZE");
    }
  });
});
