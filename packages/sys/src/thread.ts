/**
 * Threads of this process, as the kernel numbers them, the CPU time that each has used, and who goes first.
 *
 * Source: gettid(2), clock_gettime(2), clock_getcpuclockid(3), setpriority(2).
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

/** Nice values: 0 as programs have it, 19 for who takes what others leave. */
export const NICE_MAX = 19;
const PRIO_PROCESS = 0;

/**
 * Makes the calling thread, and no other of the process, give way to others: `nice` from 0 to 19. Without privileges it
 * cannot be taken back.
 *
 * @returns 0, or `-EACCES`: it is nicer than that already.
 */
export const setThreadNice = (nice: number): number => {
  assert(Number.isInteger(nice) && nice >= 0 && nice <= NICE_MAX);
  // SAFETY: setpriority takes three numbers. On Linux a nice value is a thread's, and 0 means the calling one.
  return rawSystemCall(systemCallNumbers().setpriority, PRIO_PROCESS, 0, nice);
};

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
