/**
 * Giving a domain RAM and taking it back, in runs of guest frames: what populate_physmap, decrease_reservation,
 * memory.grow and the domain builder are made of. Long runs are made in slices; between two slices no lock is held.
 */
import { allocateDomainRun, restoreClaim, setClaim, unassignPages } from "./accounting.ts";
import { hookRun, unhookRun } from "./address-space.ts";
import { freeRun } from "./buddy.ts";
import type { FrameRun } from "./buddy.ts";
import { popUnhooked, putFrame, releaseFrame } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isRam, P2M_FOREIGN, P2M_HOLE, P2M_RAM, p2mType } from "./p2m.ts";
import { RAM_RUNS_MAX, RamRuns } from "./ram-runs.ts";

/** Guest frames that one slice, one hold of the p2m lock, may change: 512 MiB. */
export const SLICE_FRAMES_MAX = 131_072;

/** What populating `count` gfns came to. */
export interface Populated {
  /** Gfns populated, counted from the first. */
  count: number;
  /** The gfn at which it stopped because something other than RAM stands there, or -1. */
  blockedGfn: number;
  /** Why it stopped, or 0: all of it is done, or something stands in the way. */
  error: number;
}

const run: FrameRun = { mfn: 0, count: 0, claimed: 0 };
const displaced = new RamRuns();
const removed = new RamRuns();

/**
 * Populates `count` gfns from `gfn` with zeroed RAM of the domain in `slot`, in as few contiguous machine runs as there
 * are. RAM that stands there already is unhooked and stays owned. Stops at the first failure and says so in `outcome`.
 */
export const populateRun = (
  hypervisor: Hypervisor,
  slot: number,
  gfn: number,
  count: number,
  outcome: Populated,
): void => {
  const { locks, p2m } = hypervisor;
  const lock = locks.id("p2m", slot);
  const end = Math.min(gfn + count, p2m.gfnCount);
  outcome.count = 0;
  outcome.blockedGfn = -1;
  outcome.error = 0;
  while (gfn + outcome.count < end && outcome.error === 0 && outcome.blockedGfn < 0) {
    locks.acquire(lock);
    populateSlice(hypervisor, slot, gfn + outcome.count, end, outcome);
    locks.release(lock);
  }
};

/**
 * Takes `count` gfns from `gfn` away from the domain in `slot` and frees their frames, or lets go of those that others
 * still hold. Returns how many were taken: fewer when one is not RAM or too many mappings would be needed.
 */
export const depopulateRun = (hypervisor: Hypervisor, slot: number, gfn: number, count: number): number => {
  const { locks, p2m } = hypervisor;
  const lock = locks.id("p2m", slot);
  const end = Math.min(gfn + count, p2m.gfnCount);
  let at = gfn;
  while (at < end) {
    locks.acquire(lock);
    const found = removed.collect(hypervisor, slot, at, Math.min(end - at, SLICE_FRAMES_MAX));
    const isUnhooked = found > 0 && unhookRun(hypervisor, slot, at, found) === 0;
    if (isUnhooked) removed.drop(hypervisor);
    locks.release(lock);
    if (!isUnhooked) break;
    removed.free(hypervisor, slot);
    at += found;
  }
  return at - gfn;
};

/**
 * Takes everything away from a dying domain, at most `frameCount` gfns and frames at a time, from the top. True when
 * nothing is left but frames that others hold. The address space is detached; `gfnEnd` is the cursor.
 */
export const relinquishMemory = (hypervisor: Hypervisor, slot: number, frameCount: number): boolean => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("p2m", slot);
  setClaim(hypervisor, slot, 0);
  hypervisor.frames.memoryMaps.count[slot] = 0;
  let left = frameCount;
  while (left > 0 && domains.gfnEnd[slot]! > 0) {
    locks.acquire(lock);
    left -= skipHoles(hypervisor, slot) ? 1 : relinquishTop(hypervisor, slot, Math.min(left, RAM_RUNS_MAX));
    locks.release(lock);
    removed.free(hypervisor, slot);
  }
  for (; left > 0; left -= 1) {
    const mfn = popUnhooked(hypervisor, slot);
    if (mfn < 0) return domains.gfnEnd[slot] === 0;
    releaseFrame(hypervisor, slot, mfn);
  }
  return false;
};

/** Populates the first gfns of a range that are all holes, or all RAM, adding to `outcome`. Under the p2m lock. */
const populateSlice = (hypervisor: Hypervisor, slot: number, gfn: number, end: number, outcome: Populated): void => {
  const entry = hypervisor.p2m.get(slot, gfn);
  const isHole = entry === P2M_HOLE;
  if (!isHole && !isRam(entry)) {
    outcome.blockedGfn = gfn;
    return;
  }
  const limit = Math.min(end - gfn, SLICE_FRAMES_MAX);
  const length = isHole ? holeLength(hypervisor, slot, gfn, limit) : displaced.collect(hypervisor, slot, gfn, limit);
  let done = 0;
  while (done < length && outcome.error === 0) {
    const placed = populateOnce(hypervisor, slot, gfn + done, length - done, isHole);
    if (placed < 0) outcome.error = placed;
    else done += placed;
  }
  outcome.count += done;
};

/** Allocates one machine run and hooks it; returns its length, or an errno with nothing changed. */
const populateOnce = (hypervisor: Hypervisor, slot: number, gfn: number, countMax: number, isHole: boolean): number => {
  const allocated = allocateDomainRun(hypervisor, slot, countMax, run);
  if (allocated !== 0) return allocated;
  if (!isHole) displaced.collect(hypervisor, slot, gfn, run.count);
  const result = hookRun(hypervisor, slot, gfn, run.mfn, run.count, P2M_RAM);
  if (result !== 0) {
    giveBack(hypervisor, slot);
    return result;
  }
  if (!isHole) displaced.keep(hypervisor, slot);
  return run.count;
};

/** Undoes the allocation in `run`. */
const giveBack = (hypervisor: Hypervisor, slot: number): void => {
  hypervisor.frames.refs.fill(0, run.mfn, run.mfn + run.count);
  freeRun(hypervisor, run.mfn, run.count);
  restoreClaim(hypervisor, slot, run.claimed);
  unassignPages(hypervisor, slot, run.count);
};

/** How many gfns from `gfn`, at most `countMax`, are holes. */
const holeLength = (hypervisor: Hypervisor, slot: number, gfn: number, countMax: number): number => {
  const { entries } = hypervisor.p2m;
  const first = hypervisor.p2m.at(slot, gfn);
  let at = first;
  while (at < first + countMax && entries[at] === P2M_HOLE) at += 1;
  return at - first;
};

/** Lowers `gfnEnd` to behind the highest gfn that is no hole; true when it moved. Under the p2m lock. */
const skipHoles = (hypervisor: Hypervisor, slot: number): boolean => {
  const { domains, p2m } = hypervisor;
  const end = domains.gfnEnd[slot]!;
  const first = p2m.at(slot, 0);
  let at = first + end;
  while (at > first && p2m.entries[at - 1] === P2M_HOLE) at -= 1;
  domains.gfnEnd[slot] = at - first;
  return at - first < end;
};

/** Unhooks up to `countMax` gfns below `gfnEnd` and lowers it; leaves their RAM in `removed`. Under the p2m lock. */
const relinquishTop = (hypervisor: Hypervisor, slot: number, countMax: number): number => {
  const { domains, p2m } = hypervisor;
  const end = domains.gfnEnd[slot]!;
  let gfn = end;
  if (p2mType(p2m.get(slot, end - 1)) === P2M_FOREIGN) return relinquishForeign(hypervisor, slot, end - 1);
  const lowest = Math.max(0, end - countMax);
  const isTopRam = isRam(p2m.get(slot, end - 1));
  while (gfn > lowest && isOfKind(p2m.get(slot, gfn - 1), isTopRam)) gfn -= 1;
  removed.collect(hypervisor, slot, gfn, isTopRam ? end - gfn : 0);
  if (unhookRun(hypervisor, slot, gfn, end - gfn, true) === 0) {
    removed.drop(hypervisor);
    domains.gfnEnd[slot] = gfn;
  } else {
    removed.collect(hypervisor, slot, gfn, 0);
  }
  return end - gfn;
};

/** RAM, or something that goes without more ado. */
const isOfKind = (entry: number, isRamWanted: boolean): boolean =>
  isRam(entry) === isRamWanted && p2mType(entry) !== P2M_FOREIGN;

/** Lets go of another domain's frame that stands at the highest gfn. Under the p2m lock. */
const relinquishForeign = (hypervisor: Hypervisor, slot: number, gfn: number): number => {
  const mfn = hypervisor.p2m.get(slot, gfn) >>> 4;
  if (unhookRun(hypervisor, slot, gfn, 1, true) === 0) {
    hypervisor.domains.gfnEnd[slot] = gfn;
    putFrame(hypervisor, mfn);
  }
  return 1;
};
