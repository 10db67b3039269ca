/**
 * Waiting for descriptors to become ready, with this thread. A thread that waits here cannot be terminated before the
 * wait ends: wait in slices, or add the reading end of a pipe to which whoever wants to end the wait writes.
 *
 * Source: ppoll(2).
 */
import assert from "node:assert/strict";
import { constants } from "node:os";
import { NativeBuffer, rawSystemCall } from "./libc.ts";
import { systemCallNumbers } from "./platform.ts";

/** What can be waited for, and what can have happened: Linux's `POLL*`. */
export const Readiness = {
  READABLE: 0x01,
  WRITABLE: 0x04,
  /** Only ever reported, never asked for; so the next two. */
  ERROR: 0x08,
  HANG_UP: 0x10,
  /** The number is no open descriptor. */
  INVALID: 0x20,
} as const;

/** struct pollfd: descriptor, wanted events, events that happened. */
const POLLFD_BYTES = 8;
const NS_PER_MS = 1_000_000;
const INTERRUPTS_MAX = 64;

/** A fixed number of places for descriptors to wait for. */
export class PollSet {
  readonly #slots: NativeBuffer;
  readonly #timeout = new NativeBuffer(16);
  readonly #capacity: number;
  #count = 0;

  /** @param capacity how many descriptors fit, up to 4096. */
  constructor(capacity: number) {
    assert(Number.isSafeInteger(capacity) && capacity > 0 && capacity <= 4096);
    this.#capacity = capacity;
    this.#slots = new NativeBuffer(capacity * POLLFD_BYTES);
  }

  /** Forgets all descriptors. */
  clear(): void {
    this.#count = 0;
  }

  /** Adds a descriptor and gives its index, or -1 when the set is full. `events` is a sum of {@link Readiness} bits. */
  add(fd: number, events: number): number {
    if (this.#count === this.#capacity) return -1;
    const { view } = this.#slots;
    view.setInt32(this.#count * POLLFD_BYTES, fd, true);
    view.setUint16(this.#count * POLLFD_BYTES + 4, events, true);
    view.setUint16(this.#count * POLLFD_BYTES + 6, 0, true);
    return this.#count++;
  }

  /**
   * Waits until a descriptor is ready.
   *
   * @param timeoutMs 0 only looks; fractions count; Infinity waits for ever.
   * @returns how many descriptors are ready, 0 when the time is over, or a negative errno.
   */
  wait(timeoutMs: number): number {
    assert(timeoutMs >= 0);
    this.#setTimeout(timeoutMs);
    const timeoutAddress = timeoutMs === Number.POSITIVE_INFINITY ? 0 : this.#timeout.address;
    for (let attempt = 1; ; attempt++) {
      // SAFETY: count places of the native buffer are filled; the kernel updates the timeout to what is left of it.
      const ready = rawSystemCall(systemCallNumbers().ppoll, this.#slots.address, this.#count, timeoutAddress);
      if (ready !== -constants.errno.EINTR || attempt === INTERRUPTS_MAX) return ready;
    }
  }

  /** What happened to the descriptor at an index: a sum of {@link Readiness} bits. */
  happened(index: number): number {
    assert(index >= 0 && index < this.#count);
    return this.#slots.view.getUint16(index * POLLFD_BYTES + 6, true);
  }

  #setTimeout(timeoutMs: number): void {
    if (timeoutMs === Number.POSITIVE_INFINITY) return;
    const seconds = Math.min(Math.floor(timeoutMs / 1000), 2 ** 31);
    const nanoseconds = Math.min(Math.round((timeoutMs % 1000) * NS_PER_MS), 999_999_999);
    this.#timeout.view.setBigInt64(0, BigInt(seconds), true);
    this.#timeout.view.setBigInt64(8, BigInt(nanoseconds), true);
  }
}
