/**
 * The memory manager's one step: from what the host reads and what the guests are to the targets that they get. It keeps
 * nothing but the level of pressure; sizes are the hypervisor's.
 */
import { guestBudget, type HostReadings, type PressureLevel, pressureLevel } from "./pressure.ts";
import { type Claimant, sharePages } from "./share.ts";
import { nextTargets } from "./steps.ts";

/** A guest as the hypervisor and its configuration describe it. */
export interface ManagedGuest extends Claimant {
  readonly currentPages: number;
  /** What it was told last. */
  readonly targetPages?: number | undefined;
}

/** All that a step depends on. */
export interface ManagerInput {
  readonly machinePages: number;
  readonly freePages: number;
  readonly claimedPages: number;
  readonly readings: HostReadings;
  readonly guests: readonly ManagedGuest[];
}

/** What a step decides. */
export interface ManagerPlan {
  readonly level: PressureLevel;
  readonly budgetPages: number;
  /** Where each guest is going, and the target that it gets now. */
  readonly wanted: ReadonlyMap<number, number>;
  readonly targets: ReadonlyMap<number, number>;
}

/** One step, coming from a level of pressure. */
export const planMemory = (before: PressureLevel, input: ManagerInput): ManagerPlan => {
  const { machinePages, freePages, claimedPages, readings, guests } = input;
  const level = pressureLevel(before, readings);
  const budgetPages = guestBudget(machinePages, claimedPages, level);
  const wanted = sharePages(guests, budgetPages);
  const movers = guests.map(({ domid, currentPages, targetPages }) => ({
    domid,
    currentPages,
    targetPages,
    wantedPages: wanted.get(domid)!,
  }));
  return { level, budgetPages, wanted, targets: nextTargets(movers, freePages - claimedPages) };
};
