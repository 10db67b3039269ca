import type { Code } from "./assembler.ts";
import {
  block,
  branch,
  branchIf,
  end,
  giveBack,
  i32Const,
  load,
  localGet,
  localSet,
  localTee,
  loop,
  op,
  store,
  trapOutOfBounds,
} from "./assembler.ts";
import type { Helper } from "./helper-set.ts";

const BLOCK_BYTES = 128;
const LANES = BLOCK_BYTES / 16;
const lanes = Array.from({ length: LANES }, (_, index) => index);

// Parameters and locals of both helpers.
const destination = 0;
const source = 1;
const length = 2;
const destinationEnd = 3;
const sourceEnd = 4;
const word = 5;
const long = 6;
const lane = (index: number) => 7 + index;
const edge = (index: number) => 7 + LANES + index;

const before = (address: number, distance: number): Code => [localGet(address), i32Const(distance), op.i32Sub];

/** True when `[address, address + length)` ends above 2^32; the length is not 0. */
export const reachesPastEnd = (address: number, lengthLocal: number): Code => [
  [localGet(lengthLocal), i32Const(1), op.i32Sub],
  [localGet(address), i32Const(-1), op.i32Xor],
  op.i32GtU,
];

/** 1 to 16 bytes: two overlapping halves, both loaded before either is stored, so overlap does no harm. */
const copyShort: Code = [
  branch(
    [localGet(length), i32Const(8), op.i32GeU],
    [
      [localGet(source), load.i64(), localSet(long)],
      [before(destinationEnd, 8), before(sourceEnd, 8), load.i64(), store.i64()],
      [localGet(destination), localGet(long), store.i64()],
      giveBack,
    ],
  ),
  branch(
    [localGet(length), i32Const(4), op.i32GeU],
    [
      [localGet(source), load.i32(), localSet(word)],
      [before(destinationEnd, 4), before(sourceEnd, 4), load.i32(), store.i32()],
      [localGet(destination), localGet(word), store.i32()],
      giveBack,
    ],
  ),
  [localGet(source), load.u8(), localSet(word)],
  branch(
    [localGet(length), i32Const(1), op.i32GtU],
    [before(destinationEnd, 2), before(sourceEnd, 2), load.u16(), store.u16()],
  ),
  [localGet(destination), localGet(word), store.u8()],
  giveBack,
];

/** 17 to 64 bytes: two or four overlapping vectors. */
const copyMedium: Code = [
  [localGet(source), load.v128(), localSet(lane(0))],
  [before(sourceEnd, 16), load.v128(), localSet(lane(1))],
  branch(
    [localGet(length), i32Const(32), op.i32GtU],
    [
      [localGet(source), load.v128(16), localSet(lane(2))],
      [before(destinationEnd, 32), before(sourceEnd, 32), load.v128(), store.v128()],
      [localGet(destination), localGet(lane(2)), store.v128(16)],
    ],
  ),
  [localGet(destination), localGet(lane(0)), store.v128()],
  [before(destinationEnd, 16), localGet(lane(1)), store.v128()],
  giveBack,
];

const loadBlock = (from: number, at: (index: number) => number): Code =>
  lanes.map((index) => [localGet(from), load.v128(16 * index), localSet(at(index))]);
const storeBlock = (to: number, at: (index: number) => number): Code =>
  lanes.map((index) => [localGet(to), localGet(at(index)), store.v128(16 * index)]);

/** 65 to 128 bytes: the first 64 and the last 64, all loaded first. */
const copyLong: Code = [
  [0, 1, 2, 3].map((index) => [localGet(source), load.v128(16 * index), localSet(lane(index))]),
  [4, 5, 6, 7].map((index) => [before(sourceEnd, 128 - 16 * index), load.v128(), localSet(lane(index))]),
  [0, 1, 2, 3].map((index) => [localGet(destination), localGet(lane(index)), store.v128(16 * index)]),
  [4, 5, 6, 7].map((index) => [before(destinationEnd, 128 - 16 * index), localGet(lane(index)), store.v128()]),
  giveBack,
];

/**
 * Upwards, for a destination below the source or apart from it. The last block and the first vector are loaded before
 * the loop and stored after it, so that the loop can run on an aligned destination and stop short of the end.
 */
const copyUp: Code = [
  [localGet(source), load.v128(), localSet(lane(0)), localGet(lane(0)), localSet(edge(LANES))],
  [before(sourceEnd, BLOCK_BYTES), localSet(sourceEnd), loadBlock(sourceEnd, edge)],
  [before(destinationEnd, BLOCK_BYTES), localSet(destinationEnd)],
  [localGet(destination), localSet(length)],
  [i32Const(16), localGet(destination), i32Const(15), op.i32And, op.i32Sub, localSet(word)],
  [localGet(destination), localGet(word), op.i32Add, localSet(destination)],
  [localGet(source), localGet(word), op.i32Add, localSet(source)],
  block,
  [localGet(destination), localGet(destinationEnd), op.i32GeU, branchIf(0)],
  loop,
  loadBlock(source, lane),
  storeBlock(destination, lane),
  [localGet(source), i32Const(BLOCK_BYTES), op.i32Add, localSet(source)],
  [localGet(destination), i32Const(BLOCK_BYTES), op.i32Add, localTee(destination)],
  [localGet(destinationEnd), op.i32LtU, branchIf(0)],
  [end, end],
  storeBlock(destinationEnd, edge),
  [localGet(length), localGet(edge(LANES)), store.v128()],
  giveBack,
];

/** Downwards, the mirror image, for a destination inside the source. */
const copyDown: Code = [
  [before(sourceEnd, 16), load.v128(), localSet(edge(LANES))],
  loadBlock(source, edge),
  [localGet(destinationEnd), localSet(length)],
  [localGet(destinationEnd), i32Const(1), op.i32Sub, i32Const(15), op.i32And, i32Const(1), op.i32Add, localSet(word)],
  [localGet(destinationEnd), localGet(word), op.i32Sub, localSet(destinationEnd)],
  [localGet(sourceEnd), localGet(word), op.i32Sub, localSet(sourceEnd)],
  block,
  [localGet(destinationEnd), localGet(destination), op.i32Sub, i32Const(BLOCK_BYTES), op.i32LtU, branchIf(0)],
  loop,
  [before(sourceEnd, BLOCK_BYTES), localTee(sourceEnd), localSet(word), loadBlock(word, lane)],
  [before(destinationEnd, BLOCK_BYTES), localTee(destinationEnd), localSet(word), storeBlock(word, lane)],
  [localGet(destinationEnd), localGet(destination), op.i32Sub, i32Const(BLOCK_BYTES), op.i32GeU, branchIf(0)],
  [end, end],
  storeBlock(destination, edge),
  [before(length, 16), localGet(edge(LANES)), store.v128()],
];

const copyBody: Code = [
  branch([localGet(length), op.i32Eqz], giveBack),
  branch([reachesPastEnd(destination, length), reachesPastEnd(source, length), op.i32Or], trapOutOfBounds),
  [localGet(destination), localGet(length), op.i32Add, localSet(destinationEnd)],
  [localGet(source), localGet(length), op.i32Add, localSet(sourceEnd)],
  branch([localGet(length), i32Const(16), op.i32LeU], copyShort),
  branch([localGet(length), i32Const(64), op.i32LeU], copyMedium),
  branch([localGet(length), i32Const(BLOCK_BYTES), op.i32LeU], copyLong),
  branch([localGet(destination), localGet(source), op.i32Sub, localGet(length), op.i32GeU], copyUp),
  copyDown,
];

/**
 * `memory.copy`, as vector loads and stores: an absent page is an ordinary trap, where the native instruction, which
 * runs in the engine's C++, would end the process. Bytes before the absent page may have been copied.
 */
export const memoryCopy: Helper = {
  name: "xenolith.memory.copy",
  params: ["i32", "i32", "i32"],
  results: [],
  locals: ["i32", "i32", "i32", "i64", ...Array.from({ length: 2 * LANES + 1 }, () => "v128" as const)],
  body: () => copyBody,
};
