import assert from "node:assert/strict";
import { describe, it } from "node:test";

import fc from "fast-check";

import { boot, bootBoth, callExport, outcome } from "./support.ts";

const PAGE_BYTES = 65_536;

const { native, booted } = bootBoth(`(module
  (memory (export "memory") 2)
  (data (i32.const 16) "active")
  (data $passive "0123456789abcdef")
  (func (export "copy") (param i32 i32 i32) (memory.copy (local.get 0) (local.get 1) (local.get 2)))
  (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))
  (func (export "init") (param i32 i32 i32) (memory.init $passive (local.get 0) (local.get 1) (local.get 2)))
  (func (export "drop") (data.drop $passive))
  (func (export "size") (result i32) (memory.size))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))`);

const nativeBytes = () => new Uint8Array((native["memory"] as WebAssembly.Memory).buffer);
const rewrittenBytes = (length = nativeBytes().length) => new Uint8Array(booted.memory.buffer, 0, length);

/** Does the same in both modules and compares results and memories. */
function same(name: string, ...parameters: number[]): void {
  const expected = outcome(() => callExport(native, name, ...parameters));
  const actual = outcome(() => callExport(booted.exports, name, ...parameters));
  assert.equal(actual, expected, `${name}(${parameters.join(", ")})`);
  assert.ok(Buffer.compare(nativeBytes(), rewrittenBytes()) === 0, `memory after ${name}(${parameters.join(", ")})`);
}

/** Puts the same noise into both memories. */
function scramble(): void {
  const bytes = nativeBytes();
  for (let index = 0; index < bytes.length; index++) bytes[index] = (index * 167 + (index >> 8) * 13 + 7) & 0xff;
  rewrittenBytes().set(bytes);
}

describe("memory.copy", () => {
  it("moves every length from 0 to 600 at every distance from -17 to 17 as the native instruction does", () => {
    scramble();
    for (let length = 0; length <= 600; length += length < 300 ? 1 : 13) {
      for (let distance = -17; distance <= 17; distance++) {
        callExport(native, "copy", 4_000 + distance, 4_000, length);
        callExport(booted.exports, "copy", 4_000 + distance, 4_000, length);
      }
      assert.ok(Buffer.compare(nativeBytes(), rewrittenBytes()) === 0, `length ${length}`);
    }
  });

  it("moves random ranges, overlapping or not, as the native instruction does", () => {
    scramble();
    const place = fc.integer({ min: 0, max: PAGE_BYTES });
    const length = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: PAGE_BYTES }));
    fc.assert(
      fc.property(place, place, length, (to, from, count) => same("copy", to, from, count)),
      { numRuns: 300 },
    );
  });

  it("traps when either range reaches past 2^32 and moves nothing", () => {
    for (const [to, from, count] of [
      [-4, 0, 5],
      [0, -4, 5],
      [-1, -1, 2],
      [2, 0, -1],
      [0, 2, -1],
      [-1, 0, -1],
    ] as const) {
      const before = rewrittenBytes(64).slice();
      const copy = () => callExport(booted.exports, "copy", to, from, count);
      assert.throws(copy, { name: "RuntimeError", message: /memory access out of bounds/ });
      assert.deepEqual(rewrittenBytes(64).slice(), before);
    }
  });

  it("moves ranges that end at 2^32 exactly", () => {
    const bytes = new Uint8Array(booted.memory.buffer);
    bytes.set([1, 2, 3, 4], 100);
    callExport(booted.exports, "copy", -4, 100, 4);
    assert.deepEqual(bytes.slice(2 ** 32 - 4), Uint8Array.of(1, 2, 3, 4));
    for (const count of [1, 16, 33, 100, 500, 5_000]) {
      bytes.fill(count & 0xff, 2 ** 32 - count);
      callExport(booted.exports, "copy", 100, -count, count);
      callExport(booted.exports, "copy", -count - 7, -count, count);
      assert.ok(bytes.slice(100, 100 + count).every((byte) => byte === (count & 0xff)));
    }
    scramble();
  });

  it("accepts a length of 0 at any address", () => {
    callExport(booted.exports, "copy", -1, -1, 0);
    callExport(booted.exports, "fill", -1, 0, 0);
  });
});

describe("memory.fill", () => {
  it("fills every length from 0 to 600 at every alignment as the native instruction does", () => {
    scramble();
    for (let length = 0; length <= 600; length += length < 300 ? 1 : 7) {
      for (let address = 2_000; address < 2_017; address++) {
        callExport(native, "fill", address, length + 0x1_55, length);
        callExport(booted.exports, "fill", address, length + 0x1_55, length);
      }
      assert.ok(Buffer.compare(nativeBytes(), rewrittenBytes()) === 0, `length ${length}`);
    }
  });

  it("fills random ranges with random values as the native instruction does", () => {
    const length = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: PAGE_BYTES }));
    const address = fc.integer({ min: 0, max: PAGE_BYTES });
    fc.assert(
      fc.property(address, fc.integer(), length, (to, value, count) => same("fill", to, value, count)),
      { numRuns: 300 },
    );
  });

  it("traps when the range reaches past 2^32 and changes nothing", () => {
    const bytes = new Uint8Array(booted.memory.buffer);
    const before = bytes.slice(2 ** 32 - 16);
    for (const [to, count] of [
      [-4, 5],
      [-1, 2],
      [2, -1],
    ] as const) {
      assert.throws(() => callExport(booted.exports, "fill", to, 9, count), /memory access out of bounds/);
    }
    assert.deepEqual(bytes.slice(2 ** 32 - 16), before);
    callExport(booted.exports, "fill", -5, 9, 5);
    assert.deepEqual(bytes.slice(2 ** 32 - 6), Uint8Array.of(before[10]!, 9, 9, 9, 9, 9));
  });
});

describe("memory.init and data.drop", () => {
  it("copies from a passive segment and traps outside it or outside the memory", () => {
    scramble();
    const bound = fc.oneof(fc.integer({ min: 0, max: 20 }), fc.constantFrom(-1, 2 * PAGE_BYTES - 4, 2 * PAGE_BYTES));
    fc.assert(fc.property(bound, bound, bound, (to, from, count) => same("init", to, from, count)));
    same("init", 40, 2, 14);
  });

  it("makes the segment empty once it is dropped", () => {
    same("init", 0, 0, 1);
    same("drop");
    same("init", 0, 0, 1);
    same("init", 0, 0, 0);
  });
});

describe("memory.size and memory.grow", () => {
  it("report and change what the hypervisor says", () => {
    assert.equal(callExport(booted.exports, "size"), 2);
    assert.equal(callExport(booted.exports, "grow", 3), 2);
    assert.equal(callExport(booted.exports, "size"), 5);
    assert.equal(callExport(booted.exports, "grow", -1), -1);
    assert.equal(booted.pages.current, 5);
  });

  it("cannot make the memory itself larger or smaller than its 4 GiB", () => {
    assert.equal(booted.memory.buffer.byteLength, 2 ** 32);
  });
});

describe("an image", () => {
  it("finds its active data in place and does not share anything with another instance", () => {
    const { image } = bootBoth(`(module (memory 1) (data (i32.const 65530) "ending")
      (func (export "get") (result i32) (i32.load8_u (i32.const 65535))))`);
    assert.equal(callExport(boot(image).exports, "get"), "g".charCodeAt(0));
  });
});
