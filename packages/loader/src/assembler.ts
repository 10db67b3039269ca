/** Machine code as nested lists of bytes; `assemble` flattens it. */
export type Code = number | readonly Code[];

/** An unsigned LEB128 number. */
export function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value >>> 0;
  while (rest >= 0x80) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return bytes;
}

/** A signed LEB128 number. */
export function signed(value: bigint): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const byte = Number(rest & 0x7fn);
    rest >>= 7n;
    const isLast = (rest === 0n && byte < 0x40) || (rest === -1n && byte >= 0x40);
    bytes.push(isLast ? byte : byte | 0x80);
    if (isLast) return bytes;
  }
}

/** A length-prefixed UTF-8 string. */
export function nameBytes(name: string): Uint8Array {
  const text = new TextEncoder().encode(name);
  return Uint8Array.from([...unsigned(text.length), ...text]);
}

const NO_RESULT = 0x40;

export const end = 0x0b;
export const giveBack = 0x0f;
export const unreachable = 0x00;
export const drop = 0x1a;
export const block: Code = [0x02, NO_RESULT];
export const loop: Code = [0x03, NO_RESULT];
export const when: Code = [0x04, NO_RESULT];
export const branchIf = (depth: number): Code => [0x0d, unsigned(depth)];
export const callIndirect = (type: number, table: number): Code => [0x11, unsigned(type), unsigned(table)];
export const localGet = (index: number): Code => [0x20, unsigned(index)];
export const localSet = (index: number): Code => [0x21, unsigned(index)];
export const localTee = (index: number): Code => [0x22, unsigned(index)];
export const globalGet = (index: number): Code => [0x23, unsigned(index)];
export const globalSet = (index: number): Code => [0x24, unsigned(index)];
export const i32Const = (value: number): Code => [0x41, signed(BigInt(value))];
export const i64Const = (value: bigint): Code => [0x42, signed(BigInt.asIntN(64, value))];

/** Plain opcodes by their names in the text format. */
export const op = {
  i32Eqz: 0x45,
  i32Ne: 0x47,
  i32LtU: 0x49,
  i32GtU: 0x4b,
  i32LeU: 0x4d,
  i32GeU: 0x4f,
  i64Ne: 0x52,
  i32Add: 0x6a,
  i32Sub: 0x6b,
  i32And: 0x71,
  i32Or: 0x72,
  i32Xor: 0x73,
  i32ShrU: 0x76,
  i64Mul: 0x7e,
  i64ExtendI32U: 0xad,
} as const;

const memoryOp = (opcode: Code) => {
  return (offset = 0): Code => [opcode, 0, unsigned(offset)];
};

/** Loads and stores, alignment 1, by the number of bytes that they move. */
export const load = {
  u8: memoryOp(0x2d),
  u16: memoryOp(0x2f),
  i32: memoryOp(0x28),
  i64: memoryOp(0x29),
  v128: memoryOp([0xfd, 0x00]),
};
export const store = {
  u8: memoryOp(0x3a),
  u16: memoryOp(0x3b),
  i32: memoryOp(0x36),
  i64: memoryOp(0x37),
  i64Low32: memoryOp(0x3e),
  v128: memoryOp([0xfd, 0x0b]),
};
export const i8x16Splat: Code = [0xfd, 0x0f];

/** An atomic instruction with its natural alignment and no offset. */
export const atomic = (opcode: number, alignLog2: number): Code => [0xfe, opcode, alignLog2, 0];

/**
 * Traps with "memory access out of bounds": reads the byte at 2^32, where no 32-bit memory can reach. What native
 * instructions do for an address that is too high, so that a guest that catches nothing sees the same message.
 */
export const trapOutOfBounds: Code = [i32Const(1), load.u8(0xffff_ffff), drop, unreachable];

/** Runs `body` when `condition` leaves a nonzero number. */
export const branch = (condition: Code, body: Code): Code => [condition, when, body, end];

/** Flattens code into bytes. */
export function assemble(code: Code): Uint8Array {
  const bytes: number[] = [];
  flatten(code, bytes);
  return Uint8Array.from(bytes);
}

function flatten(code: Code, into: number[]): void {
  if (typeof code === "number") {
    into.push(code);
    return;
  }
  for (const part of code) flatten(part, into);
}
