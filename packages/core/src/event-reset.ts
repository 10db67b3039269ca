/**
 * Closing many ports: reset of a living domain, and the end of a dying one. In slices, with no lock between two ports,
 * so that neither the caller's other duties nor other vCPUs wait for a thousand of them.
 */
import { EAGAIN, EBUSY } from "@xenolith/abi";
import { portIsXen } from "./event-table.ts";
import { closeAnyPort, closePort, lockEvents, unlockEvents } from "./event-ports.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** Ports closed in one slice unless the caller says otherwise. */
export const RESET_SLICE_PORTS = 64;
/** `continueReset`: the slice is used up, call again. */
export const RESET_MORE = 1;

/** Begins a reset of the domain in `slot`. -EBUSY: one is in progress. */
export const beginReset = (hypervisor: Hypervisor, slot: number): number => {
  const { resetNext } = hypervisor.events;
  return Atomics.compareExchange(resetNext, slot, 0, 1) === 0 ? 0 : -EBUSY;
};

/**
 * Closes the guest's next `budget` ports of a reset that was begun. RESET_MORE: not done; 0: no port is open but the
 * hypervisor's own; -EAGAIN: done, but others opened ports meanwhile.
 */
export const continueReset = (hypervisor: Hypervisor, slot: number, budget = RESET_SLICE_PORTS): number => {
  const { events } = hypervisor;
  const from = Atomics.load(events.resetNext, slot);
  const end = Math.min(from + budget, events.portsPerDomain);
  for (let port = from; port < end; port += 1) if (events.load(slot, port) !== 0) closePort(hypervisor, slot, port);
  if (end < events.portsPerDomain) {
    Atomics.store(events.resetNext, slot, end);
    return RESET_MORE;
  }
  lockEvents(hypervisor, slot, slot);
  const isEmpty = events.open[slot] === events.xenOpen[slot];
  Atomics.store(events.resetNext, slot, 0);
  unlockEvents(hypervisor, slot, slot);
  return isEmpty ? 0 : -EAGAIN;
};

/**
 * Closes all ports that the guest of the domain in `slot` has, at once; for the control domain. -EBUSY: another reset
 * is in progress, -EAGAIN: the guest opened ports meanwhile.
 */
export const resetEvents = (hypervisor: Hypervisor, slot: number): number => {
  const refused = beginReset(hypervisor, slot);
  if (refused !== 0) return refused;
  for (;;) {
    const result = continueReset(hypervisor, slot);
    if (result !== RESET_MORE) return result;
  }
};

/**
 * Closes up to `budget` ports of a domain that is dying, also those that the hypervisor consumes. Returns whether all
 * are closed: a dying domain opens no new ones, so that repeated calls come to an end.
 */
export const closeAllPorts = (hypervisor: Hypervisor, slot: number, budget = Infinity): boolean => {
  const { events } = hypervisor;
  let left = budget;
  for (let port = 1; port < events.portsPerDomain && events.open[slot] !== 0; port += 1) {
    if (events.load(slot, port) === 0) continue;
    if (left <= 0) return false;
    closeAnyPort(hypervisor, slot, port);
    left -= 1;
  }
  return events.open[slot] === 0;
};

/** Ports that the guest of the domain in `slot` has open. */
export const openPortCount = (hypervisor: Hypervisor, slot: number): number => {
  const { events } = hypervisor;
  let count = 0;
  for (let port = 1; port < events.portsPerDomain; port += 1) {
    const word = events.load(slot, port);
    if (word !== 0 && !portIsXen(word)) count += 1;
  }
  return count;
};
