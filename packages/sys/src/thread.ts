/**
 * Threads of this process, as the kernel numbers them, and the CPU time that each has used.
 *
 * Source: gettid(2), clock_gettime(2), clock_getcpuclockid(3).
 */
import assert from "node:assert/strict";
import { lazily } from "./lazily.ts";
import { bind, NativeBuffer, rawSystemCall, resultOf } from "./libc.ts";
import { systemCallNumbers } from "./platform.ts";

const NS_PER_SECOND = 1_000_000_000;

const clock_gettime = bind("int clock_gettime(int, uintptr_t)");

/** The calling thread's number. In the main thread it is the process's. */
export const threadId = (): number =>
  // SAFETY: gettid takes no argument and cannot fail.
  rawSystemCall(systemCallNumbers().gettid);

/**
 * CPU time that a thread of this process has used, user and system together, in nanoseconds. Any thread may ask for
 * any other; costs under 1 us.
 *
 * @returns the time, or `-EINVAL` when no thread of this process has that number.
 */
export const threadCpuTimeNs = (tid: number): number => {
  assert(Number.isSafeInteger(tid) && tid > 0 && tid < 2 ** 28);
  const { address, view } = timespec();
  // SAFETY: the kernel writes one struct timespec to a native buffer of that size.
  const result = resultOf(clock_gettime()(cpuClockOf(tid), address));
  if (result < 0) return result;
  return Number(view.getBigInt64(0, true)) * NS_PER_SECOND + Number(view.getBigInt64(8, true));
};

/** The kernel's encoding of a clock: the inverted thread number, then per-thread (4) and scheduler time (2). */
const cpuClockOf = (tid: number): number => (~tid << 3) | 6;

const timespec = lazily(() => new NativeBuffer(16));
