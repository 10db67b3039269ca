/**
 * The gate of a vCPU: one shared word that makes stopping safe. A vCPU thread is inside the hypervisor only between
 * `enter` and `leave`; whoever wants to stop or pause it sets a request bit and, when the vCPU is inside, waits until
 * it leaves. A thread found outside may be terminated at any time: it holds no lock and no half-made change.
 *
 *     bit  name   meaning                                  written by
 *     0    IN     the vCPU executes hypervisor code        its own thread
 *     1    PAUSE  park at the gate until cleared           control domain
 *     2    STOP   park for ever; the thread will be ended  control domain
 *     3    DOWN   park at the gate until cleared           VCPUOP_down and VCPUOP_up
 *     4    READ   it may use its memory without the lock   its own thread, together with IN
 *
 * READ stands for the p2m lock while a vCPU makes one of the calls of quick-call.ts: it is set by the instruction that
 * enters, so it costs nothing, and lasts a bounded time in which nothing is waited for. Who takes an entry out of that
 * domain's p2m waits for it afterwards (`awaitReaders`): a reader that entered earlier has ended before the frame can be
 * freed, and one that enters later does not find it.
 *
 * The span between enter and leave also is a read-side section: special frames of a dead domain are freed only after
 * every vCPU has been seen outside once (`docs/architecture.md`).
 */
import type { Platform } from "./platform.ts";

export const GATE_IN = 1;
export const GATE_PAUSE = 2;
export const GATE_STOP = 4;
export const GATE_DOWN = 8;
export const GATE_READ = 16;
/** What a vCPU's own thread sets. */
export const GATE_INSIDE = GATE_IN | GATE_READ;

/** Looks at a reader before sleeping in between: its thread may have lost its processor. */
const READER_LOOKS = 100;
const READER_WAIT_NS = 10_000;

/** Enters the hypervisor. Parks first while a pause is requested, for ever when a stop is. */
export const enterGate = (gates: Int32Array, index: number, platform: Platform): void => {
  if (Atomics.compareExchange(gates, index, 0, GATE_IN) === 0) return;
  for (;;) {
    const word = Atomics.load(gates, index);
    if ((word & GATE_STOP) !== 0) platform.parkForever();
    if ((word & (GATE_PAUSE | GATE_DOWN)) !== 0) platform.wait(gates, index, word, Infinity);
    else if (Atomics.compareExchange(gates, index, 0, GATE_IN) === 0) return;
  }
};

/** Leaves the hypervisor; tells a waiting stopper. */
export const leaveGate = (gates: Int32Array, index: number, platform: Platform): void => {
  const before = Atomics.and(gates, index, ~GATE_INSIDE);
  if (before !== GATE_IN) platform.wake(gates, index);
};

/**
 * Returns when each of the `count` vCPUs from row `first` was seen without READ. What was written before is what a vCPU
 * sees that sets READ later: both change the same word, atomically.
 */
export const awaitReaders = (gates: Int32Array, first: number, count: number, platform: Platform): void => {
  for (let index = first; index < first + count; index += 1) {
    for (let look = 1; ; look += 1) {
      const word = Atomics.or(gates, index, 0);
      if ((word & GATE_READ) === 0) break;
      if (look % READER_LOOKS === 0) platform.wait(gates, index, word, READER_WAIT_NS);
    }
  }
};

/** Asks for `request` (GATE_PAUSE, GATE_STOP or GATE_DOWN); true when the vCPU is outside already. */
export const requestGate = (gates: Int32Array, index: number, request: number): boolean =>
  (Atomics.or(gates, index, request) & GATE_IN) === 0;

/** Withdraws `request` and lets a parked vCPU go on. */
export const withdrawGate = (gates: Int32Array, index: number, request: number, platform: Platform): void => {
  Atomics.and(gates, index, ~request);
  platform.wake(gates, index);
};
