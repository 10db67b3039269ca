/**
 * What the hypervisor asks of the threads of a host: page tables, clocks, sleeping, waking, and a way to call the
 * control domain's attention. The main thread and the vCPU threads differ in the doorbell and in parking only.
 */
import assert from "node:assert/strict";
import type { Mmu, Platform } from "@xenolith/core";
import { HostClock } from "./clock.ts";

/** What makes one thread's platform. */
export interface PlatformParts {
  readonly mmu: Mmu;
  /** `process.hrtime.bigint()` at the start of the hypervisor. */
  readonly epochNs: bigint;
  /** Whether somebody waits for the thread, see {@link HostClock}. */
  readonly isHurried?: boolean;
  /** Calls the control domain's thread; must not throw. */
  readonly ringDoorbell: () => void;
  /** Whether the calling thread runs a vCPU, which may be parked. */
  readonly canPark: boolean;
  /**
   * Called when a wait of this thread has lasted a while. The control domain's thread waits for locks only, and only it
   * can free the locks of a thread that died: it must not wait for one.
   */
  readonly whileWaiting?: () => void;
  /** See {@link Platform}. */
  readonly discardTable?: NonNullable<Platform["discardTable"]>;
}

/** A thread with something to look after waits this long at a time. */
const WAIT_SLICE_MS = 20;

/** {@link Platform} of one thread of this process. */
export class ThreadPlatform implements Platform {
  readonly mmu: Mmu;
  readonly discardTable: NonNullable<Platform["discardTable"]>;
  readonly #clock: HostClock;
  readonly #ringDoorbell: () => void;
  readonly #canPark: boolean;
  readonly #whileWaiting: (() => void) | undefined;

  constructor(parts: PlatformParts) {
    this.mmu = parts.mmu;
    this.discardTable = parts.discardTable ?? ((): void => {});
    this.#clock = new HostClock(parts.epochNs, parts.isHurried);
    this.#ringDoorbell = parts.ringDoorbell;
    this.#canPark = parts.canPark;
    this.#whileWaiting = parts.whileWaiting;
  }

  now(): number {
    return this.#clock.now();
  }

  wallClock(): bigint {
    return this.#clock.wallClock();
  }

  wait(words: Int32Array, index: number, expected: number, timeoutNs: number): void {
    const timeoutMs = timeoutNs / 1e6;
    if (this.#whileWaiting === undefined) Atomics.wait(words, index, expected, timeoutMs);
    else if (Atomics.wait(words, index, expected, Math.min(timeoutMs, WAIT_SLICE_MS)) === "timed-out")
      this.#whileWaiting();
  }

  wake(words: Int32Array, index: number): number {
    return Atomics.notify(words, index);
  }

  ringDoorbell(): void {
    this.#ringDoorbell();
  }

  parkForever(): never {
    assert(this.#canPark, "the control domain's thread never parks");
    const never = new Int32Array(new SharedArrayBuffer(4));
    for (;;) Atomics.wait(never, 0, 0);
  }
}
