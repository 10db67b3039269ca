import type { Code } from "./assembler.ts";
import {
  block,
  branch,
  branchIf,
  end,
  giveBack,
  i32Const,
  i64Const,
  i8x16Splat,
  localGet,
  localSet,
  localTee,
  loop,
  op,
  store,
  trapOutOfBounds,
} from "./assembler.ts";
import { reachesPastEnd } from "./helper-copy.ts";
import type { Helper } from "./helper-set.ts";

const destination = 0;
const value = 1;
const length = 2;
const fillEnd = 3;
const long = 4;
const vector = 5;

const before = (address: number, distance: number): Code => [localGet(address), i32Const(distance), op.i32Sub];
const storeVector = (offset: number): Code => [localGet(destination), localGet(vector), store.v128(offset)];
const storeLong = (offset: number): Code => [localGet(destination), localGet(long), store.i64(offset)];
const storeVectorBeforeEnd = (distance: number): Code => [before(fillEnd, distance), localGet(vector), store.v128()];

/**
 * 64 bytes by three vectors and two integers: processors have separate ports for the two kinds, and this mix filled
 * 1 MiB 1.25 times as fast as vectors alone (AMD Zen 4).
 */
const storeLine = (offset: number): Code => [
  [storeVector(offset), storeVector(offset + 16), storeVector(offset + 32)],
  [storeLong(offset + 48), storeLong(offset + 56)],
];

/** 1 to 15 bytes, by overlapping stores. */
const fillShort: Code = [
  branch(
    [localGet(length), i32Const(8), op.i32GeU],
    [[localGet(destination), localGet(long), store.i64()], [before(fillEnd, 8), localGet(long), store.i64()], giveBack],
  ),
  branch(
    [localGet(length), i32Const(4), op.i32GeU],
    [
      [localGet(destination), localGet(long), store.i64Low32()],
      [before(fillEnd, 4), localGet(long), store.i64Low32()],
      giveBack,
    ],
  ),
  [localGet(destination), localGet(value), store.u8()],
  [before(fillEnd, 1), localGet(value), store.u8()],
  [localGet(destination), localGet(length), i32Const(1), op.i32ShrU, op.i32Add, localGet(value), store.u8()],
  giveBack,
];

/** More than 128 bytes: the first 64 and the last 128 by themselves, the rest in blocks that begin with a cache line. */
const fillLong: Code = [
  [storeVectorBeforeEnd(80), storeVectorBeforeEnd(96), storeVectorBeforeEnd(112), storeVectorBeforeEnd(128)],
  [localGet(destination), i32Const(64), op.i32Add, i32Const(-64), op.i32And, localSet(destination)],
  [before(fillEnd, 128), localSet(length)],
  block,
  [localGet(destination), localGet(length), op.i32GeU, branchIf(0)],
  loop,
  storeLine(0),
  [localGet(destination), i32Const(64), op.i32Add, localTee(destination)],
  [localGet(length), op.i32LtU, branchIf(0)],
  [end, end],
];

const fillBody: Code = [
  branch([localGet(length), op.i32Eqz], giveBack),
  branch(reachesPastEnd(destination, length), trapOutOfBounds),
  [localGet(destination), localGet(length), op.i32Add, localSet(fillEnd)],
  [
    localGet(value),
    i32Const(255),
    op.i32And,
    op.i64ExtendI32U,
    i64Const(0x0101_0101_0101_0101n),
    op.i64Mul,
    localSet(long),
  ],
  branch([localGet(length), i32Const(16), op.i32LtU], fillShort),
  [localGet(value), i8x16Splat, localSet(vector)],
  storeVector(0),
  branch(
    [localGet(length), i32Const(32), op.i32GtU],
    [
      [storeVector(16), storeVectorBeforeEnd(32)],
      branch(
        [localGet(length), i32Const(64), op.i32GtU],
        [
          [storeVectorBeforeEnd(48), storeVectorBeforeEnd(64)],
          branch(
            [localGet(length), i32Const(96), op.i32GtU],
            [[storeVector(32), storeVector(48)], branch([localGet(length), i32Const(128), op.i32GtU], fillLong)],
          ),
        ],
      ),
    ],
  ),
  storeVectorBeforeEnd(16),
];

/** `memory.fill`, as vector stores; see `memoryCopy` for why. */
export const memoryFill: Helper = {
  name: "xenolith.memory.fill",
  params: ["i32", "i32", "i32"],
  results: [],
  locals: ["i32", "i64", "v128"],
  body: () => fillBody,
};
