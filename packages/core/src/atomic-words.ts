/**
 * Atomic operations on 32-bit words of shared memory, for the paths that every hypercall takes. JavaScript's `Atomics`
 * are calls of the engine's builtins (8 ns each on Node 20 to 26); WebAssembly has the instructions themselves, and
 * optimised code calls it directly (3 ns). Both are sequentially consistent and may be mixed on one word.
 */
import assert from "node:assert/strict";

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
}

export const WORDS_OTHER_SET = 1;
export const WORDS_WERE_SET = 2;

/**
 * The module, section by section:
 *
 *     (import "m" "m" (memory 0 65536 shared))
 *     (func (export "compareExchange") (param i32 i32 i32) (result i32) ... i32.atomic.rmw.cmpxchg)
 *     (func (export "exchange") (param i32 i32) (result i32) ... i32.atomic.rmw.xchg)
 *     (func (export "and") (param i32 i32) (result i32) ... i32.atomic.rmw.and)
 *     (func (export "load") (param i32) (result i32) ... i32.atomic.load)
 *     (func (export "enter") (param i32 i32 i32 i32) (result i32)
 *       (if (i32.atomic.rmw.cmpxchg (local.get 0) (i32.const 0) (local.get 1)) (then (return (i32.const 0))))
 *       (i32.store (local.get 2) (i32.add (i32.load (local.get 2)) (i32.const 1)))
 *       (i32.store (local.get 3) (i32.add (i32.load (local.get 3)) (i32.const 1)))
 *       (i32.const 1))
 *     (func (export "sub") (param i32 i32) (result i32) ... i32.atomic.rmw.sub)
 *     (func (export "setAndLook") (param i32 i32 i32) (result i32) (local i32)
 *       (if (local.tee 3 (i32.atomic.rmw.cmpxchg (local.get 0) (i32.const 0) (local.get 1)))
 *         (then (local.set 3 (i32.atomic.rmw.or (local.get 0) (local.get 1)))))
 *       (i32.or
 *         (i32.shl (i32.ne (i32.and (local.get 3) (local.get 1)) (i32.const 0)) (i32.const 1))
 *         (i32.ne (i32.and (i32.atomic.load (local.get 2)) (local.get 1)) (i32.const 0))))
 *     (func (export "copy") (param i32 i32 i32) ... memory.copy)
 *
 * An rmw.or whose result is wanted is a load and a compare-and-swap, so a processor fetches a word that another one has
 * written twice. Mostly the word is 0: guessing that, it is fetched once.
 */
const MODULE = [
  "0061736d01000000",
  // Types.
  "012105 60037f7f7f017f 60027f7f017f 60017f017f 60047f7f7f7f017f 60037f7f7f00",
  // Import of the memory.
  "020b01 016d016d 020300808004",
  // Functions.
  "030908 0001010203000104",
  // Exports, each a length and a name.
  "074d08 0f636f6d7061726545786368616e67650000 0865786368616e67650001 03616e640002 046c6f61640003",
  "05656e7465720004 0a736574416e644c6f6f6b0005 037375620006 04636f70790007",
  // Code, each function a length and its instructions.
  "0aaa0108",
  "0c00 20002001 2002 fe480200 0b",
  "0a00 20002001 fe410200 0b",
  "0a00 20002001 fe2c0200 0b",
  "0800 2000 fe100200 0b",
  "2e00 2000 4100 2001 fe480200 0440 4100 0f 0b 2002 2002 280200 4101 6a 360200 2003 2003 280200 4101 6a 360200 4101 0b",
  "3501 017f 2000 4100 2001 fe480200 2203 0440 2000 2001 fe330200 2103 0b",
  "2003 2001 71 4100 47 4101 74 2002 fe100200 2001 71 4100 47 72 0b",
  "0a00 20002001 fe250200 0b",
  "0c00 200020012002 fc0a0000 0b",
];

/** Operations on `memory`, which is shared. */
export const wasmWords = (memory: WebAssembly.Memory): AtomicWords => {
  assert(memory.buffer instanceof SharedArrayBuffer);
  const module = new WebAssembly.Module(Buffer.from(MODULE.join("").replaceAll(" ", ""), "hex"));
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
  };
};
