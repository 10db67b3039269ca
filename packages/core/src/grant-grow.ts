/**
 * The shared frames of grant tables: one at a domain's creation, more when they are asked for, all back at its end.
 * They are the hypervisor's, in nobody's accounts; what bounds them is `frameMax`.
 */
import { EINVAL, ENOMEM, ENOSPC, ESRCH } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import { allocateFrames } from "./buddy.ts";
import { lockGranter, unlockGranter } from "./grant-acquire.ts";
import { putFrame } from "./frame-reference.ts";
import { FRAME_RELEASED } from "./frame-table.ts";
import { REFS_PER_FRAME } from "./grant-table.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** Frames that a grant table may grow to unless the domain's creator says otherwise. */
export const GRANT_FRAMES_DEFAULT = 64;

/** How far the tables of a new domain may grow. */
export interface GrantLimits {
  /** Shared frames, 512 references each: 1 to geometry.grantFramesMax. */
  readonly grantFramesMax?: number;
  /** Pages of handles, 256 mappings each: 0 to geometry.maptrackFramesMax. */
  readonly maptrackFramesMax?: number;
}

/** Whether a domain can have these limits. */
export const areGrantLimits = (hypervisor: Hypervisor, limits: GrantLimits): boolean => {
  const { geometry } = hypervisor;
  const { grantFramesMax: frames = 1, maptrackFramesMax: pages = 0 } = limits;
  const isTableOk = Number.isInteger(frames) && frames >= 1 && frames <= geometry.grantFramesMax;
  return isTableOk && Number.isInteger(pages) && pages >= 0 && pages <= geometry.maptrackFramesMax;
};

/** Gives a new domain its limits, which are possible ones, and the first frame of its table. 0, or -ENOMEM. */
export const createGrantTable = (hypervisor: Hypervisor, slot: number, limits: GrantLimits): number => {
  const { geometry, grants, maptrack } = hypervisor;
  const mfn = allocateFrames(hypervisor, 0);
  if (mfn < 0) return -ENOMEM;
  grants.frameMax[slot] = limits.grantFramesMax ?? Math.min(GRANT_FRAMES_DEFAULT, geometry.grantFramesMax);
  maptrack.frameMax[slot] = limits.maptrackFramesMax ?? geometry.maptrackFramesMax;
  addFrame(hypervisor, slot, mfn);
  return 0;
};

/**
 * Lets the table of the domain in `slot` have at least `frameCount` frames. Under its grantTable lock. 0, -ESRCH: the
 * domain is dying, -ENOSPC: it may not have so many, -ENOMEM; frames that it got before the memory was gone stay.
 */
export const growGrantTable = (hypervisor: Hypervisor, slot: number, frameCount: number): number => {
  const { grants } = hypervisor;
  if (frameCount > grants.frameMax[slot]!) return -ENOSPC;
  while (grants.frameCount[slot]! < frameCount) {
    if (!isAlive(hypervisor, slot)) return -ESRCH;
    const mfn = allocateFrames(hypervisor, 0);
    if (mfn < 0) return -ENOMEM;
    addFrame(hypervisor, slot, mfn);
  }
  return 0;
};

/**
 * Machine frame number `index` of the table of the domain in `slot`, which grows as far as that. Takes its grantTable
 * lock. -EINVAL: it may not have so many frames, or what `growGrantTable` returns.
 */
export const grantFrame = (hypervisor: Hypervisor, slot: number, index: number): number => {
  const { grants, locks } = hypervisor;
  if (index >= grants.frameMax[slot]!) return -EINVAL;
  const lock = locks.id("grantTable", slot);
  locks.acquire(lock);
  const grown = growGrantTable(hypervisor, slot, index + 1);
  const mfn = grown === 0 ? grants.sharedFrame[slot * grants.framesMax + index]! - 1 : grown;
  locks.release(lock);
  return mfn;
};

/** Takes the table of a dead domain away: from here on it has no references. Frames that others hold go with these. */
export const freeGrantTable = (hypervisor: Hypervisor, slot: number): void => {
  const { grants, maptrack } = hypervisor;
  lockGranter(hypervisor, slot);
  const count = grants.frameCount[slot]!;
  Atomics.store(grants.frameCount, slot, 0);
  grants.frameMax[slot] = 0;
  maptrack.frameMax[slot] = 0;
  unlockGranter(hypervisor, slot);
  const first = slot * grants.framesMax;
  for (let at = first; at < first + count; at += 1) {
    const mfn = grants.sharedFrame[at]! - 1;
    grants.sharedFrame[at] = 0;
    hypervisor.frames.flags[mfn]! |= FRAME_RELEASED;
    putFrame(hypervisor, mfn);
  }
};

/** The frame is there, with its entries inactive, before the number of frames says so. */
const addFrame = (hypervisor: Hypervisor, slot: number, mfn: number): void => {
  const { grants } = hypervisor;
  const index = grants.frameCount[slot]!;
  const first = grants.row(slot, index * REFS_PER_FRAME);
  for (const column of [grants.pin, grants.frame, grants.first, grants.notify]) {
    column.fill(0, first, first + REFS_PER_FRAME);
  }
  grants.sharedFrame[slot * grants.framesMax + index] = mfn + 1;
  Atomics.store(grants.frameCount, slot, index + 1);
};
