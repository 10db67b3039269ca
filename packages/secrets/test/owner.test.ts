import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { SecretRefusal, type SecretOwner } from "@xenolith/secrets";
import { openPool, refused } from "./pools.ts";

const CHUNK = 2 * 2 ** 20;

/** Takes secrets of a size until a refusal, which it returns. */
const drain = (owner: SecretOwner, size: number): SecretRefusal => {
  for (;;) {
    const secret = owner.tryAllocate(size);
    if (secret instanceof SecretRefusal) return secret;
  }
};

describe("owners", () => {
  it("are refused beyond their bytes or slots, and nobody else is", () => {
    using pool = openPool();
    const [greedy, other] = [pool.owner("greedy", { bytes: 640, slots: 100 }), pool.owner("other", { slots: 1 })];
    const refusal = drain(greedy, 32);
    assert.equal(refusal.code, "SECRET_QUOTA");
    assert.match(refusal.message, /owner greedy has 640 of 640 bytes, and wants 64 more/);
    assert.equal(pool.statistics().slots, 10);
    other.allocate(32);
    refused(() => other.allocate(32), "SECRET_QUOTA", /owner other has 1 of 1 slots/);
    assert.equal(pool.statistics().refusals.SECRET_QUOTA, 2);
  });

  it("draw from the quota of those above them, and what they give back can be had again", () => {
    using pool = openPool();
    const tenant = pool.owner("tenant", { bytes: 256 });
    const [left, right] = [tenant.owner("left"), tenant.owner("right", { bytes: 10_000 })];
    const first = left.allocate(48);
    drain(left, 32);
    refused(() => right.allocate(1), "SECRET_QUOTA", /owner tenant has 256 of 256 bytes/);
    first.release();
    right.allocate(1);
    assert.deepEqual(
      pool.statistics().owners.map(({ path, bytes, slots }) => [path, bytes, slots]),
      [
        ["tenant", 256, 4],
        ["tenant/left", 192, 3],
        ["tenant/right", 64, 1],
      ],
    );
  });

  it("are kept within their chunks, where they may still take what is free", () => {
    using pool = openPool({ lowWaterBytes: 0 });
    const [bound, free] = [pool.owner("bound", { chunks: 1 }), pool.owner("free")];
    const [first] = [bound.allocate(32)];
    free.allocate(CHUNK - 3 * 4096);
    free.allocate(CHUNK - 16);
    assert.equal(pool.statistics().chunks, 2);
    const refusal = drain(bound, 4080);
    assert.equal(refusal.code, "SECRET_QUOTA");
    assert.match(refusal.message, /bound has 1 of 1 chunks/);
    bound.allocate(32);
    first.release();
    assert.equal(pool.statistics().owners[0]?.chunks, 1);
  });

  it("that have no quota are held by the pool's ceiling, whose last part is for the privileged", () => {
    using pool = openPool({ bytesMax: 2 * CHUNK, reserveShare: 0.1 });
    const [guest, root] = [pool.owner("guest"), pool.owner("root", { privileged: true })];
    const refusal = drain(guest, 4080);
    assert.equal(refusal.code, "SECRET_CEILING");
    assert.match(refusal.message, /beyond the reserve: 4194304 of 4194304 bytes/);
    assert.equal(pool.statistics().freeBytes, Math.ceil(1024 * 0.1) * 4096);
    assert.equal(drain(root, 4080).code, "SECRET_CEILING");
    assert.equal(pool.statistics().freeBytes, 0);
    refused(() => guest.owner("climber", { privileged: true }), "INVALID_ARGUMENT", /cannot be privileged/);
  });

  it("when they are closed give back all that they and those below them had, wiped", () => {
    using pool = openPool();
    const tenant = pool.owner("tenant");
    const worker = tenant.owner("worker");
    const secrets = [tenant.allocate(32), worker.allocate(5000)];
    const region = worker.allocateRegion(8192);
    tenant.close();
    assert.deepEqual(
      [...secrets, region].map((each) => each.isLive),
      [false, false, false],
    );
    refused(() => worker.allocate(1), "SECRET_RELEASED", /owner tenant\/worker is closed/);
    refused(() => tenant.owner("another"), "SECRET_RELEASED");
    const { usedBytes, slots, regionBytes, owners } = pool.statistics();
    assert.deepEqual([usedBytes, slots, regionBytes, owners.length], [0, 0, 0, 0]);
    pool.owner("tenant").allocate(1);
  });

  it("have names, quotas and depths that make sense, or are not made", () => {
    using pool = openPool();
    for (const name of ["", "a/b", "two words", "\n", "x".repeat(129)]) {
      refused(() => pool.owner(name), "INVALID_ARGUMENT", /an owner's name/);
    }
    for (const quota of [{ bytes: -1 }, { slots: 0.5 }, { chunks: Number.NaN }]) {
      refused(() => pool.owner("quota", quota), "INVALID_ARGUMENT", /quota of (bytes|slots|chunks)/);
    }
    pool.owner("once");
    refused(() => pool.owner("once"), "INVALID_ARGUMENT", /an owner once/);
    let owner = pool.owner("deep");
    for (let depth = 2; depth <= 16; depth += 1) owner = owner.owner("deep");
    refused(() => owner.owner("deep"), "INVALID_ARGUMENT", /16 deep/);
    pool.owner("none", { bytes: 0, slots: 0, chunks: 0 });
  });
});
