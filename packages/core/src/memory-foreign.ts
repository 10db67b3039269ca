/**
 * Pages of another domain that a domain hooks by its authority over it: a device model's way to its target's memory. Each
 * holds a reference, so that the frame stays what it is, and in its owner's accounts, until it is let go.
 */
import { EINVAL, ESRCH } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import { hookRun } from "./address-space.ts";
import { addReference, putFrame } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { P2M_FOREIGN, P2M_HOLE, P2M_RAM, p2mType } from "./p2m.ts";

/** What the caller wants to see, and where. */
export interface ForeignPage {
  /** Slot of the domain whose page it is, and its gfn there. */
  readonly foreign: number;
  readonly index: number;
  /** A hole of the domain that gets it. */
  readonly gfn: number;
}

/**
 * Hooks a page of plain RAM of another domain in that of `slot`. The caller has the right to. 0, -EINVAL: no plain RAM
 * there, or as below, -ESRCH: either is dying.
 */
export const mapForeign = (hypervisor: Hypervisor, slot: number, { foreign, index, gfn }: ForeignPage): number => {
  if (!isAlive(hypervisor, slot) || !isAlive(hypervisor, foreign)) return -ESRCH;
  const mfn = referRam(hypervisor, foreign, index);
  if (mfn < 0) return -EINVAL;
  const result = hookForeign(hypervisor, slot, gfn, mfn);
  putFrame(hypervisor, mfn);
  return result;
};

/** Takes a reference on a page that the domain may write itself; lookup and reference are one step. -1: there is none. */
const referRam = (hypervisor: Hypervisor, slot: number, gfn: number): number => {
  const { locks, p2m } = hypervisor;
  if (!p2m.contains(gfn)) return -1;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const entry = p2m.get(slot, gfn);
  const isTaken = p2mType(entry) === P2M_RAM && addReference(hypervisor, entry >>> 4);
  locks.release(lock);
  return isTaken ? entry >>> 4 : -1;
};

/**
 * Hooks a frame (or passes on the errno that is in place of it) at a hole, with a reference of its own. The frame cannot
 * be freed meanwhile. -EINVAL: no gfn, no hole, or no reference to be had; -ENOSPC, -ENOMEM: the page table cannot.
 */
export const hookForeign = (hypervisor: Hypervisor, slot: number, gfn: number, mfn: number): number => {
  const { locks, p2m } = hypervisor;
  if (mfn < 0) return mfn;
  if (!p2m.contains(gfn) || !addReference(hypervisor, mfn)) return -EINVAL;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const isHole = p2m.get(slot, gfn) === P2M_HOLE;
  const result = isHole ? hookRun(hypervisor, slot, gfn, mfn, 1, P2M_FOREIGN) : -EINVAL;
  locks.release(lock);
  if (result !== 0) putFrame(hypervisor, mfn);
  return result;
};
