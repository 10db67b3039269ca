import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import {
  array,
  bytes,
  group,
  handle32,
  handle64,
  namedUnion,
  pad,
  s16,
  s32,
  s8,
  struct,
  structArray,
  u16,
  u32,
  u64,
  u64_aligned,
  u64n,
  u8,
  union,
} from "../src/index.ts";
import type { Layout, Scalar } from "../src/index.ts";

const view = new DataView(new ArrayBuffer(64));

describe("a declaration is checked when it is made", () => {
  it("accepts members in their natural places", () => {
    const ok = struct("ok", 16, { a: u16, _pad0: pad(2), b: u32, c: u64n });
    assert.deepEqual([ok.a.offset, ok.b.offset, ok.c.offset, ok.sizeBytes, ok.alignBytes], [0, 4, 8, 16, 4]);
  });
  it("refuses a size that is not the sum of the members", () => {
    assert.throws(() => struct("s", 12, { a: u32, b: u32 }), /members take 8 bytes, declared 12/);
  });
  it("refuses a member that would need hidden padding", () => {
    assert.throws(() => struct("s", 8, { a: u16, b: u32 }), /s\.b: offset 2 is not aligned to 4/);
  });
  it("refuses hidden padding at the end", () => {
    assert.throws(() => struct("s", 6, { a: u32, b: u16 }), /size 6 is not a multiple of its alignment 4/);
  });
  it("aligns a plain 64-bit number to 4 and an aligned one to 8", () => {
    assert.equal(struct("s", 12, { a: u32, b: u64n }).b.offset, 4);
    assert.equal(struct("s", 12, { a: u32, b: u64 }).b.offset, 4);
    assert.throws(() => struct("s", 12, { a: u32, b: u64_aligned }), /offset 4 is not aligned to 8/);
    assert.throws(() => struct("s", 12, { a: u32, b: handle64("void") }), /offset 4 is not aligned to 8/);
  });
  it("refuses an alignment that is not the declared one", () => {
    assert.equal(struct("s", 8, { a: u64_aligned }, { alignBytes: 8 }).alignBytes, 8);
    assert.throws(() => struct("s", 8, { a: u64n }, { alignBytes: 8 }), /aligned to 4, declared 8/);
  });
  it("refuses a member whose name the codec needs", () => {
    assert.throws(() => struct("s", 4, { sizeBytes: u32 }), /cannot have this name/);
    assert.throws(() => union({ bind: u32 }), /cannot have this name/);
  });
  it("refuses a union of another size than declared", () => {
    assert.equal(namedUnion("n", 8, { a: u32, b: bytes(7) }).sizeBytes, 8);
    assert.throws(() => namedUnion("n", 4, { a: u32, b: bytes(7) }), /members take 8 bytes, declared 4/);
  });
});

describe("handles read and write little endian at their offset", () => {
  const integers: readonly [string, Layout<Scalar>, number, number][] = [
    ["u8", u8, 0, 0xff],
    ["s8", s8, -0x80, 0x7f],
    ["u16", u16, 0, 0xffff],
    ["s16", s16, -0x8000, 0x7fff],
    ["u32", u32, 0, 0xffff_ffff],
    ["s32", s32, -0x8000_0000, 0x7fff_ffff],
    ["handle32", handle32("void"), 0, 0xffff_ffff],
    ["u64n", u64n, 0, Number.MAX_SAFE_INTEGER],
    ["u64_aligned", u64_aligned, 0, Number.MAX_SAFE_INTEGER],
    ["handle64", handle64("void"), 0, Number.MAX_SAFE_INTEGER],
  ];
  for (const [name, layout, min, max] of integers) {
    it(`${name}: what was written is read back, and nothing beside it changes`, () => {
      const handle = layout.bind(8);
      fc.assert(
        fc.property(fc.maxSafeInteger(), fc.integer({ min: 0, max: 40 }), (any, at) => {
          const span = max - min + 1;
          const value = Number.isSafeInteger(span) ? min + (((any % span) + span) % span) : Math.abs(any);
          new Uint8Array(view.buffer).fill(0xa5);
          handle.set(view, at, value);
          assert.equal(handle.get(view, at), value);
          for (let i = 0; i < view.byteLength; i++) {
            if (i < at + 8 || i >= at + 8 + layout.sizeBytes) assert.equal(view.getUint8(i), 0xa5);
          }
        }),
      );
    });
    it(`${name}: its ends are read back`, () => {
      for (const value of [min, max]) {
        layout.bind(4).set(view, 4, value);
        assert.equal(layout.bind(4).get(view, 4), value);
      }
    });
  }

  it("u32 is little endian", () => {
    u32.bind(0).set(view, 0, 0x0102_0304);
    assert.deepEqual([...new Uint8Array(view.buffer, 0, 4)], [4, 3, 2, 1]);
  });
  it("u64 keeps all 64 bits, and its halves are 32-bit words", () => {
    const wide = u64.bind(0);
    wide.set(view, 0, 0xfedc_ba98_7654_3210n);
    assert.equal(wide.get(view, 0), 0xfedc_ba98_7654_3210n);
    assert.deepEqual([wide.low.get(view, 0), wide.high.get(view, 0)], [0x7654_3210, 0xfedc_ba98]);
  });
  it("u64n reads 2^53 and more as Infinity, so that every limit refuses it", () => {
    const wide = u64n.bind(0);
    u64.bind(0).set(view, 0, 2n ** 53n - 1n);
    assert.equal(wide.get(view, 0), Number.MAX_SAFE_INTEGER);
    for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
      u64.bind(0).set(view, 0, value);
      assert.equal(wide.get(view, 0), Infinity);
    }
  });
  it("u64n refuses to write what it could not read back", () => {
    for (const value of [-1, 0.5, 2 ** 53, Number.NaN, Infinity]) {
      assert.throws(() => u64n.bind(0).set(view, 0, value), RangeError);
    }
    u64n.bind(0).set(view, 0, 2 ** 53 - 1);
  });
});

describe("compounds", () => {
  const inner = struct("inner", 8, { offset: u32, tail: bytes(4) });
  const outer = struct("outer", 44, {
    head: u32,
    u: union({ one: inner, two: group({ a: u16, b: u16 }) }),
    many: structArray(inner, 3),
    words: array(u16, 4),
  });

  it("a nested member's handle counts from the outermost struct", () => {
    assert.equal(outer.u.offsetBytes, 4);
    assert.equal(outer.u.one.offset.offset, 4);
    assert.equal(outer.u.two.b.offset, 6);
    assert.equal(outer.many.offsetOf(2), 28);
    assert.equal(outer.many.element.tail.offset, 4);
    assert.equal(outer.words.offset, 36);
  });
  it("an array is indexed inside its bounds only", () => {
    outer.words.set(view, 0, 3, 0xbeef);
    assert.equal(outer.words.get(view, 0, 3), 0xbeef);
    assert.equal(view.getUint16(42, true), 0xbeef);
    for (const index of [-1, 4, Number.NaN]) assert.throws(() => outer.words.get(view, 0, index), RangeError);
    assert.throws(() => outer.many.offsetOf(3), RangeError);
  });
  it("bytes are copied out, and written with zeros behind them", () => {
    new Uint8Array(view.buffer).fill(0xff);
    inner.tail.set(view, 8, Uint8Array.of(1, 2));
    const copy = inner.tail.get(view, 8);
    assert.deepEqual([inner.tail.sizeBytes, inner.tail.length], [4, 4]);
    assert.deepEqual([...copy], [1, 2, 0, 0]);
    copy.fill(9);
    assert.deepEqual([...inner.tail.get(view, 8)], [1, 2, 0, 0]);
    assert.throws(() => inner.tail.set(view, 8, new Uint8Array(5)), RangeError);
  });
  it("a view that does not begin at its buffer's start is honoured", () => {
    const part = new DataView(view.buffer, 16);
    inner.tail.set(part, 0, Uint8Array.of(7, 7, 7, 7));
    assert.equal(view.getUint8(20), 7);
  });
  it("padding has no handle", () => {
    const padded = struct("padded", 4, { a: u16, _pad0: pad(2) });
    assert.deepEqual(Object.keys(padded).includes("_pad0"), false);
    assert.equal(pad(2).bind(0), undefined);
  });
});
