/**
 * A stream of bytes between a vCPU and the control domain's thread, in shared memory: one ring of 64 KiB.
 *
 *     word      holds                                        written by
 *     produced  bytes ever written, modulo 2^32              the writer (publishes the bytes)
 *     consumed  bytes ever read, modulo 2^32                 the reader
 *     closed    1: no more bytes will be written             control domain
 *     lock      tag of the vCPU thread that uses its end     vCPU threads, inside their gates
 *     waiting   1: a vCPU sleeps until something changes     vCPU threads (set), control domain (clear)
 *
 * One side is always the control domain's thread; the vCPUs of a domain share the other under `lock`, which they hold
 * only inside their gates and never while they sleep.
 */
import assert from "node:assert/strict";

/** Capacity of one ring. */
export const RING_BYTES = 65_536;
const HEADER_BYTES = 32;
/** Bytes of shared memory of one ring. */
export const RING_FOOTPRINT_BYTES = HEADER_BYTES + RING_BYTES;

const PRODUCED = 0;
const CONSUMED = 1;
const CLOSED = 2;
const LOCK = 3;
const WAITING = 4;

/** One direction of one stream, seen from one thread. */
export class ByteRing {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;

  constructor(buffer: SharedArrayBuffer, offsetBytes: number) {
    assert(offsetBytes % 4 === 0);
    this.#words = new Int32Array(buffer, offsetBytes, HEADER_BYTES / 4);
    this.#bytes = new Uint8Array(buffer, offsetBytes + HEADER_BYTES, RING_BYTES);
  }

  /**
   * Bytes that can be read now; for a vCPU that does not hold `lock`, an estimate. What was consumed is read first: both
   * ends may move between the two reads, and then the difference is too large, never negative.
   */
  get readableBytes(): number {
    const consumed = Atomics.load(this.#words, CONSUMED);
    return Math.min(RING_BYTES, (Atomics.load(this.#words, PRODUCED) - consumed) >>> 0);
  }

  /** Bytes that can be written now. */
  get writableBytes(): number {
    return RING_BYTES - this.readableBytes;
  }

  /** Whether the end of the stream has been declared; bytes before it may still be readable. */
  get closed(): boolean {
    return Atomics.load(this.#words, CLOSED) !== 0;
  }

  /** Declares the end of the stream. */
  close(): void {
    Atomics.store(this.#words, CLOSED, 1);
  }

  /** Puts in as many of `source`'s bytes as there is room for; returns how many. */
  write(source: Uint8Array): number {
    const count = Math.min(source.length, this.writableBytes);
    const produced = Atomics.load(this.#words, PRODUCED);
    const at = (produced >>> 0) % RING_BYTES;
    const first = Math.min(count, RING_BYTES - at);
    this.#bytes.set(source.subarray(0, first), at);
    this.#bytes.set(source.subarray(first, count), 0);
    Atomics.store(this.#words, PRODUCED, (produced + count) | 0);
    return count;
  }

  /** Takes out as many bytes as fit into `target`; returns how many. */
  read(target: Uint8Array): number {
    const count = Math.min(target.length, this.readableBytes);
    const consumed = Atomics.load(this.#words, CONSUMED);
    const at = (consumed >>> 0) % RING_BYTES;
    const first = Math.min(count, RING_BYTES - at);
    target.set(this.#bytes.subarray(at, at + first), 0);
    target.set(this.#bytes.subarray(0, count - first), first);
    Atomics.store(this.#words, CONSUMED, (consumed + count) | 0);
    return count;
  }

  /** Takes the vCPUs' end for the thread `tag`; waits while another vCPU uses it. */
  lock(tag: number): void {
    for (;;) {
      const holder = Atomics.compareExchange(this.#words, LOCK, 0, tag);
      if (holder === 0) return;
      Atomics.wait(this.#words, LOCK, holder);
    }
  }

  /** Gives the vCPUs' end back. */
  unlock(): void {
    Atomics.store(this.#words, LOCK, 0);
    Atomics.notify(this.#words, LOCK);
  }

  /** Frees the vCPUs' end when the thread `tag`, which no longer exists, held it. */
  recover(tag: number): void {
    if (Atomics.compareExchange(this.#words, LOCK, tag, 0) === tag) Atomics.notify(this.#words, LOCK);
  }

  /** A vCPU is about to sleep until bytes or room come; it looks at the ring once more after this. */
  announceWait(): void {
    Atomics.store(this.#words, WAITING, 1);
  }

  /** Whether a vCPU announced that it waits; forgets it. */
  takeWaiter(): boolean {
    return Atomics.exchange(this.#words, WAITING, 0) !== 0;
  }
}
