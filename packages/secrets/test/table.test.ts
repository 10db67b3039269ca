import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { describe, it } from "node:test";
import { addressOf, PAGE_BYTES, viewMemory } from "@xenolith/sys";
import { SecretRefusal, type SecretOwner, type SecretPool, type SecretTable } from "@xenolith/secrets";
import { openPool, refused } from "./pools.ts";

const put = (table: SecretTable, bytes: Uint8Array, owner: SecretOwner): number => {
  const number = table.put(bytes, owner);
  assert.equal(typeof number, "number", number instanceof SecretRefusal ? number.message : "");
  return number as number;
};

const codeOf = (result: number | SecretRefusal): string => (typeof result === "number" ? "none" : result.code);

const read = (table: SecretTable, number: number): Buffer => {
  const size = table.sizeOf(number);
  const bytes = Buffer.alloc(size + 1, 0xee);
  table.copyTo(number, size, bytes);
  assert.equal(bytes[size], 0xee, "nothing behind it is touched");
  return bytes.subarray(0, size);
};

/** Every byte of the only chunk of a pool, found through a secret of it. */
const chunkOf = (pool: SecretPool): Buffer => {
  using owner = pool.owner("looks");
  using secret = owner.allocate(1);
  const { chunkBytes } = pool.statistics();
  const address = secret.withBytes((bytes) => addressOf(new Uint8Array(bytes.buffer))) + PAGE_BYTES;
  return Buffer.from(viewMemory(address, chunkBytes));
};

describe("a table of secrets", () => {
  it("keeps bytes of every size as they are, and nothing of them after their release", () => {
    using pool = openPool();
    using owner = pool.owner("one");
    const table = pool.table();
    const sizes = [1, 15, 16, 48, 49, 112, 113, 1000, 4080, 4081, 9000, 100_000];
    const kept = sizes.map((size) => {
      const bytes = randomBytes(size);
      return { bytes, number: put(table, bytes, owner) };
    });
    for (const { bytes, number } of kept) assert.deepEqual(read(table, number), bytes);
    assert.deepEqual([table.count, owner.statistics().slots], [sizes.length, sizes.length]);
    for (const { number } of kept) table.release(number);
    const chunk = chunkOf(pool);
    for (const { bytes } of kept) {
      if (bytes.length > 15) assert.equal(chunk.indexOf(bytes.subarray(0, 16)), -1);
    }
    assert.deepEqual([table.count, pool.statistics().usedBytes], [0, 0]);
  });

  it("costs 64 bytes for one of up to 48, as a secret with a handle does", () => {
    using pool = openPool();
    using owner = pool.owner("one");
    const table = pool.table();
    for (const size of [1, 48]) put(table, Buffer.alloc(size, 1), owner);
    owner.allocate(48);
    assert.equal(owner.statistics().bytes, 192);
  });

  it("refuses what an owner may not have, and what is no size, and changes nothing", () => {
    using pool = openPool();
    using owner = pool.owner("one", { slots: 2, bytes: 256 });
    const table = pool.table();
    const first = put(table, Buffer.from("first"), owner);
    assert.deepEqual(
      [0, 4080, 240, 241].map((size) => codeOf(table.put(Buffer.alloc(size), owner))),
      ["INVALID_SIZE", "SECRET_QUOTA", "SECRET_QUOTA", "SECRET_QUOTA"],
    );
    put(table, Buffer.from("second"), owner);
    assert.equal(codeOf(table.put(Buffer.from("third"), owner)), "SECRET_QUOTA");
    assert.deepEqual([table.count, owner.statistics().bytes, read(table, first).toString()], [2, 128, "first"]);
    using other = openPool();
    using stranger = other.owner("one");
    refused(() => table.put(Buffer.from("x"), stranger), "INVALID_ARGUMENT", /another pool/);
    const closed = pool.owner("closed");
    closed.close();
    refused(() => table.put(Buffer.from("x"), closed), "SECRET_RELEASED");
  });

  it("gives a secret to another owner as a whole or not at all", () => {
    using pool = openPool();
    using rich = pool.owner("rich");
    using poor = pool.owner("poor", { bytes: 64 });
    const table = pool.table();
    const [small, large] = [randomBytes(48), randomBytes(5000)];
    const numbers = [put(table, small, rich), put(table, large, rich)];
    const given = table.give(numbers[0]!, poor);
    assert.ok(typeof given === "number");
    assert.equal(codeOf(table.give(numbers[1]!, poor)), "SECRET_QUOTA");
    assert.deepEqual([read(table, given), read(table, numbers[1]!)], [small, large]);
    assert.deepEqual([rich.statistics().slots, poor.statistics().slots, table.count], [1, 1, 2]);
    refused(() => read(table, numbers[0]!), "SECRET_RELEASED");
  });

  it("lends its bytes to a target that is no array, for the call only", () => {
    using pool = openPool();
    using owner = pool.owner("one");
    const table = pool.table();
    const number = put(table, Buffer.from("correct horse"), owner);
    let kept: Uint8Array | undefined;
    let seen = "";
    const set = (bytes: Uint8Array): void => {
      kept = bytes;
      seen += Buffer.from(bytes).toString();
    };
    table.copyTo(number, 7, { length: 7, set });
    assert.deepEqual([seen, kept?.length], ["correct", 0]);
    refused(() => table.copyTo(number, 8, { length: 7, set }), "INVALID_SIZE");
    assert.equal(read(table, number).toString(), "correct horse");
  });

  it("knows its own numbers only", () => {
    using pool = openPool();
    using owner = pool.owner("one");
    const [table, other] = [pool.table(), pool.table()];
    const number = put(table, Buffer.from("mine"), owner);
    const large = put(table, Buffer.alloc(PAGE_BYTES * 2, 1), owner);
    owner.keep(Buffer.alloc(48, 1));
    const target = Buffer.alloc(8);
    for (const wrong of [-1, 0.5, Number.NaN, 2 ** 40, number + 1, number + 2, large + 1, large + 64]) {
      refused(() => table.copyTo(wrong, 1, target), "SECRET_RELEASED");
      refused(() => table.release(wrong), "SECRET_RELEASED");
      refused(() => table.give(wrong, owner), "SECRET_RELEASED");
    }
    refused(() => other.release(number), "SECRET_RELEASED");
    refused(() => other.sizeOf(large), "SECRET_RELEASED");
    refused(() => table.copyTo(number, 5, target), "INVALID_SIZE");
    refused(() => table.copyTo(number, 4, target.subarray(5)), "INVALID_SIZE");
    refused(() => table.copyTo(number, -1, target), "INVALID_SIZE");
    table.release(number);
    refused(() => table.release(number), "SECRET_RELEASED");
    assert.equal(table.count, 1);
  });

  it("ends with its owners and with the pool: everything is wiped", () => {
    const pool = openPool();
    const [first, second] = [pool.owner("first"), pool.owner("second")];
    const table = pool.table();
    const other = pool.table();
    const marker = randomBytes(16);
    for (const size of [16, 40, 400, 5000]) {
      put(table, Buffer.alloc(size, marker), first);
      put(other, Buffer.alloc(size, marker), first);
    }
    const stays = put(table, Buffer.from("stays"), second);
    first.close();
    assert.deepEqual([table.count, other.count, pool.statistics().slots], [1, 0, 1]);
    assert.equal(chunkOf(pool).indexOf(marker), -1);
    assert.equal(read(table, stays).toString(), "stays");
    put(other, Buffer.from("goes"), second);
    other[Symbol.dispose]();
    assert.deepEqual([table.count, other.count, second.statistics().slots], [1, 0, 1]);
    pool.close();
    assert.equal(table.count, 0);
    refused(() => pool.table(), "SECRET_RELEASED");
  });

  it("notices what was written behind a secret, wherever in its slot", () => {
    using pool = openPool();
    using owner = pool.owner("one");
    const table = pool.table();
    const { chunkBytes } = pool.statistics();
    // A chunk's mapping can be found through a lent view only; the numbers count units of 64 bytes from its beginning.
    using secret = owner.allocate(1);
    const base = secret.withBytes((bytes) => addressOf(new Uint8Array(bytes.buffer))) + PAGE_BYTES;
    const memory = new Uint8Array(viewMemory(base, chunkBytes));
    const number = put(table, Buffer.alloc(20, 1), owner);
    memory[number * 64 + 20] = 1;
    refused(() => table.release(number), "SECRET_OVERRUN", /20 bytes/);
    assert.deepEqual([table.count, pool.statistics().overruns], [0, 1]);
    const marked = put(table, Buffer.alloc(48, 1), owner);
    memory[marked * 64 + 48]! ^= 1;
    refused(() => table.release(marked), "SECRET_RELEASED");
    assert.equal(table.count, 1, "whose it is cannot be known any more: it stays until the pool is closed");
  });

  it("is what a map of buffers is, through random operations", (context) => {
    const seed = randomInt(2 ** 31);
    context.diagnostic(`seed ${seed}`);
    let state = seed;
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    using pool = openPool();
    const owners = [pool.owner("a"), pool.owner("b"), pool.owner("c", { slots: 20 })];
    const table = pool.table();
    const model = new Map<number, { readonly bytes: Buffer; owner: number }>();
    for (let step = 0; step < 5000; step += 1) {
      const [number, entry] = [...model][random(model.size)] ?? [];
      const owner = random(3);
      const used = [...model.values()].filter((each) => each.owner === owner).length;
      const isFull = owner === 2 && used >= 20;
      if (number === undefined || entry === undefined || random(3) === 0) {
        const bytes = Buffer.alloc(1 + random(random(20) === 0 ? 9000 : 200), step & 0xff);
        const result = table.put(bytes, owners[owner]!);
        assert.equal(typeof result === "number", !isFull, `step ${step} of seed ${seed}`);
        if (typeof result !== "number") continue;
        assert.ok(!model.has(result));
        model.set(result, { bytes, owner });
      } else if (random(2) === 0) {
        const result = table.give(number, owners[owner]!);
        assert.equal(typeof result === "number", !isFull, `step ${step} of seed ${seed}`);
        if (typeof result !== "number") continue;
        model.delete(number);
        model.set(result, { bytes: entry.bytes, owner });
      } else {
        assert.deepEqual(read(table, number), entry.bytes, `step ${step} of seed ${seed}`);
        table.release(number);
        model.delete(number);
      }
    }
    for (const [number, { bytes }] of model) assert.deepEqual(read(table, number), bytes);
    for (const [index, owner] of owners.entries()) {
      const expected = [...model.values()].filter((each) => each.owner === index).length;
      assert.equal(owner.statistics().slots, expected, `seed ${seed}`);
    }
    assert.equal(table.count, model.size);
  });
});
