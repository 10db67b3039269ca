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

    it(`${kind}: the last word of the buffer can be reached`, () => {
      const { words, view } = open();
      assert.equal(words.exchange(65_532, 3), 0);
      assert.equal(view.at(-1), 3);
    });
  }
});
