/**
 * Atomic operations on 32-bit words of shared memory, for the paths that every hypercall takes. JavaScript's `Atomics`
 * are calls of the engine's builtins (8 ns each on Node 20 to 26); WebAssembly has the instructions themselves, and
 * optimised code calls it directly (3 ns). Both are sequentially consistent and may be mixed on one word.
 */
import assert from "node:assert/strict";
import { wordsModule } from "./words-module.ts";

/** Operations on one buffer. Addresses are bytes from its start, multiples of 4; results are what was there, signed. */
export interface AtomicWords {
  compareExchange(address: number, expected: number, replacement: number): number;
  exchange(address: number, value: number): number;
  and(address: number, value: number): number;
  load(address: number): number;
  /** Subtracts; the result is what was there. */
  sub(address: number, value: number): number;
  /** Changes `gate` from 0 to `value` and counts two plain words up: 1. When `gate` is not 0 nothing changes: 0. */
  enter(gate: number, value: number, first: number, second: number): number;
  /**
   * Sets `bits` at `address` and afterwards looks at the same bits at `otherAddress`: WORDS_WERE_SET when one was set
   * already, plus WORDS_OTHER_SET when one is set there.
   */
  setAndLook(address: number, bits: number, otherAddress: number): number;
  /** Copies bytes, of any number and alignment, as memmove does. Addresses may be given signed. */
  copy(to: number, from: number, sizeBytes: number): void;
  /**
   * Adds `delta` to each of `count` words in a row, up to the first that becomes less than `least`. Returns how many did
   * not: if fewer than `count`, the word after them was changed too, and is the one that became less.
   */
  addRun(address: number, count: number, delta: number, least: number): number;
  /**
   * Sets `bits` in the first word of `count` grant entries in a row, up to the first entry of which that word, as far as
   * `mask` goes, is not `wanted`, or changes at that moment. Returns in how many.
   */
  beginRun(address: number, count: number, mask: number, wanted: number, bits: number): number;
  /** Clears `bits` in the first word of `count` grant entries in a row. */
  endRun(address: number, count: number, bits: number): void;
  /**
   * Sets `bits` in a grant entry of which the words are `word` and `gfn`, copies as `copy` does, and clears the bits. 0:
   * the words are others, or became others before the bits were set, and nothing was copied.
   */
  copyEntry(
    address: number,
    word: number,
    gfn: number,
    bits: number,
    to: number,
    from: number,
    sizeBytes: number,
  ): number;
}

/** Words of a grant entry. */
const ENTRY_WORDS = 2;

export const WORDS_OTHER_SET = 1;
export const WORDS_WERE_SET = 2;

/** Operations on `memory`, which is shared. */
export const wasmWords = (memory: WebAssembly.Memory): AtomicWords => {
  assert(memory.buffer instanceof SharedArrayBuffer);
  const module = new WebAssembly.Module(wordsModule());
  const { exports } = new WebAssembly.Instance(module, { m: { m: memory } });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the module above exports exactly these functions
  return exports as unknown as AtomicWords;
};

/** Operations on a buffer that is no WebAssembly memory's: slower, and visible to tests that watch `Atomics`. */
export const plainWords = (buffer: SharedArrayBuffer): AtomicWords => {
  const words = new Int32Array(buffer, 0, Math.floor(buffer.byteLength / 4));
  const bytes = new Uint8Array(buffer);
  return {
    compareExchange: (address, expected, replacement) =>
      Atomics.compareExchange(words, address >>> 2, expected, replacement),
    exchange: (address, value) => Atomics.exchange(words, address >>> 2, value),
    and: (address, value) => Atomics.and(words, address >>> 2, value),
    load: (address) => Atomics.load(words, address >>> 2),
    sub: (address, value) => Atomics.sub(words, address >>> 2, value),
    enter: (gate, value, first, second) => {
      if (Atomics.compareExchange(words, gate >>> 2, 0, value) !== 0) return 0;
      words[first >>> 2]! += 1;
      words[second >>> 2]! += 1;
      return 1;
    },
    setAndLook: (address, bits, otherAddress) => {
      const wereSet = (Atomics.or(words, address >>> 2, bits) & bits) !== 0;
      const isOtherSet = (Atomics.load(words, otherAddress >>> 2) & bits) !== 0;
      return (wereSet ? WORDS_WERE_SET : 0) | (isOtherSet ? WORDS_OTHER_SET : 0);
    },
    copy: (to, from, sizeBytes) => {
      bytes.copyWithin(to >>> 0, from >>> 0, (from >>> 0) + sizeBytes);
    },
    addRun: (address, count, delta, least) => {
      let done = 0;
      while (done < count && ((Atomics.add(words, (address >>> 2) + done, delta) + delta) | 0) >= least) done += 1;
      return done;
    },
    beginRun: (address, count, mask, wanted, bits) => {
      let done = 0;
      for (; done < count; done += 1) {
        const at = (address >>> 2) + done * ENTRY_WORDS;
        const word = words[at]!;
        if ((word & mask) !== wanted || Atomics.compareExchange(words, at, word, word | bits) !== word) break;
      }
      return done;
    },
    endRun: (address, count, bits) => {
      for (let done = 0; done < count; done += 1) Atomics.and(words, (address >>> 2) + done * ENTRY_WORDS, ~bits);
    },
    copyEntry: (address, word, gfn, bits, to, from, sizeBytes) => {
      const at = address >>> 2;
      if (Atomics.compareExchange(words, at, word, word | bits) !== word) return 0;
      const isSame = words[at + 1] === gfn;
      if (isSame) bytes.copyWithin(to >>> 0, from >>> 0, (from >>> 0) + sizeBytes);
      Atomics.and(words, at, ~bits);
      return Number(isSame);
    },
  };
};
