import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { DirectMap, FRAME_BYTES } from "../src/direct-map.ts";

const BANK = 4 * FRAME_BYTES;
const create = (fast = false): DirectMap => {
  const banks = [new SharedArrayBuffer(BANK), new SharedArrayBuffer(BANK)];
  return fast ? new DirectMap(banks, (bank) => new Uint8Array(banks[bank]!)) : new DirectMap(banks);
};

describe("the direct map", () => {
  it("finds the bank and the place of an address", () => {
    const map = create();
    assert.deepEqual([map.bankOf(0), map.bankOf(BANK - 1), map.bankOf(BANK)], [0, 0, 1]);
    assert.deepEqual([map.offsetOf(5), map.offsetOf(BANK + 5)], [5, 5]);
  });
  it("reads and writes words of every bank, unsigned", () => {
    const map = create();
    for (const at of [0, BANK - 4, BANK, 2 * BANK - 4]) {
      map.storeU32(at, 0xffff_fffe);
      assert.equal(map.loadU32(at), 0xffff_fffe);
      assert.equal(map.orU32(at, 1), 0xffff_fffe);
      assert.equal(map.andU32(at, 0xf000_0000), 0xffff_ffff);
      assert.equal(map.exchangeU32(at, 7), 0xf000_0000);
      assert.equal(map.cas(at, 8, 9), 7);
      assert.equal(map.cas(at, 7, 9), 7);
      assert.equal(map.atomicLoadU32(at), 9);
      map.atomicStoreU32(at, 0x0102_0304);
      assert.equal(map.exchangeU8(at + 1, 0xee), 3);
      map.atomicStoreU8(at, 0xdd);
      assert.equal(map.loadU32(at), 0x0102_eedd);
    }
  });
  for (const fast of [false, true]) {
    it(`copies and zeroes bytes and frames, ${fast ? "through" : "without"} views of the thread's own`, () => {
      const map = create(fast);
      map.prepareBulk(0);
      const source = Uint8Array.from({ length: FRAME_BYTES }, (_, index) => index % 253);
      map.copyIn(2 * FRAME_BYTES, source, 0, FRAME_BYTES);
      map.copyIn(BANK + 10, source, 100, 50);
      assert.deepEqual(map.bytes(BANK + 10, 50).slice(), source.subarray(100, 150));
      map.copyFrames(5, 2, 1);
      for (const machine of [2 * FRAME_BYTES, 5 * FRAME_BYTES, 2 * FRAME_BYTES]) {
        const target = new Uint8Array(FRAME_BYTES + 2);
        map.copyOut(machine, target, 1, FRAME_BYTES);
        assert.deepEqual(target.subarray(1, FRAME_BYTES + 1), source);
      }
      map.zero(5 * FRAME_BYTES + 1, 3);
      assert.deepEqual([...map.bytes(5 * FRAME_BYTES, 5)], [0, 0, 0, 0, 4]);
      map.zeroFrames(5, 2);
      assert.ok(map.bytes(5 * FRAME_BYTES, 2 * FRAME_BYTES).every((byte) => byte === 0));
    });
  }
  it("keeps views of frames apart that share a place among those kept", () => {
    const banks = [new SharedArrayBuffer(512 * FRAME_BYTES)];
    const map = new DirectMap(banks);
    const target = new Uint8Array(FRAME_BYTES);
    for (const mfn of [1, 257, 1, 257]) {
      map.storeU32(mfn * FRAME_BYTES, mfn);
      map.copyOut(mfn * FRAME_BYTES, target, 0, FRAME_BYTES);
      assert.equal(new DataView(target.buffer).getUint32(0, true), mfn);
    }
  });
});
