/**
 * The control domain's timer: it serves watchdogs and the timers of vCPUs that run guest code, because they cannot.
 */
import { DOM0_SLOT } from "./domain-table.ts";
import { ARMED, SERVED, WATCHDOG_COUNT } from "./event-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { expireTimers, nextTimer, SERVICE_INTERVAL_NS } from "./timers.ts";
import { COUNTER_START_REQUESTS, VCPU_BLOCKED } from "./vcpu-table.ts";
import { expireWatchdogs } from "./watchdog.ts";

/**
 * For the control domain's thread: fires what is due (watchdogs, and timers of vCPUs that do not block) and returns the
 * system time at which it wants to be called again; Infinity: not before ATTENTION_TIMER. Call it when that time has
 * come and on ATTENTION_TIMER. However often it is called, it works once per SERVICE_INTERVAL_NS.
 */
export const serviceTimers = (hypervisor: Hypervisor): number => {
  const { events, platform, vcpus } = hypervisor;
  const now = platform.now();
  const again = events.armedNs[SERVED]! + SERVICE_INTERVAL_NS;
  if (again > now && events.armedNs[SERVED] !== 0) {
    events.armedNs[ARMED] = again;
    return again;
  }
  // Whoever sets a timer from here on raises ATTENTION_TIMER again: nothing that the scan misses is forgotten.
  events.armedNs[ARMED] = Infinity;
  events.armedNs[SERVED] = now;
  // A full barrier between that and the scan: an atomic addition of nothing.
  Atomics.add(vcpus.counters, COUNTER_START_REQUESTS, 0);
  const next = Math.max(expireAll(hypervisor, now), now + SERVICE_INTERVAL_NS);
  events.armedNs[ARMED] = next;
  return next;
};

/** Fires what is due in every domain; returns the earliest deadline that is left. */
const expireAll = (hypervisor: Hypervisor, now: number): number => {
  let next = Infinity;
  for (let slot = 0; slot < hypervisor.domains.slotCount; slot += 1) {
    const state = hypervisor.domains.stateOf(slot);
    if (state === "free" || state === "dying" || state === "dead") continue;
    next = Math.min(next, expireDomain(hypervisor, slot, now), expireWatchdogs(hypervisor, slot, now));
  }
  return next;
};

const expireDomain = (hypervisor: Hypervisor, slot: number, now: number): number => {
  const { domains, vcpus } = hypervisor;
  let next = Infinity;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    if (slot !== DOM0_SLOT && Atomics.load(vcpus.state, index) === VCPU_BLOCKED) continue;
    expireTimers(hypervisor, index, now);
    next = Math.min(next, nextTimer(hypervisor, index));
  }
  return next;
};

/** Earliest deadline among all timers that the control domain serves; for a look, `serviceTimers` is the service. */
export const earliestDeadline = (hypervisor: Hypervisor): number => {
  const { domains, events, vcpus } = hypervisor;
  let next = Infinity;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
      next = Math.min(next, nextTimer(hypervisor, vcpus.index(slot, vcpu)));
    }
    for (let at = slot * WATCHDOG_COUNT; at < (slot + 1) * WATCHDOG_COUNT; at += 1) {
      if (events.watchdogNs[at] !== 0) next = Math.min(next, events.watchdogNs[at]!);
    }
  }
  return next;
};
