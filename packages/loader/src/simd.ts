/** What follows a vector instruction (prefix 0xfd). */
export const SimdImmediate = { none: 0, memory: 1, memoryAndLane: 2, lane: 3, sixteenBytes: 4, unknown: 5 } as const;

const { none, memory, memoryAndLane, lane, sixteenBytes, unknown } = SimdImmediate;

const ranges: readonly (readonly [first: number, last: number, kind: number])[] = [
  [0x00, 0xff, none],
  [0x00, 0x0b, memory], // loads, splat loads, store
  [0x0c, 0x0d, sixteenBytes], // v128.const, i8x16.shuffle
  [0x15, 0x22, lane], // extract and replace
  [0x54, 0x5b, memoryAndLane],
  [0x5c, 0x5d, memory], // load32_zero, load64_zero
];

/** Unassigned numbers: not accepted, since a later proposal may give them immediates or memory accesses. */
const holes = [
  0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb, 0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2,
  0xee,
];

/** Kind of immediate by opcode, for the fixed-width vector instructions. */
export const simdImmediates: Uint8Array = (() => {
  const table = new Uint8Array(256);
  for (const [first, last, kind] of ranges) table.fill(kind, first, last + 1);
  for (const hole of holes) table[hole] = unknown;
  return table;
})();

/** The relaxed vector instructions; none has an immediate. */
export const RELAXED_SIMD_FIRST = 0x100;
export const RELAXED_SIMD_LAST = 0x113;
