/**
 * Column tables in shared memory. Every table of the hypervisor takes its columns from a `ColumnArena` in a fixed
 * order, so each thread that attaches to the same buffer sees the same columns.
 */
import assert from "node:assert/strict";

/** Hands out consecutive, 8-byte aligned columns of one shared buffer. */
export class ColumnArena {
  readonly #buffer: SharedArrayBuffer | null;
  #offset = 0;

  /** With `null` the arena only measures: its columns are empty and `usedBytes` tells what a real one needs. */
  constructor(buffer: SharedArrayBuffer | null) {
    this.#buffer = buffer;
  }

  /** Bytes handed out so far. */
  get usedBytes(): number {
    return this.#offset;
  }

  /** The next `count` unsigned 8-bit cells. */
  u8(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#buffer === null ? new Uint8Array(0) : new Uint8Array(this.#buffer, at, count);
  }

  /** The next `count` unsigned 16-bit cells. */
  u16(count: number): Uint16Array {
    const at = this.#take(count * 2);
    return this.#buffer === null ? new Uint16Array(0) : new Uint16Array(this.#buffer, at, count);
  }

  /** The next `count` unsigned 32-bit cells. */
  u32(count: number): Uint32Array {
    const at = this.#take(count * 4);
    return this.#buffer === null ? new Uint32Array(0) : new Uint32Array(this.#buffer, at, count);
  }

  /** The next `count` signed 32-bit cells: the only ones on which threads sleep. */
  i32(count: number): Int32Array {
    const at = this.#take(count * 4);
    return this.#buffer === null ? new Int32Array(0) : new Int32Array(this.#buffer, at, count);
  }

  /** The next `count` doubles (addresses below 2^53, nanoseconds). */
  f64(count: number): Float64Array {
    const at = this.#take(count * 8);
    return this.#buffer === null ? new Float64Array(0) : new Float64Array(this.#buffer, at, count);
  }

  #take(sizeBytes: number): number {
    const at = this.#offset;
    this.#offset = Math.ceil((at + sizeBytes) / 8) * 8;
    if (this.#buffer !== null) assert(this.#offset <= this.#buffer.byteLength);
    return at;
  }
}
