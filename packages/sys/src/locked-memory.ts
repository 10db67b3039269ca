/**
 * Memory that stays in RAM: how much this process has, may have, and takes; and mappings that nobody changes any more.
 *
 * Source: mlock(2), mseal(2), capabilities(7), proc_pid_status(5).
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { kibibyteTable } from "./address-space.ts";
import { bind, rawSystemCall, resultOf } from "./libc.ts";
import { systemCallNumbers } from "./platform.ts";

const mlock = bind("int mlock(uintptr_t, size_t)");

const CAP_IPC_LOCK = 14n;
const STATUS = "/proc/self/status";

/**
 * Brings all pages of a range into RAM and keeps them there. 0 or a negative errno: `ENOMEM` when the limit
 * RLIMIT_MEMLOCK would be passed or a part of the range is not mapped, `EPERM` when the limit is 0, `EAGAIN` when a page
 * cannot be had.
 */
export const lockMemory = (address: number, lengthBytes: number): number => {
  assert(Number.isSafeInteger(address) && address > 0);
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0);
  // SAFETY: mlock changes no contents; the kernel checks the range.
  return resultOf(mlock()(address, lengthBytes));
};

/**
 * Makes the mappings of a range unchangeable until the process ends: their protection stays, they cannot be unmapped or
 * replaced (`EPERM`). 0 or a negative errno: `ENOSYS` before Linux 6.10, `ENOMEM` when a part is not mapped.
 */
export const sealMapping = (address: number, lengthBytes: number): number => {
  assert(Number.isSafeInteger(address) && address > 0);
  assert(Number.isSafeInteger(lengthBytes) && lengthBytes > 0);
  // SAFETY: the caller's range, which the caller keeps mapped for as long as the process lives.
  return rawSystemCall(systemCallNumbers().mseal, address, lengthBytes);
};

/** Memory of this process that counts against RLIMIT_MEMLOCK now, in bytes. */
export const lockedBytes = (): number => kibibyteTable(readFileSync(STATUS, "latin1")).get("VmLck") ?? 0;

/** Whether RLIMIT_MEMLOCK does not bind this process (CAP_IPC_LOCK). */
export const mayLockBeyondLimit = (): boolean => {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(STATUS, "latin1"))?.[1];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> CAP_IPC_LOCK) & 1n) === 1n;
};
