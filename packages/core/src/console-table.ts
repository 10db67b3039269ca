/**
 * What guests print with console_io: one ring of output per domain slot, filtered, cut into lines, and bounded in rate,
 * so that a guest can neither fill a disk nor send escape sequences to a terminal.
 *
 *     column      type       holds                                              written by
 *     ring        u8×16384   output, byte n of the stream at n mod 16384        writers
 *     produced    u32        bytes ever put into the ring, modulo 2^32          writers (publishes the bytes)
 *     consumed    u32        bytes ever taken out, modulo 2^32                  control domain
 *     dropped     u32        bytes thrown away because of rate or a full ring   writers
 *     line        u8×128     the line that has not ended yet                    writers
 *     lineLength  u32        its length                                         writers
 *     tokens      f64        bytes that may still be printed at `refilledNs`    writers
 *     refilledNs  f64        when `tokens` was computed                         writers
 *
 * Writers hold the domain's lock; the one reader needs none.
 */
import assert from "node:assert/strict";
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";
import { admitted } from "./rate-limit.ts";

/** Capacity of one domain's output ring. */
export const CONSOLE_RING_BYTES = 16384;
/** A line is passed on at its end or when it is this long. */
export const CONSOLE_LINE_BYTES = 128;
/** A domain may print this much at once ... */
export const CONSOLE_BURST_BYTES = 1 << 20;
/** ... and this much per second in the long run. */
export const CONSOLE_BYTES_PER_SECOND = 1 << 20;

const NEWLINE = 0x0a;
const TAB = 0x09;

/** Output rings of all domains. */
export class ConsoleTable {
  readonly produced: Uint32Array;
  readonly consumed: Uint32Array;
  readonly dropped: Uint32Array;
  readonly #ring: Uint8Array;
  readonly #line: Uint8Array;
  readonly #lineLength: Uint32Array;
  readonly #tokens: Float64Array;
  readonly #refilledNs: Float64Array;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const count = geometry.domainCountMax;
    this.#ring = arena.u8(count * CONSOLE_RING_BYTES);
    this.produced = arena.u32(count);
    this.consumed = arena.u32(count);
    this.dropped = arena.u32(count);
    this.#line = arena.u8(count * CONSOLE_LINE_BYTES);
    this.#lineLength = arena.u32(count);
    this.#tokens = arena.f64(count);
    this.#refilledNs = arena.f64(count);
  }

  /** Empties the console of `slot` for a new domain. */
  reset(slot: number, nowNs: number): void {
    Atomics.store(this.produced, slot, 0);
    Atomics.store(this.consumed, slot, 0);
    this.dropped[slot] = 0;
    this.#lineLength[slot] = 0;
    this.#tokens[slot] = CONSOLE_BURST_BYTES;
    this.#refilledNs[slot] = nowNs;
    this.#ring.fill(0, slot * CONSOLE_RING_BYTES, (slot + 1) * CONSOLE_RING_BYTES);
    this.#line.fill(0, slot * CONSOLE_LINE_BYTES, (slot + 1) * CONSOLE_LINE_BYTES);
  }

  /**
   * Prints one byte: control characters other than newline and tab are dropped, also the C1 controls in their UTF-8
   * form. Returns whether a line became readable. The caller holds the domain's lock.
   */
  put(slot: number, byte: number, nowNs: number): boolean {
    const length = this.#lineLength[slot]!;
    const base = slot * CONSOLE_LINE_BYTES;
    const before = length === 0 ? 0 : this.#line[base + length - 1]!;
    if (byte >= 0x80 && byte < 0xa0 && (before < 0x80 || before === 0xc2)) {
      if (before === 0xc2) this.#lineLength[slot] = length - 1;
      return false;
    }
    if ((byte < 0x20 && byte !== NEWLINE && byte !== TAB) || byte === 0x7f) return false;
    this.#line[base + length] = byte;
    this.#lineLength[slot] = length + 1;
    if (byte === NEWLINE) return this.#flush(slot, length + 1, nowNs);
    if (length + 1 < CONSOLE_LINE_BYTES) return false;
    // A character that a longer line is cut in starts the next piece.
    return this.#flush(slot, byte >= 0xc0 ? length : length + 1, nowNs);
  }

  /** Passes on what stands in the line buffer although the line has not ended: the domain is gone. */
  finish(slot: number, nowNs: number): boolean {
    const length = this.#lineLength[slot]!;
    return length > 0 && this.#flush(slot, length, nowNs);
  }

  /** Bytes that `take` would return. */
  readable(slot: number): number {
    return (Atomics.load(this.produced, slot) - this.consumed[slot]!) >>> 0;
  }

  /** Takes everything printed so far. Called by the control domain only. */
  take(slot: number): Uint8Array {
    const from = this.consumed[slot]!;
    const count = this.readable(slot);
    assert(count <= CONSOLE_RING_BYTES);
    const bytes = new Uint8Array(count);
    const base = slot * CONSOLE_RING_BYTES;
    const at = from % CONSOLE_RING_BYTES;
    const first = Math.min(count, CONSOLE_RING_BYTES - at);
    bytes.set(this.#ring.subarray(base + at, base + at + first), 0);
    bytes.set(this.#ring.subarray(base, base + count - first), first);
    Atomics.store(this.consumed, slot, (from + count) >>> 0);
    return bytes;
  }

  /** Moves the first `length` bytes of the line into the ring, all or none, and keeps the rest as the new line. */
  #flush(slot: number, length: number, nowNs: number): boolean {
    const line = slot * CONSOLE_LINE_BYTES;
    const produced = this.produced[slot]!;
    const room = CONSOLE_RING_BYTES - ((produced - Atomics.load(this.consumed, slot)) >>> 0);
    const passes = length <= room && this.#admits(slot, length, nowNs);
    const base = slot * CONSOLE_RING_BYTES;
    if (passes) {
      for (let i = 0; i < length; i += 1)
        this.#ring[base + ((produced + i) % CONSOLE_RING_BYTES)] = this.#line[line + i]!;
      Atomics.store(this.produced, slot, (produced + length) >>> 0);
    } else {
      this.dropped[slot] = Math.min(0xffff_ffff, this.dropped[slot]! + length);
    }
    const kept = this.#lineLength[slot]! - length;
    this.#line.copyWithin(line, line + length, line + length + kept);
    this.#lineLength[slot] = kept;
    return passes;
  }

  #admits(slot: number, length: number, nowNs: number): boolean {
    const limit = { burst: CONSOLE_BURST_BYTES, perSecond: CONSOLE_BYTES_PER_SECOND };
    return admitted({ tokens: this.#tokens, refilledNs: this.#refilledNs, row: slot }, length, nowNs, limit);
  }
}
