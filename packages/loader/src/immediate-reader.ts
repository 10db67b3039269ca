import { ByteReader } from "./byte-reader.ts";
import { invalid, unsupported } from "./refusal.ts";
import { refuseType, typeFromCode } from "./wasm-type.ts";

/** From here on, the alignment of a memory access says that the access names its memory. */
export const EXPLICIT_MEMORY = 0x40;

/**
 * Steps over the immediates of instructions: each method takes the position of an immediate and returns the position
 * behind it. Positions may come to lie past the end of a function body; whoever steps checks that at the end.
 */
export class ImmediateReader {
  readonly #bytes: Uint8Array;
  readonly #reader: ByteReader;
  /** Position behind the number that `read` returned. */
  after = 0;

  constructor(bytes: Uint8Array, end: number) {
    this.#bytes = bytes;
    this.#reader = new ByteReader(bytes, 0, end);
  }

  /** A LEB128 number whose value does not matter. */
  number(position: number): number {
    let at = position;
    while (this.#bytes[at++]! >= 0x80);
    return at;
  }

  /** Reads a number of 32 bits; `after` is the position behind it. */
  read(position: number): number {
    this.#reader.position = position;
    const value = this.#reader.u32("immediate");
    this.after = this.#reader.position;
    return value;
  }

  /** One value type, or the heap type of a null reference. */
  type(position: number): number {
    const code = this.#bytes[position]!;
    if (typeFromCode(code) === undefined) refuseType(code, position);
    return position + 1;
  }

  /** The types of a typed `select`. */
  types(position: number, end: number): number {
    let left = this.read(position);
    let at = this.after;
    for (; left > 0 && at < end; left--) at = this.type(at);
    return at;
  }

  /** Nothing, a value type, or the index of a function type. */
  blockType(position: number): number {
    const code = this.#bytes[position]!;
    if (code > 0x40 && code < 0x80) return this.type(position);
    return this.number(position);
  }

  /** The labels of a `br_table`, the default one included. */
  branchTable(position: number, end: number): number {
    let left = this.read(position) + 1;
    let at = this.after;
    for (; left > 0 && at < end; left--) at = this.number(at);
    return at;
  }

  /** The handlers of a `try_table`: two of the four kinds name a tag before the label. */
  catches(position: number, end: number): number {
    let left = this.read(position);
    let at = this.after;
    for (; left > 0 && at < end; left--) {
      const kind = this.#bytes[at]!;
      if (kind > 3) invalid(at, `unknown kind of handler ${kind}`);
      at = this.number(at + 1);
      if (kind < 2) at = this.number(at);
    }
    return at;
  }

  /** An alignment; refused when it says that a memory index follows. */
  alignment(position: number): number {
    const alignment = this.read(position);
    if (alignment >= EXPLICIT_MEMORY)
      unsupported("multi-memory (an access that names its memory) is not supported", position);
    return this.after;
  }

  /** Alignment and offset. */
  memoryAccess(position: number): number {
    return this.number(this.alignment(position));
  }

  /** The index of a memory, which can only be 0. */
  memoryIndex(position: number): number {
    if (this.read(position) !== 0) unsupported("multi-memory (a memory index other than 0) is not supported", position);
    return this.after;
  }
}
