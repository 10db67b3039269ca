import { FRAME_BYTES_MAX, LENGTH_WORD_BYTES } from "./protocol.ts";

const CAPACITY_MIN = 4096;
/** An empty buffer larger than this is given back. */
const CAPACITY_KEPT = 128 * 1024;
/** Every frame has at least a request id and one more word. */
const FRAME_BYTES_MIN = 8;

/**
 * Turns what arrives in pieces into frames. It copies each piece, so the piece may be wiped or used again, and it wipes
 * what has been taken. It grows only with bytes that have arrived, never with what a length word promises.
 */
export class FrameInput {
  #buffer: Buffer = Buffer.alloc(0);
  #start = 0;
  #end = 0;

  /** Bytes that have arrived and were not taken yet. */
  get bytes(): number {
    return this.#end - this.#start;
  }

  push(piece: Uint8Array): void {
    this.#makeRoom(piece.length);
    this.#buffer.set(piece, this.#end);
    this.#end += piece.length;
  }

  /**
   * The next whole frame, without its length word: a view that is valid until the next call of any method. `undefined`
   * when it has not all arrived; "broken" for a length that no frame has, after which there is nothing more to take.
   */
  next(): Buffer | "broken" | undefined {
    const { bytes } = this;
    if (bytes === 0) this.#reset();
    if (bytes < LENGTH_WORD_BYTES) return undefined;
    const length = this.#buffer.readUInt32LE(this.#start);
    if (length < FRAME_BYTES_MIN || length > FRAME_BYTES_MAX) return "broken";
    if (bytes < LENGTH_WORD_BYTES + length) return undefined;
    const from = this.#start + LENGTH_WORD_BYTES;
    this.#start = from + length;
    return this.#buffer.subarray(from, from + length);
  }

  /** Forgets everything that has arrived. */
  clear(): void {
    this.#start = this.#end;
    this.#reset();
  }

  /** Everything was taken: begin at the front again, with nothing left of what was there. */
  #reset(): void {
    if (this.#end === 0) return;
    this.#buffer.fill(0, 0, this.#end);
    if (this.#buffer.length > CAPACITY_KEPT) this.#buffer = Buffer.alloc(0);
    this.#start = 0;
    this.#end = 0;
  }

  #makeRoom(more: number): void {
    const { bytes } = this;
    if (bytes === 0) this.#reset();
    if (this.#end + more <= this.#buffer.length) return;
    const old = this.#buffer;
    if (bytes + more <= old.length) {
      old.copyWithin(0, this.#start, this.#end);
      old.fill(0, bytes, this.#end);
    } else {
      this.#buffer = Buffer.alloc(Math.max(CAPACITY_MIN, old.length * 2, bytes + more));
      old.copy(this.#buffer, 0, this.#start, this.#end);
      old.fill(0);
    }
    this.#start = 0;
    this.#end = bytes;
  }
}
