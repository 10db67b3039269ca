/**
 * The end of a domain on the control domain's thread: the hypervisor's slices, the threads, and what the host itself
 * gave to the domain. The address space goes last: a stale base address would let a mapping destroy somebody's memory.
 */
import { setImmediate as nextTurn, setTimeout as delay } from "node:timers/promises";
import { beginDestroy, continueDestroy, reapDomains } from "@xenolith/core";
import type { AddressSpace } from "./address-space-pool.ts";
import type { HostContext } from "./host-context.ts";

/** Turns of the event loop before looking once a millisecond: grace periods end within one hypercall of others. */
const QUICK_TURNS = 100;
/** Other domains may keep a dead domain's row for long; nobody waits for that. */
const ZOMBIE_TURNS = 20;

/** Takes the domain in `slot` apart. `stopThreads` ends its threads and whatever they write to. */
export const dismantle = async (
  context: HostContext,
  slot: number,
  space: AddressSpace | undefined,
  stopThreads: () => Promise<void>,
): Promise<void> => {
  const { hypervisor, machine, spaces } = context;
  const { domains } = hypervisor;
  const generation = domains.generation[slot]!;
  beginDestroy(hypervisor, slot);
  await stopThreads();
  for (let turn = 0; !continueDestroy(hypervisor, slot); turn += 1) {
    await (turn < QUICK_TURNS ? nextTurn() : delay(1));
  }
  if (space !== undefined) spaces.give(space);
  const isStillThere = (): boolean => domains.stateOf(slot) !== "free" && domains.generation[slot] === generation;
  for (let turn = 0; turn < ZOMBIE_TURNS && isStillThere(); turn += 1) {
    await nextTurn();
    reapDomains(hypervisor);
  }
  if (domains.stateOf(slot) === "free") machine.discardP2m(slot);
};
