import type { ByteReader } from "./byte-reader.ts";
import { featureBits } from "./opcodes.ts";
import { invalid, tooLarge, unsupported } from "./refusal.ts";

/** Instructions in one constant expression. */
const INSTRUCTION_COUNT_MAX = 1_000;

/** What a constant expression gives. */
export interface Constant {
  /** Its value if that is an i32 number, otherwise null. */
  readonly i32: number | null;
  /** Index of a global whose value it needs, or null. */
  readonly global: number | null;
  /** Bits of `featureBits`. */
  readonly features: number;
}

const i32Operators: ReadonlyMap<number, (left: number, right: number) => number> = new Map([
  [0x6a, (left, right) => (left + right) | 0],
  [0x6b, (left, right) => (left - right) | 0],
  [0x6c, (left, right) => Math.imul(left, right)],
]);

/** Reads a constant expression, extended ones included, and evaluates it as far as it is made of i32 numbers. */
export function readConstant(reader: ByteReader, what: string): Constant {
  const expression = new Expression(reader, what);
  for (let count = 0; expression.step(); count++) {
    if (count === INSTRUCTION_COUNT_MAX) tooLarge(`instruction count of ${what}`, count + 1, INSTRUCTION_COUNT_MAX);
  }
  return expression.result();
}

class Expression {
  readonly #reader: ByteReader;
  readonly #what: string;
  readonly #stack: (number | null)[] = [];
  #global: number | null = null;
  #features = 0;

  constructor(reader: ByteReader, what: string) {
    this.#reader = reader;
    this.#what = what;
  }

  result(): Constant {
    if (this.#stack.length !== 1) invalid(this.#reader.position, `${this.#what} must leave one value`);
    return { i32: this.#stack[0] ?? null, global: this.#global, features: this.#features };
  }

  /** Takes one instruction; false at the end. */
  step(): boolean {
    const at = this.#reader.position;
    const opcode = this.#reader.byte(this.#what);
    if (opcode === 0x0b) return false;
    if ((opcode >= 0x6a && opcode <= 0x6c) || (opcode >= 0x7c && opcode <= 0x7e)) this.#operate(opcode, at);
    else this.#stack.push(this.#push(opcode, at));
    return true;
  }

  #operate(opcode: number, at: number): void {
    const right = this.#stack.pop();
    const left = this.#stack.pop();
    if (left === undefined || right === undefined) invalid(at, `${this.#what} lacks an operand`);
    this.#features |= featureBits["extended-const"];
    const operate = i32Operators.get(opcode);
    this.#stack.push(operate === undefined || left === null || right === null ? null : operate(left, right));
  }

  /** An instruction that leaves a value; returns it if it is a known i32. */
  #push(opcode: number, at: number): number | null {
    const reader = this.#reader;
    switch (opcode) {
      case 0x41:
        return reader.i32(this.#what);
      case 0x42:
        reader.skipNumber(this.#what, 10);
        return null;
      case 0x43:
        reader.skip(4, this.#what);
        return null;
      case 0x44:
        reader.skip(8, this.#what);
        return null;
      case 0x23:
        this.#global = reader.u32(this.#what);
        return null;
      default:
        return this.#pushReference(opcode, at);
    }
  }

  #pushReference(opcode: number, at: number): null {
    const reader = this.#reader;
    if (opcode === 0xd0) {
      this.#features |= featureBits["reference-types"];
      reader.byte(this.#what);
    } else if (opcode === 0xd2) {
      this.#features |= featureBits["reference-types"];
      reader.u32(this.#what);
    } else if (opcode === 0xfd && reader.u32(this.#what) === 0x0c) {
      this.#features |= featureBits.simd;
      reader.skip(16, this.#what);
    } else {
      unsupported(`instruction 0x${opcode.toString(16)} in ${this.#what} is not supported`, at);
    }
    return null;
  }
}
