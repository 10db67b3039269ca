import { ABSENT, LENGTH_WORD_BYTES } from "./protocol.ts";

const CAPACITY_MIN = 4096;
/** A buffer larger than this is not used again. */
const CAPACITY_KEPT = 128 * 1024;

/** Frames on their way out, gathered so that many leave with one write. */
export class FrameOutput {
  #buffer: Buffer = Buffer.alloc(0);
  #spare: Buffer | undefined;
  #frame = 0;
  #end = 0;

  /** Bytes gathered. */
  get bytes(): number {
    return this.#end;
  }

  /** Begins a frame with a request id and a word: an operation or a result. */
  begin(requestId: number, word: number): void {
    this.#frame = this.#end;
    this.word(0);
    this.word(requestId);
    this.word(word);
  }

  /** Adds a 32-bit word of either sign. */
  word(value: number): void {
    this.#reserve(4);
    this.#buffer.writeInt32LE(value | 0, this.#end);
    this.#end += 4;
  }

  /** Adds bytes as they are. */
  raw(content: Uint8Array): void {
    this.#reserve(content.length);
    this.#buffer.set(content, this.#end);
    this.#end += content.length;
  }

  /** Adds a text or payload with its length in front, or that it is absent. Strings become UTF-8. */
  run(content: Uint8Array | string | null): void {
    if (content === null) {
      this.word(ABSENT);
    } else if (typeof content === "string") {
      const at = this.#end;
      this.word(0);
      this.#reserve(content.length * 3);
      const length = this.#buffer.write(content, this.#end, "utf8");
      this.#end += length;
      this.#buffer.writeUInt32LE(length, at);
    } else {
      this.word(content.length);
      this.raw(content);
    }
  }

  /** Ends the frame: now its length is known. Returns it, without the length word itself. */
  end(): number {
    const length = this.#end - this.#frame - LENGTH_WORD_BYTES;
    this.#buffer.writeUInt32LE(length, this.#frame);
    return length;
  }

  /** Drops the frame that was begun and not ended. */
  abandon(): void {
    this.#buffer.fill(0, this.#frame, this.#end);
    this.#end = this.#frame;
  }

  /** Hands out what was gathered. It comes back to `recycle` when it has been sent. */
  take(): Buffer {
    const taken = this.#buffer.subarray(0, this.#end);
    this.#buffer = this.#spare ?? Buffer.alloc(0);
    this.#spare = undefined;
    this.#end = 0;
    return taken;
  }

  /** Wipes what was sent and keeps it for later. */
  recycle(sent: Buffer): void {
    sent.fill(0);
    const whole = Buffer.from(sent.buffer, sent.byteOffset, sent.buffer.byteLength - sent.byteOffset);
    if (sent.byteOffset === 0 && whole.length <= CAPACITY_KEPT) this.#spare ??= whole;
  }

  #reserve(more: number): void {
    const old = this.#buffer;
    if (this.#end + more <= old.length) return;
    // Not from Node's pool: its parts share one ArrayBuffer, and what `recycle` gets back must be all of it.
    this.#buffer = Buffer.from(new ArrayBuffer(Math.max(CAPACITY_MIN, old.length * 2, this.#end + more)));
    old.copy(this.#buffer, 0, 0, this.#end);
    old.fill(0, 0, this.#end);
  }
}
