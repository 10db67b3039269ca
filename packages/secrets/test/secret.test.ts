import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import { randomBytes } from "node:crypto";
import { PAGE_BYTES } from "@xenolith/sys";
import { openPool, refused } from "./pools.ts";

const MARKER = "7c9e-marker-of-a-secret";

describe("a secret", () => {
  it("has its bytes, wherever its size puts it", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    for (const size of [1, 47, 48, 49, 112, 113, 1008, 2032, 4080, 4081, 8176, 8177, 2 ** 20, 2 ** 21 - 16]) {
      const bytes = randomBytes(size);
      using secret = owner.keep(bytes);
      const copy = Buffer.alloc(size + 1, 9);
      assert.equal(secret.copyTo(copy), size);
      assert.deepEqual(copy.subarray(0, size), bytes);
      assert.equal(copy[size], 9);
      assert.equal(
        secret.withBytes((view) => Buffer.compare(view, bytes)),
        0,
      );
    }
    assert.equal(pool.statistics().usedBytes, 0);
  });

  it("of a size that no secret has is refused, and the sizes beside it are not", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    for (const size of [0, -1, 1.5, Number.NaN, Infinity, 2 ** 21 - 15, 2 ** 32, 2 ** 53]) {
      refused(() => owner.allocate(size), "INVALID_SIZE", /1 to 2097136 bytes/);
    }
    for (const size of [1, 2 ** 21 - 16]) owner.allocate(size).release();
    refused(() => owner.allocate("32" as unknown as number), "INVALID_SIZE");
    assert.equal(pool.statistics().refusals.INVALID_SIZE, 9);
  });

  it("takes the smallest slot that holds it and its mark: 64 bytes for 48, then powers of two, then pages", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const costs = [1, 48, 49, 112, 113, 4080, 4081].map((size) => {
      using _ = owner.allocate(size);
      return pool.statistics().usedBytes;
    });
    assert.deepEqual(costs, [64, 64, 128, 128, 256, PAGE_BYTES, 2 * PAGE_BYTES]);
  });

  it("is zeros at first, also where another was", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    for (const size of [32, 500, 9000]) {
      owner.keep(Buffer.alloc(size, 0xff)).release();
      using next = owner.allocate(size);
      assert.ok(next.withBytes((bytes) => bytes.every((byte) => byte === 0)));
    }
  });

  it("is used by nobody after its release, and released once", () => {
    using pool = openPool();
    const secret = pool.owner("tests").keep(Buffer.from(MARKER));
    secret.release();
    assert.equal(secret.isLive, false);
    refused(() => secret.release(), "SECRET_RELEASED");
    refused(() => secret.withBytes(() => 0), "SECRET_RELEASED");
    refused(() => secret.copyFrom(Buffer.alloc(1)), "SECRET_RELEASED");
    refused(() => secret.copyTo(Buffer.alloc(99)), "SECRET_RELEASED");
    refused(() => secret.equals(Buffer.alloc(1)), "SECRET_RELEASED");
    refused(() => secret.seal(), "SECRET_RELEASED");
    secret[Symbol.dispose]();
    assert.equal(pool.statistics().slots, 0);
  });

  it("lends views that are empty afterwards, whoever kept them", async () => {
    using pool = openPool();
    const secret = pool.owner("tests").keep(Buffer.from(MARKER));
    const kept: Uint8Array[] = [];
    secret.withBytes((outer) => {
      kept.push(outer);
      secret.withBytes((inner) => kept.push(inner, new Uint8Array(inner.buffer, inner.byteOffset, 4)));
      assert.equal(outer.length, MARKER.length, "control: while it is lent");
    });
    assert.deepEqual(
      kept.map((view) => view.length),
      [0, 0, 0],
    );
    let promised: Uint8Array | undefined;
    refused(
      () =>
        secret.withBytes(async (bytes) => {
          promised = bytes;
        }),
      "INVALID_ARGUMENT",
      /asynchronous/,
    );
    await Promise.resolve();
    assert.equal(promised?.length, 0);
    assert.equal(secret.equals(Buffer.from(MARKER)), true);
  });

  it("is neither released nor closed while its bytes are used", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const secret = owner.keep(Buffer.from(MARKER));
    secret.withBytes(() => {
      refused(() => secret.release(), "SECRET_IN_USE");
      refused(() => owner.close(), "SECRET_IN_USE");
      refused(() => pool.close(), "SECRET_IN_USE");
      refused(() => pool.shrink(), "SECRET_IN_USE");
    });
    assert.throws(() => secret.withBytes(() => assert.fail("thrown inside")), /thrown inside/);
    secret.release();
  });

  it("when it is sealed can be read, compared and released, and not written", () => {
    using pool = openPool();
    const secret = pool.owner("tests").keep(Buffer.from(MARKER));
    secret.seal();
    refused(() => secret.copyFrom(Buffer.from("x")), "SECRET_SEALED");
    const seen = secret.withBytes((bytes) => {
      const text = Buffer.from(bytes).toString();
      bytes.fill(0);
      return text;
    });
    assert.equal(seen, MARKER);
    assert.equal(secret.equals(Buffer.from(MARKER)), true, "what was written went to a copy");
    assert.equal(pool.statistics().slots, 1);
    secret.release();
  });

  it("takes writes within its size only", () => {
    using pool = openPool();
    using secret = pool.owner("tests").allocate(8);
    secret.copyFrom(Buffer.from("abc"), 5);
    assert.ok(secret.equals(Buffer.from("\0\0\0\0\0abc")));
    for (const [text, at] of [
      ["abcd", 5],
      ["a", 8],
      ["a", -1],
      ["a", 0.5],
      ["a", Number.NaN],
    ] as const) {
      refused(() => secret.copyFrom(Buffer.from(text), at), "INVALID_SIZE");
    }
    refused(() => secret.copyTo(Buffer.alloc(7)), "INVALID_SIZE", /7 bytes for a secret of 8/);
  });

  it("equals what has the same bytes and the same size", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const secret = owner.keep(Buffer.from(MARKER));
    assert.equal(secret.equals(owner.keep(Buffer.from(MARKER))), true);
    assert.equal(secret.equals(owner.keep(Buffer.from(`${MARKER}x`))), false);
    assert.equal(secret.equals(Buffer.from(MARKER.replace("7", "8"))), false);
    assert.equal(secret.equals(secret), true);
  });

  it("prints nothing of itself", () => {
    using pool = openPool();
    const secret = pool.owner("tests").keep(Buffer.from(MARKER));
    assert.equal(inspect(secret, { depth: 9, showHidden: true }), "Secret {}");
    assert.equal(JSON.stringify({ token: secret }), "{}");
    assert.equal(String(secret), "[object Secret]");
    for (const text of [inspect(secret), `token ${String(secret)}`, JSON.stringify([secret])]) {
      assert.ok(!text.includes("marker"));
    }
  });

  it("that was written past by one byte says so at its release, is wiped, and its neighbour goes on", () => {
    using pool = openPool();
    const owner = pool.owner("tests");
    const [secret, neighbour] = [owner.keep(Buffer.from(MARKER)), owner.keep(Buffer.from("neighbour"))];
    let at = 0;
    secret.withBytes((bytes) => {
      at = bytes.byteOffset;
      const all = new Uint8Array(bytes.buffer);
      all[at + bytes.length] = ~all[at + bytes.length]!;
    });
    refused(() => secret.release(), "SECRET_OVERRUN", new RegExp(`a secret of ${MARKER.length} bytes`));
    assert.equal(pool.statistics().overruns, 1);
    neighbour.withBytes((bytes) => {
      const slot = new Uint8Array(bytes.buffer, at, 64);
      assert.ok(slot.every((byte) => byte === 0));
    });
    neighbour.release();
    assert.equal(pool.statistics().usedBytes, 0);
  });
});
