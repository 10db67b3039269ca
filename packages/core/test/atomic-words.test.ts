import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type AtomicWords, plainWords, wasmWords, WORDS_OTHER_SET, WORDS_WERE_SET } from "../src/atomic-words.ts";

const kinds: Readonly<Record<string, () => { words: AtomicWords; view: Int32Array }>> = {
  "of a WebAssembly memory": () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    return { words: wasmWords(memory), view: new Int32Array(memory.buffer) };
  },
  "of any buffer": () => {
    const buffer = new SharedArrayBuffer(65_536);
    return { words: plainWords(buffer), view: new Int32Array(buffer) };
  },
};

describe("atomic words", () => {
  for (const [kind, open] of Object.entries(kinds)) {
    it(`${kind}: each operation returns what was there and touches no other word`, () => {
      const { words, view } = open();
      view.fill(7);
      assert.equal(words.compareExchange(8, 7, -1), 7);
      assert.equal(words.compareExchange(8, 7, 5), -1, "another value is left alone");
      assert.equal(words.exchange(8, 12), -1);
      assert.equal(words.and(8, ~4), 12);
      assert.equal(words.load(8), 8);
      assert.equal(words.sub(8, 9), 8);
      assert.equal(words.sub(8, -9), -1);
      assert.deepEqual([...view.subarray(1, 4)], [7, 8, 7]);
    });

    it(`${kind}: a gate that is closed is not entered, and counts nothing`, () => {
      const { words, view } = open();
      view[1] = 41;
      assert.equal(words.enter(0, 17, 4, 8), 1);
      assert.equal(words.enter(0, 17, 4, 8), 0);
      assert.deepEqual([...view.subarray(0, 4)], [17, 42, 1, 0]);
    });

    it(`${kind}: a bit is set, and the same bit looked at elsewhere`, () => {
      const { words, view } = open();
      const bit = 1 << 31;
      assert.equal(words.setAndLook(64, bit, 128), 0);
      assert.equal(view[16], bit);
      view[32] = bit;
      assert.equal(words.setAndLook(64, bit, 128), WORDS_WERE_SET | WORDS_OTHER_SET);
      assert.equal(words.setAndLook(64, 1, 128), 0, "other bits of the words do not count");
    });

    it(`${kind}: bytes are copied as memmove does, and no other byte changes`, () => {
      const { words, view } = open();
      const bytes = new Uint8Array(view.buffer);
      bytes.set([1, 2, 3, 4, 5], 101);
      words.copy(65_531, 101, 5);
      assert.deepEqual([...bytes.subarray(65_529)], [0, 0, 1, 2, 3, 4, 5]);
      words.copy(102, 101, 4);
      assert.deepEqual([...bytes.subarray(100, 108)], [0, 1, 1, 2, 3, 4, 0, 0]);
      words.copy(0, 101, 0);
      assert.equal(bytes[0], 0);
    });

    it(`${kind}: words in a row are added to, up to one that becomes too small`, () => {
      const { words, view } = open();
      view.set([5, 1, 2, 0, 2, 9], 4);
      assert.equal(words.addRun(16, 3, 1, 2), 3);
      assert.deepEqual([...view.subarray(3, 11)], [0, 6, 2, 3, 0, 2, 9, 0]);
      assert.equal(words.addRun(16, 6, -1, 1), 3, "the fourth is changed, those behind it are not");
      assert.deepEqual([...view.subarray(3, 11)], [0, 5, 1, 2, -1, 2, 9, 0]);
      view[4] = 0x7fff_ffff;
      assert.equal(words.addRun(16, 2, 1, 1), 0, "beyond the greatest number are the negative ones");
      assert.equal(words.addRun(16, 0, 1, 1), 0);
    });

    it(`${kind}: entries in a row are begun as long as they are as wanted, and ended`, () => {
      const { words, view } = open();
      view.set([0x70001, 4, 0x70101, 5, 0x70002, 6, 0x70001, 7], 2);
      assert.equal(words.beginRun(8, 4, 0xffff_0003 | 0, 0x70001, 8), 2);
      assert.deepEqual([...view.subarray(2, 10)], [0x70009, 4, 0x70109, 5, 0x70002, 6, 0x70001, 7]);
      assert.equal(words.beginRun(8, 1, -1, 0x70001, 8), 0, "it is in use");
      words.endRun(8, 2, 8);
      assert.deepEqual([...view.subarray(2, 10)], [0x70001, 4, 0x70101, 5, 0x70002, 6, 0x70001, 7]);
      assert.equal(words.beginRun(8, 0, 0, 0, 8), 0);
    });

    it(`${kind}: bytes are copied if the entry is as expected, which is in use meanwhile only`, () => {
      const { words, view } = open();
      const bytes = new Uint8Array(view.buffer);
      view.set([0x70001, 44], 2);
      bytes.set([1, 2, 3], 101);
      assert.equal(words.copyEntry(8, 0x70001, 44, 8, 200, 101, 3), 1);
      assert.deepEqual([...bytes.subarray(199, 204)], [0, 1, 2, 3, 0]);
      assert.equal(words.copyEntry(8, 0x70001, 45, 8, 300, 101, 3), 0, "another page");
      assert.equal(words.copyEntry(8, 0x70003, 44, 8, 300, 101, 3), 0, "another word");
      assert.deepEqual([...bytes.subarray(300, 303)], [0, 0, 0]);
      assert.deepEqual([...view.subarray(1, 5)], [0, 0x70001, 44, 0]);
    });

    it(`${kind}: the last word of the buffer can be reached`, () => {
      const { words, view } = open();
      assert.equal(words.exchange(65_532, 3), 0);
      assert.equal(view.at(-1), 3);
    });
  }
});
