/**
 * The end of a domain on the control domain's thread: the hypervisor's slices, the threads, and what the host itself
 * gave to the domain. The address space goes last: a stale base address would let a mapping destroy somebody's memory.
 */
import { setImmediate as nextTurn, setTimeout as delay } from "node:timers/promises";
import { beginDestroy, continueDestroy, reapDomains, reapStage, type ReapStage } from "@xenolith/core";
import type { AddressSpace } from "./address-space-pool.ts";
import type { HostContext } from "./host-context.ts";

/** Frames that one turn of the event loop gives back. */
const SLICE_FRAMES = 65_536;
/** Stages that go on with each call; the others wait for other vCPUs. */
const WORKING_STAGES: readonly (ReapStage | undefined)[] = ["events", "memory"];
/** Looks at what is waited for before looking once a millisecond: grace periods end within one hypercall of others. */
const QUICK_WAITS = 100;
/** Other domains may keep a dead domain's row for long; nobody waits for that. Its last reference calls attention. */
const ZOMBIE_TURNS = 20;

/** Takes the domain in `slot` apart. `stopThreads` ends its threads and whatever they write to. */
export const dismantle = async (
  context: HostContext,
  slot: number,
  space: AddressSpace | undefined,
  stopThreads: () => Promise<void>,
): Promise<void> => {
  const { hypervisor, services, spaces } = context;
  const { domains } = hypervisor;
  const generation = domains.generation[slot]!;
  beginDestroy(hypervisor, slot);
  services.abandon(slot);
  await stopThreads();
  for (let waits = 0; !continueDestroy(hypervisor, slot, SLICE_FRAMES);) {
    const isWorking = WORKING_STAGES.includes(reapStage(hypervisor, slot));
    if (!isWorking) waits += 1;
    await (waits < QUICK_WAITS ? nextTurn() : delay(1));
  }
  if (space !== undefined) spaces.give(space);
  const isStillThere = (): boolean => domains.stateOf(slot) !== "free" && domains.generation[slot] === generation;
  for (let turn = 0; turn < ZOMBIE_TURNS && isStillThere(); turn += 1) {
    await nextTurn();
    reapDomains(hypervisor);
  }
};
