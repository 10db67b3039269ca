import type { ByteReader } from "./byte-reader.ts";
import { invalid, unsupported } from "./refusal.ts";

/** A value type that an image may use. */
export type ValueType = "exnref" | "externref" | "f32" | "f64" | "funcref" | "i32" | "i64" | "v128";

/** What goes in and comes out of a function. */
export interface Signature {
  readonly params: readonly ValueType[];
  readonly results: readonly ValueType[];
}

const typeOfCode: ReadonlyMap<number, ValueType> = new Map([
  [0x7f, "i32"],
  [0x7e, "i64"],
  [0x7d, "f32"],
  [0x7c, "f64"],
  [0x7b, "v128"],
  [0x70, "funcref"],
  [0x6f, "externref"],
  [0x69, "exnref"],
]);

const codeOfType: ReadonlyMap<ValueType, number> = new Map([...typeOfCode].map(([code, type]) => [type, code]));

/** The byte that stands for a value type in the binary format. */
export function typeCode(type: ValueType): number {
  return codeOfType.get(type)!;
}

/** The value type that a byte stands for, or undefined. */
export function typeFromCode(code: number): ValueType | undefined {
  return typeOfCode.get(code);
}

/** Refuses a type that belongs to a feature outside the accepted set, by that feature's name. */
export function refuseType(code: number, offset: number): never {
  const hex = `0x${code.toString(16)}`;
  if (code === 0x63 || code === 0x64) unsupported(`typed function references (type ${hex}) are not supported`, offset);
  if (code >= 0x65 && code <= 0x77) unsupported(`garbage-collected types (type ${hex}) are not supported`, offset);
  return invalid(offset, `unknown value type ${hex}`);
}

/** Reads one value type. */
export function readType(reader: ByteReader, what: string): ValueType {
  const at = reader.position;
  const code = reader.byte(what);
  return typeOfCode.get(code) ?? refuseType(code, at);
}

/** `(i32, i64) -> i32`, for messages. */
export function formatSignature(signature: Signature): string {
  return `(${signature.params.join(", ")}) -> (${signature.results.join(", ")})`;
}

/** True when both take and return the same types. */
export function sameSignature(left: Signature, right: Signature): boolean {
  return formatSignature(left) === formatSignature(right);
}
