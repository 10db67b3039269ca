import { tooLarge } from "./refusal.ts";

/** Runs below this many bytes are copied by a loop: cheaper than creating a view for `TypedArray.set`. */
const SHORT_RUN_BYTES = 48;

/** A growing byte buffer with a limit. */
export class ByteWriter {
  #bytes: Uint8Array;
  #length = 0;
  readonly #limitBytes: number;

  constructor(capacityBytes: number, limitBytes: number) {
    this.#bytes = new Uint8Array(capacityBytes);
    this.#limitBytes = limitBytes;
  }

  get length(): number {
    return this.#length;
  }

  /** What was written from `start` on, as a view. */
  view(start = 0): Uint8Array {
    return this.#bytes.subarray(start, this.#length);
  }

  byte(value: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = value;
  }

  /** An unsigned LEB128 number of at most 32 bits. */
  u32(value: number): void {
    this.#reserve(5);
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#bytes[this.#length++] = rest;
  }

  /** A signed LEB128 number of 32 bits. */
  i32(value: number): void {
    this.#reserve(5);
    let rest = value | 0;
    while (rest < -64 || rest > 63) {
      this.#bytes[this.#length++] = (rest & 0x7f) | 0x80;
      rest >>= 7;
    }
    this.#bytes[this.#length++] = rest & 0x7f;
  }

  /** Leaves room for a number that is known later; returns where, for `patchU32`. */
  reserveU32(): number {
    this.#reserve(5);
    const at = this.#length;
    this.#length += 5;
    return at;
  }

  /** Fills a reserved place with a LEB128 number padded to five bytes, which the format allows. */
  patchU32(at: number, value: number): void {
    for (let index = 0; index < 4; index++) this.#bytes[at + index] = ((value >>> (7 * index)) & 0x7f) | 0x80;
    this.#bytes[at + 4] = value >>> 28;
  }

  /** Copies `source[start, end)`. */
  copy(source: Uint8Array, start: number, end: number): void {
    const sizeBytes = end - start;
    this.#reserve(sizeBytes);
    if (sizeBytes > SHORT_RUN_BYTES) {
      this.#bytes.set(source.subarray(start, end), this.#length);
    } else {
      for (let index = 0; index < sizeBytes; index++) this.#bytes[this.#length + index] = source[start + index]!;
    }
    this.#length += sizeBytes;
  }

  append(source: Uint8Array): void {
    this.copy(source, 0, source.length);
  }

  /** Steps over bytes that are filled in later through `view`. */
  skip(sizeBytes: number): void {
    this.#reserve(sizeBytes);
    this.#length += sizeBytes;
  }

  #reserve(sizeBytes: number): void {
    const needed = this.#length + sizeBytes;
    if (needed <= this.#bytes.length) return;
    if (needed > this.#limitBytes) tooLarge("size of the rewritten module in bytes", needed, this.#limitBytes);
    const grown = new Uint8Array(Math.min(this.#limitBytes, Math.ceil(needed * 1.25) + 4096));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}
