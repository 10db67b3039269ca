import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { lockedBytes, mappingsIn, openDescriptorCount } from "@xenolith/sys";
import { formatSecretMetrics, type Secret, SecretPool } from "@xenolith/secrets";
import { openPool, refused } from "./pools.ts";

const CHUNK = 2 * 2 ** 20;

const isSecretFile = (path: string): boolean => /^\/secretmem|^\/memfd:xenolith-secrets/.test(path);

describe("a pool", () => {
  it("has 50,000 secrets in two chunks: two descriptors and two mappings", () => {
    using pool = openPool({ lowWaterBytes: 0 });
    const owner = pool.owner("tests");
    const filesBefore = openDescriptorCount();
    const secrets: Secret[] = [];
    for (let count = 0; count < 50_000; count += 1) {
      const secret = owner.allocate(32);
      secret.copyFrom(Uint8Array.of(count & 255, count >> 8));
      secrets.push(secret);
    }
    const { chunks, slots, usedBytes } = pool.statistics();
    assert.deepEqual([chunks, slots, usedBytes], [2, 50_000, 50_000 * 64]);
    assert.equal(mappingsIn(0, 2 ** 48).filter(({ path }) => isSecretFile(path)).length, 2);
    assert.equal(openDescriptorCount() - filesBefore, 1);
    for (const [count, secret] of secrets.entries()) {
      if (count % 97 === 0)
        assert.ok(secret.withBytes((bytes) => bytes[0] === (count & 255) && bytes[1] === count >> 8));
      secret.release();
    }
    assert.equal(pool.statistics().usedBytes, 0);
  });

  it("locks 2 MiB more for each chunk, and nothing once it is closed", () => {
    const before = { locked: lockedBytes(), files: openDescriptorCount() };
    const pool = openPool({ lowWaterBytes: 0 });
    const owner = pool.owner("tests");
    assert.equal(lockedBytes() - before.locked, CHUNK);
    const first = owner.keep(Buffer.alloc(CHUNK - 16, 1));
    owner.allocate(1);
    assert.equal(lockedBytes() - before.locked, 2 * CHUNK);
    assert.equal(openDescriptorCount() - before.files, 2);
    pool.close();
    pool.close();
    assert.equal(lockedBytes(), before.locked);
    assert.equal(openDescriptorCount(), before.files);
    refused(() => first.copyTo(Buffer.alloc(CHUNK)), "SECRET_RELEASED");
    refused(() => owner.allocate(1), "SECRET_RELEASED");
    refused(() => pool.owner("late"), "SECRET_RELEASED");
  });

  it("adds a chunk in the background when few pages are left, not when memory is short", async () => {
    let isShort = true;
    await using pool = openPool({ underPressure: () => isShort });
    const owner = pool.owner("tests");
    owner.allocate(CHUNK - 64 * 4096);
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    await pool.idle();
    assert.equal(pool.statistics().chunks, 1);
    isShort = false;
    owner.allocate(4080);
    assert.equal(pool.statistics().chunks, 1, "nobody waited for it");
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    await pool.idle();
    assert.equal(pool.statistics().chunks, 2);
    assert.equal(pool.statistics().growths, 2);
  });

  it("keeps one free chunk when it shrinks, none when memory is short, and has chunks again afterwards", () => {
    let isShort = false;
    using pool = openPool({ lowWaterBytes: 0, underPressure: () => isShort });
    const owner = pool.owner("tests");
    const kept = owner.keep(Buffer.from("kept"));
    const large = [1, 2].map(() => owner.allocate(CHUNK - 16));
    assert.equal(pool.statistics().chunks, 3);
    assert.equal(pool.shrink(), 0);
    for (const secret of large) secret.release();
    const before = lockedBytes();
    assert.equal(pool.shrink(), 1);
    assert.equal(before - lockedBytes(), CHUNK);
    isShort = true;
    assert.equal(pool.shrink(), 1);
    assert.ok(kept.equals(Buffer.from("kept")));
    kept.release();
    assert.equal(pool.shrink(), 1);
    assert.equal(pool.statistics().lockedBytes, 0);
    using again = owner.keep(Buffer.from("again"));
    assert.ok(again.equals(Buffer.from("again")));
    assert.equal(pool.statistics().chunks, 1);
  });

  it("grows in a helper process as it does here", async () => {
    await using pool = openPool({ growth: "helper", bytesMax: 2 * CHUNK, reserveShare: 0 });
    const owner = pool.owner("tests");
    using first = owner.keep(Buffer.alloc(CHUNK - 64 * 4096, 1));
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    await pool.idle();
    assert.equal(pool.statistics().chunks, 2);
    using second = owner.keep(Buffer.alloc(CHUNK - 16, 2));
    assert.equal(
      second.withBytes((bytes) => bytes[CHUNK - 17]),
      2,
    );
    assert.equal(first.hidden, pool.hidden);
  });

  it("counts for everybody what its owners have, and refuses by code", () => {
    using pool = openPool({ bytesMax: CHUNK });
    const owner = pool.owner("tests", { bytes: 128 });
    owner.allocate(1);
    owner.owner("below").allocate(1);
    refused(() => owner.allocate(1), "SECRET_QUOTA");
    const figures = pool.statistics();
    const top = figures.owners.filter(({ path }) => !path.includes("/"));
    assert.equal(
      top.reduce((sum, { bytes }) => sum + bytes, 0),
      figures.usedBytes,
    );
    assert.equal(figures.ceilingBytes, CHUNK);
    assert.equal(figures.degradedSlots, pool.hidden ? 0 : 2);
    const text = formatSecretMetrics(figures);
    assert.match(text, /^xenolith_secrets_slots 2$/m);
    assert.match(text, /^xenolith_secrets_refusals_total\{code="SECRET_QUOTA"\} 1$/m);
    assert.match(text, /^xenolith_secrets_owner_bytes\{owner="tests\/below"\} 64$/m);
  });

  it("is not opened with options that make no sense", () => {
    const bad = [
      { bytesMax: 0 },
      { bytesMax: 4095 },
      { bytesMax: 2 ** 30 + 1 },
      { bytesMax: Number.NaN },
      { reserveShare: -0.1 },
      { reserveShare: 0.6 },
      { lowWaterBytes: -1 },
      { policy: "lenient" as "strict" },
      { growth: "there" as "here" },
    ];
    for (const options of bad) refused(() => SecretPool.open(options), "INVALID_ARGUMENT");
    openPool({ bytesMax: 4096 }).close();
  });
});
