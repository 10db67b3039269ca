/**
 * Watchdogs: two timers per domain that shut it down unless it sets them anew in time. The control domain serves them.
 */
import { EINVAL, ENOSPC, SHUTDOWN_watchdog } from "@xenolith/abi";
import { shutdownDomain } from "./domain-ops.ts";
import { lockEvents, unlockEvents } from "./event-ports.ts";
import { WATCHDOG_COUNT } from "./event-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { announceTimer } from "./timers.ts";

const NS_PER_SECOND = 1_000_000_000;

/**
 * Operates the watchdogs of the domain in `slot`: id 0 creates one and returns its id, another id sets it anew, timeout
 * 0 destroys it. -EINVAL: no such watchdog, or creation with timeout 0; -ENOSPC: all are in use.
 */
export const setWatchdog = (hypervisor: Hypervisor, slot: number, id: number, timeoutSeconds: number): number => {
  if (id > WATCHDOG_COUNT || (id === 0 && timeoutSeconds === 0)) return -EINVAL;
  const deadline = timeoutSeconds === 0 ? 0 : hypervisor.platform.now() + timeoutSeconds * NS_PER_SECOND;
  const column = hypervisor.events.watchdogNs;
  const base = slot * WATCHDOG_COUNT - 1;
  lockEvents(hypervisor, slot, slot);
  const chosen = id === 0 ? freeWatchdog(column, base) : id;
  const isKnown = chosen !== 0 && (id === 0 || column[base + chosen] !== 0);
  if (isKnown) column[base + chosen] = deadline;
  unlockEvents(hypervisor, slot, slot);
  if (!isKnown) return id === 0 ? -ENOSPC : -EINVAL;
  if (deadline !== 0) announceTimer(hypervisor, deadline);
  return id === 0 ? chosen : 0;
};

const freeWatchdog = (column: Float64Array, base: number): number => {
  for (let id = 1; id <= WATCHDOG_COUNT; id += 1) if (column[base + id] === 0) return id;
  return 0;
};

/** Shuts the domain in `slot` down when one of its watchdogs is due; returns the earliest deadline that is left. */
export const expireWatchdogs = (hypervisor: Hypervisor, slot: number, now: number): number => {
  const { events } = hypervisor;
  let next = Infinity;
  for (let at = slot * WATCHDOG_COUNT; at < (slot + 1) * WATCHDOG_COUNT; at += 1) {
    const deadline = events.watchdogNs[at]!;
    if (deadline === 0) continue;
    if (deadline > now) next = Math.min(next, deadline);
    else if (claimWatchdog(hypervisor, slot, at, now)) shutdownDomain(hypervisor, slot, SHUTDOWN_watchdog);
  }
  return next;
};

/** Whether the watchdog really is due, seen under the lock; it is free afterwards. */
const claimWatchdog = (hypervisor: Hypervisor, slot: number, at: number, now: number): boolean => {
  const column = hypervisor.events.watchdogNs;
  lockEvents(hypervisor, slot, slot);
  const isDue = column[at] !== 0 && column[at]! <= now;
  if (isDue) column[at] = 0;
  unlockEvents(hypervisor, slot, slot);
  return isDue;
};
