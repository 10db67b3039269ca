import type { Code } from "./assembler.ts";
import {
  atomic,
  branch,
  branchIf,
  drop,
  end,
  i32Const,
  load,
  localGet,
  localSet,
  localTee,
  loop,
  op,
  trapOutOfBounds,
  unreachable,
} from "./assembler.ts";
import type { Helper } from "./helper-set.ts";
import type { ValueType } from "./wasm-type.ts";

/** First opcodes of the groups of seven behind the prefix 0xfe. Source: the threads proposal, binary format. */
export const AtomicGroup = {
  load: 0x10,
  store: 0x17,
  add: 0x1e,
  sub: 0x25,
  and: 0x2c,
  or: 0x33,
  xor: 0x3a,
  xchg: 0x41,
} as const;
const COMPARE_EXCHANGE = 0x48;
export const ATOMIC_LAST = 0x4e;

interface Width {
  readonly type: "i32" | "i64";
  /** As in the text format: `.rmw8.` and so on. */
  readonly infix: string;
  readonly suffix: string;
  readonly alignLog2: number;
}

/** The seven members of each group, in order. */
const widths: readonly Width[] = [
  { type: "i32", infix: "rmw", suffix: "", alignLog2: 2 },
  { type: "i64", infix: "rmw", suffix: "", alignLog2: 3 },
  { type: "i32", infix: "rmw8", suffix: "_u", alignLog2: 0 },
  { type: "i32", infix: "rmw16", suffix: "_u", alignLog2: 1 },
  { type: "i64", infix: "rmw8", suffix: "_u", alignLog2: 0 },
  { type: "i64", infix: "rmw16", suffix: "_u", alignLog2: 1 },
  { type: "i64", infix: "rmw32", suffix: "_u", alignLog2: 2 },
];

const operations = [
  { name: "add", first: AtomicGroup.add, i32: 0x6a, i64: 0x7c },
  { name: "sub", first: AtomicGroup.sub, i32: 0x6b, i64: 0x7d },
  { name: "and", first: AtomicGroup.and, i32: 0x71, i64: 0x83 },
  { name: "or", first: AtomicGroup.or, i32: 0x72, i64: 0x84 },
  { name: "xor", first: AtomicGroup.xor, i32: 0x73, i64: 0x85 },
] as const;

/** Adds the instruction's offset to the address in local 0; traps when the sum does not fit 32 bits. */
const addOffset = (offsetLocal: number): Code => [
  [localGet(0), localGet(offsetLocal), op.i32Add, localTee(0)],
  branch([localGet(offsetLocal), op.i32LtU], trapOutOfBounds),
];

const trapUnlessAligned = (sizeBytes: number): Code =>
  branch([localGet(0), i32Const(sizeBytes - 1), op.i32And], unreachable);

/**
 * (address, operand, offset) -> old value, as a loop of compare-exchange. The native instruction would end the process
 * on a read-only page, in both compiler tiers; compare-exchange traps there, and both of them trap on an absent page,
 * provided that TurboFan compiled them.
 */
function readModifyWrite(
  name: string,
  type: "i32" | "i64",
  member: number,
  operator: number,
  alignLog2: number,
): Helper {
  const [operand, offset, old, seen] = [1, 2, 3, 4];
  const compareExchange = atomic(COMPARE_EXCHANGE + member, alignLog2);
  const body: Code = [
    addOffset(offset),
    [localGet(0), atomic(AtomicGroup.load + member, alignLog2), localSet(old)],
    loop,
    [localGet(0), localGet(old), localGet(old), localGet(operand), operator, compareExchange, localTee(seen)],
    [localGet(old), type === "i32" ? op.i32Ne : op.i64Ne],
    [localGet(seen), localSet(old), branchIf(0), end],
    localGet(old),
  ];
  return { name, params: ["i32", type, "i32"], results: [type], locals: [type, type], body: () => body };
}

function* readModifyWrites(): Generator<[number, Helper]> {
  for (const operation of operations) {
    for (const [member, width] of widths.entries()) {
      const name = `xenolith.${width.type}.atomic.${width.infix}.${operation.name}${width.suffix}`;
      const operator = operation[width.type];
      yield [operation.first + member, readModifyWrite(name, width.type, member, operator, width.alignLog2)];
    }
  }
}

/** The helper for each read-modify-write instruction that is rewritten, by the opcode behind 0xfe. */
export const atomicHelpers: ReadonlyMap<number, Helper> = new Map(readModifyWrites());

/** (address, expected, timeout, offset) -> result: a plain load of the word, which traps if absent, then the service. */
function wait(expected: ValueType): Helper {
  const isShort = expected === "i32";
  const probe = isShort ? load.i32() : load.i64();
  return {
    name: isShort ? "xenolith.memory.atomic.wait32" : "xenolith.memory.atomic.wait64",
    params: ["i32", expected, "i64", "i32"],
    results: ["i32"],
    locals: [],
    body: (link) => [
      addOffset(3),
      trapUnlessAligned(isShort ? 4 : 8),
      [localGet(0), probe, drop],
      [localGet(0), localGet(1), localGet(2), link.service(isShort ? "atomic_wait32" : "atomic_wait64")],
    ],
  };
}

export const atomicWait32 = wait("i32");
export const atomicWait64 = wait("i64");

/** (address, count, offset) -> number woken. */
export const atomicNotify: Helper = {
  name: "xenolith.memory.atomic.notify",
  params: ["i32", "i32", "i32"],
  results: ["i32"],
  locals: [],
  body: (link) => [addOffset(2), trapUnlessAligned(4), [localGet(0), localGet(1), link.service("atomic_notify")]],
};
