/**
 * Locks in shared memory. A lock is one word: 0 when free, else the tag of the holding thread, with the top bit set
 * when somebody sleeps on it. Spins a little, then sleeps.
 *
 * Order (docs/architecture.md): domain list < domain < p2m < event < grant table < active entry < maptrack < pages
 * < allocator. A thread takes locks in rising rank; two of one rank only in slot order. This is asserted always.
 */
import assert from "node:assert/strict";
import type { AtomicWords } from "./atomic-words.ts";
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";
import type { Platform } from "./platform.ts";

/** Lock classes in the order in which they may be taken. */
export const LOCK_RANKS = [
  "domainList",
  "domain",
  "p2m",
  "event",
  "grantTable",
  "activeEntry",
  "maptrack",
  "pages",
  "allocator",
] as const;
/** One class of locks. */
export type LockRank = (typeof LOCK_RANKS)[number];

/**
 * Place of a rank in LOCK_RANKS. Not by a search in that: compiled together with its caller, which names the rank, this
 * is a constant, and a hypercall asks for several.
 */
const rankOf = (rank: LockRank): number => {
  switch (rank) {
    case "domainList":
      return 0;
    case "domain":
      return 1;
    case "p2m":
      return 2;
    case "event":
      return 3;
    case "grantTable":
      return 4;
    case "activeEntry":
      return 5;
    case "maptrack":
      return 6;
    case "pages":
      return 7;
    case "allocator":
      return 8;
  }
};

/** Words between two locks: each has a cache line of its own, so that domains do not slow each other down. */
const LOCK_STRIDE_SHIFT = 4;
const LOCK_STRIDE_BYTES_SHIFT = LOCK_STRIDE_SHIFT + 2;
/** Locks that one thread holds at once. */
const HELD_COUNT_MAX = 64;
const SPIN_COUNT_MAX = 200;
/** For how long `letIn` looks, some microseconds, and then sleeps. */
const LET_IN_LOOKS = 1000;
const LET_IN_NS = 50_000;
const CONTENDED = 0x4000_0000;
const TAG_MAX = CONTENDED - 1;

/** A lock: index of its word. Per-domain ranks have one lock per slot, the others one in all (slot 0). */
export class LockTable {
  readonly #words: Int32Array;
  /** Fast atomics, and where `#words` begins in their buffer. */
  readonly #fast: AtomicWords;
  readonly #start: number;
  readonly #slots: number;
  readonly #platform: Platform;
  readonly #tag: number;
  readonly #held = new Int32Array(HELD_COUNT_MAX);
  #depth = 0;

  /** `tag` (1 ...) names the calling thread, uniquely among live threads. */
  constructor(
    arena: ColumnArena,
    options: { geometry: Geometry; words: AtomicWords; platform: Platform; tag: number },
  ) {
    assert(options.tag > 0 && options.tag <= TAG_MAX);
    assert(LOCK_RANKS.every((rank, place) => rankOf(rank) === place));
    this.#slots = options.geometry.domainCountMax;
    this.#words = arena.i32((LOCK_RANKS.length * this.#slots) << LOCK_STRIDE_SHIFT);
    this.#fast = options.words;
    this.#start = this.#words.byteOffset;
    this.#platform = options.platform;
    this.#tag = options.tag;
  }

  /** Identity of `rank`'s lock for domain slot `slot`. Larger identities are taken later. */
  id(rank: LockRank, slot = 0): number {
    return rankOf(rank) * this.#slots + slot;
  }

  /** Takes the lock; sleeps while another thread holds it. */
  acquire(lock: number): void {
    const depth = this.#depth;
    if (depth > 0 && (depth === HELD_COUNT_MAX || this.#held[depth - 1]! >= lock)) assert.fail("lock order");
    const address = this.#start + (lock << LOCK_STRIDE_BYTES_SHIFT);
    if (this.#fast.compareExchange(address, 0, this.#tag) !== 0) this.#acquireSlow(lock << LOCK_STRIDE_SHIFT);
    this.#held[depth] = lock;
    this.#depth = depth + 1;
  }

  /** Takes the lock if it is free; never waits. For who may not wait, as whoever holds READ (gate.ts). */
  tryAcquire(lock: number): boolean {
    const depth = this.#depth;
    if (depth > 0 && (depth === HELD_COUNT_MAX || this.#held[depth - 1]! >= lock)) assert.fail("lock order");
    const address = this.#start + (lock << LOCK_STRIDE_BYTES_SHIFT);
    if (this.#fast.compareExchange(address, 0, this.#tag) !== 0) return false;
    this.#held[depth] = lock;
    this.#depth = depth + 1;
    return true;
  }

  /** Gives the lock back, and tells whether that woke somebody. Locks are released in reverse order of taking. */
  release(lock: number): boolean {
    const depth = this.#depth - 1;
    if (depth < 0 || this.#held[depth] !== lock) assert.fail("lock released out of order");
    this.#depth = depth;
    const before = this.#fast.exchange(this.#start + (lock << LOCK_STRIDE_BYTES_SHIFT), 0);
    if (before === this.#tag) return false;
    assert((before & TAG_MAX) === this.#tag, "lock of another thread");
    return this.#platform.wake(this.#words, lock << LOCK_STRIDE_SHIFT) > 0;
  }

  /**
   * Returns when somebody has taken the lock, or had the time to: so that who holds it for long and again and again does
   * not keep those out who were woken when it was released. With no lock held.
   */
  letIn(lock: number): void {
    assert(this.#depth === 0);
    const at = lock << LOCK_STRIDE_SHIFT;
    for (let look = 0; look < LET_IN_LOOKS; look += 1) if (Atomics.load(this.#words, at) !== 0) return;
    // Perhaps the other thread waits for this one's processor.
    this.#platform.wait(this.#words, at, 0, LET_IN_NS);
  }

  /** Gives back every lock that the calling thread holds; returns how many. */
  releaseAll(): number {
    const count = this.#depth;
    while (this.#depth > 0) this.release(this.#held[this.#depth - 1]!);
    return count;
  }

  /** Whether the calling thread holds `lock`. */
  holds(lock: number): boolean {
    for (let at = 0; at < this.#depth; at += 1) if (this.#held[at] === lock) return true;
    return false;
  }

  /** Number of locks the calling thread holds. */
  get heldCount(): number {
    return this.#depth;
  }

  /** Frees every lock of a thread that no longer exists; returns how many it held. */
  recover(tag: number): number {
    let recovered = 0;
    for (let at = 0; at < this.#words.length; at += 1 << LOCK_STRIDE_SHIFT) {
      const word = Atomics.load(this.#words, at);
      if ((word & TAG_MAX) !== tag) continue;
      Atomics.store(this.#words, at, 0);
      this.#platform.wake(this.#words, at);
      recovered += 1;
    }
    return recovered;
  }

  #acquireSlow(at: number): void {
    for (let spin = 0; spin < SPIN_COUNT_MAX; spin += 1) {
      if (Atomics.compareExchange(this.#words, at, 0, this.#tag) === 0) return;
    }
    for (;;) {
      const word = Atomics.load(this.#words, at);
      if (word === 0) {
        if (Atomics.compareExchange(this.#words, at, 0, this.#tag | CONTENDED) === 0) return;
        continue;
      }
      const marked = word | CONTENDED;
      if (word !== marked && Atomics.compareExchange(this.#words, at, word, marked) !== word) continue;
      this.#platform.wait(this.#words, at, marked, Infinity);
    }
  }
}
