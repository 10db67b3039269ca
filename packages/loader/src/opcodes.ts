/** What follows an opcode, as far as the scanner needs to know in order to step over it. */
export const Immediate = {
  /** Nothing. */
  none: 0,
  /** One LEB128 number of any width. */
  number: 1,
  /** Alignment and offset of a memory access. */
  memory: 2,
  /** A block type. */
  block: 3,
  /** Two numbers. */
  pair: 4,
  /** Eight bytes. */
  double: 5,
  /** Rare, rewritten, or of a feature that is reported or refused: looked at one by one. */
  special: 6,
} as const;

const ranges: readonly (readonly [first: number, last: number, kind: number])[] = [
  [0x00, 0xff, Immediate.special],
  [0x00, 0x01, Immediate.none], // unreachable, nop
  [0x02, 0x02, Immediate.block], // block; loop is special
  [0x04, 0x04, Immediate.block], // if
  [0x05, 0x05, Immediate.none], // else
  [0x0b, 0x0b, Immediate.none], // end
  [0x0c, 0x0d, Immediate.number], // br, br_if
  [0x0f, 0x0f, Immediate.none], // return
  [0x10, 0x10, Immediate.number], // call
  [0x11, 0x11, Immediate.pair], // call_indirect
  [0x1a, 0x1b, Immediate.none], // drop, select
  [0x20, 0x24, Immediate.number], // local.*, global.*
  [0x28, 0x3e, Immediate.memory],
  [0x41, 0x42, Immediate.number], // i32.const, i64.const
  [0x44, 0x44, Immediate.double], // f64.const
  [0x45, 0xbf, Immediate.none], // numeric
];

/** Kind of immediate by opcode. */
export const immediates: Uint8Array = (() => {
  const table = new Uint8Array(256);
  for (const [first, last, kind] of ranges) table.fill(kind, first, last + 1);
  return table;
})();

/** The opcodes that the scanner treats one by one. */
export const Opcode = {
  loop: 0x03,
  legacyTry: 0x06,
  legacyCatch: 0x07,
  throwTag: 0x08,
  rethrow: 0x09,
  throwRef: 0x0a,
  branchTable: 0x0e,
  returnCall: 0x12,
  returnCallIndirect: 0x13,
  callRef: 0x14,
  returnCallRef: 0x15,
  delegate: 0x18,
  catchAll: 0x19,
  selectTyped: 0x1c,
  tryTable: 0x1f,
  tableGet: 0x25,
  tableSet: 0x26,
  memorySize: 0x3f,
  memoryGrow: 0x40,
  f32Const: 0x43,
  signExtendFirst: 0xc0,
  signExtendLast: 0xc4,
  refNull: 0xd0,
  refIsNull: 0xd1,
  refFunc: 0xd2,
  prefixGc: 0xfb,
  prefixMisc: 0xfc,
  prefixSimd: 0xfd,
  prefixAtomic: 0xfe,
} as const;

/** The features that an image may use, by the bit that stands for them. */
export const featureBits = {
  "sign-extension": 1,
  "saturating-float-to-int": 2,
  "bulk-memory": 4,
  "reference-types": 8,
  "multi-value": 16,
  simd: 32,
  "relaxed-simd": 64,
  threads: 128,
  "tail-calls": 256,
  "legacy-exceptions": 512,
  exceptions: 1024,
  "extended-const": 2048,
  "mutable-globals": 4096,
} as const;

/** A feature of WebAssembly beyond its first version, by name. */
export type Feature = keyof typeof featureBits;

const isFeature = (name: string): name is Feature => Object.hasOwn(featureBits, name);

/** The names of the features in a set of bits. */
export function featureNames(bits: number): Feature[] {
  return Object.keys(featureBits)
    .filter(isFeature)
    .filter((name) => (bits & featureBits[name]) !== 0);
}

/** The proposal that an opcode outside the accepted set belongs to, for the message that refuses it. */
export function proposalOf(opcode: number): string {
  if (opcode === Opcode.callRef || opcode === Opcode.returnCallRef) return "typed function references";
  if (opcode >= 0xd3 && opcode <= 0xd6) return "typed function references or garbage collection";
  if (opcode === Opcode.prefixGc) return "garbage collection or stringref";
  if (opcode >= 0xe0 && opcode <= 0xe6) return "stack switching";
  return "an unknown feature";
}
