import { invalid, tooLarge } from "./refusal.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads the parts of a module that are not instructions. Every read is checked; errors name the offset in the module. */
export class ByteReader {
  readonly bytes: Uint8Array;
  position: number;
  readonly end: number;

  constructor(bytes: Uint8Array, position: number, end: number) {
    this.bytes = bytes;
    this.position = position;
    this.end = end;
  }

  get atEnd(): boolean {
    return this.position >= this.end;
  }

  byte(what: string): number {
    if (this.position >= this.end) invalid(this.position, `${what}: unexpected end`);
    return this.bytes[this.position++]!;
  }

  /** An unsigned 32-bit LEB128 number: at most five bytes, unused bits zero. */
  u32(what: string): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte(what);
      if (shift === 28 && byte > 0x0f) invalid(this.position - 1, `${what}: number does not fit 32 bits`);
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return invalid(this.position, `${what}: number longer than 5 bytes`);
  }

  /** A signed 32-bit LEB128 number. */
  i32(what: string): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte(what);
      value |= (byte & 0x7f) << shift;
      if (byte >= 0x80) continue;
      return shift < 28 && (byte & 0x40) !== 0 ? value | (-1 << (shift + 7)) : value;
    }
    return invalid(this.position, `${what}: number longer than 5 bytes`);
  }

  /** Steps over a LEB128 number of at most `byteCountMax` bytes whose value does not matter. */
  skipNumber(what: string, byteCountMax: number): void {
    for (let count = 0; count < byteCountMax; count++) {
      if (this.byte(what) < 0x80) return;
    }
    invalid(this.position, `${what}: number longer than ${byteCountMax} bytes`);
  }

  /** The length of a list; each entry takes at least one byte, so a list cannot be longer than the bytes that are left. */
  count(what: string, limit: number): number {
    const at = this.position;
    const count = this.u32(`${what} count`);
    if (count > limit) tooLarge(`${what} count`, count, limit);
    if (count > this.end - this.position) invalid(at, `${what} count ${count} is more than the section holds`);
    return count;
  }

  skip(sizeBytes: number, what: string): void {
    if (sizeBytes > this.end - this.position) {
      invalid(this.position, `${what}: ${sizeBytes} bytes expected, ${this.end - this.position} left`);
    }
    this.position += sizeBytes;
  }

  /** A length-prefixed UTF-8 string. */
  name(what: string, limit: number): string {
    const at = this.position;
    const sizeBytes = this.u32(what);
    if (sizeBytes > this.end - this.position) invalid(at, `${what}: unexpected end`);
    if (sizeBytes > limit) tooLarge(`${what} length`, sizeBytes, limit);
    const start = this.position;
    this.position += sizeBytes;
    try {
      return utf8.decode(this.bytes.subarray(start, this.position));
    } catch {
      return invalid(start, `${what} is not UTF-8`);
    }
  }
}
