/**
 * Who owns how much. `totPages` counts the frames that a domain owns, until the last reference to each is gone;
 * `maxPages` bounds it, and is looked at only where it grows. A claim sets free frames aside for a domain that is still
 * being built; what it allocates uses the claim up.
 *
 * A domain's figures change under its pages lock, the sums under the allocator lock inside it.
 * Source: spec of XENMEM and of XEN_DOMCTL_max_mem in xen/include/public/memory.h and domctl.h.
 */
import { E2BIG, EINVAL, ENOMEM, EPERM } from "@xenolith/abi";
import assert from "node:assert/strict";
import { ATTENTION_REQUEST } from "./attention.ts";
import { ownRun, takeBlock, takeRun } from "./buddy.ts";
import type { FrameRun } from "./buddy.ts";
import { TOTAL_CLAIMED, TOTAL_FREE } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** Frames claimed by all domains and not yet allocated. */
export const outstandingClaims = (hypervisor: Hypervisor): number =>
  Atomics.load(hypervisor.frames.totals, TOTAL_CLAIMED);

/** Frames that nobody owns, and how many of them are claimed. */
export interface FreeFrames {
  free: number;
  claimed: number;
}

const totals: FreeFrames = { free: 0, claimed: 0 };

/**
 * Both sums at one moment: while a block is being split, the one of free frames alone is too low. The caller's to read
 * until its next call.
 */
export const freeFramesNow = ({ frames, locks }: Hypervisor): Readonly<FreeFrames> => {
  const lock = locks.id("allocator");
  locks.acquire(lock);
  totals.free = frames.totals[TOTAL_FREE]!;
  totals.claimed = frames.totals[TOTAL_CLAIMED]!;
  locks.release(lock);
  return totals;
};

/**
 * Allocates one contiguous run of at most `countMax` frames for the domain in `slot`, in its accounts and with one
 * reference each, and says in `out` which. 0, -EINVAL: it is dying, -EPERM or -E2BIG: it owns all that it may, -ENOMEM:
 * no frame is free of claims.
 */
export const allocateDomainRun = (hypervisor: Hypervisor, slot: number, countMax: number, out: FrameRun): number => {
  const { domains, frames, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  let result = checkRoom(hypervisor, slot, 1);
  if (result === 0) {
    const room = domains.maxPages[slot]! - domains.totPages[slot]!;
    if (!takeUnclaimed(hypervisor, slot, Math.min(countMax, room), out)) result = -ENOMEM;
  }
  if (result === 0) {
    ownRun(frames, out.mfn, out.count, slot + 1);
    addPages(hypervisor, slot, out.count);
  }
  locks.release(lock);
  return result;
};

/** Frames that the domain in `slot` could allocate at this moment; 0 when it is dying. */
export const roomFor = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  const allocator = locks.id("allocator");
  locks.acquire(lock);
  locks.acquire(allocator);
  const allowed = domains.maxPages[slot]! - domains.totPages[slot]!;
  const room = isAlive(hypervisor, slot) ? Math.min(allowed, availableTo(hypervisor, slot)) : 0;
  locks.release(allocator);
  locks.release(lock);
  return Math.max(0, room);
};

/** As `allocateDomainRun`, but exactly one aligned block of 2^`order` frames. Returns its first frame or an errno. */
export const allocateDomainBlock = (hypervisor: Hypervisor, slot: number, order: number): number => {
  const { frames, locks } = hypervisor;
  const count = 2 ** order;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  let result = checkRoom(hypervisor, slot, count);
  if (result === 0) {
    const allocator = locks.id("allocator");
    locks.acquire(allocator);
    result = availableTo(hypervisor, slot) >= count ? takeBlock(frames, order) : -1;
    if (result >= 0) consumeClaim(hypervisor, slot, count);
    else result = -ENOMEM;
    locks.release(allocator);
  }
  if (result >= 0) {
    ownRun(frames, result, count, slot + 1);
    addPages(hypervisor, slot, count);
  }
  locks.release(lock);
  return result;
};

/**
 * Allocates one block of 2^`order` frames that will take the place of as many others of the domain: its, with one
 * reference each, but not counted. Returns its first frame, -EINVAL: the domain is dying, or -ENOMEM.
 */
export const allocateReplacement = (hypervisor: Hypervisor, slot: number, order: number): number => {
  const { frames, locks } = hypervisor;
  const count = 2 ** order;
  const lock = locks.id("pages", slot);
  const allocator = locks.id("allocator");
  locks.acquire(lock);
  let result = isAlive(hypervisor, slot) ? -ENOMEM : -EINVAL;
  if (result === -ENOMEM) {
    locks.acquire(allocator);
    const mfn = availableTo(hypervisor, slot) >= count ? takeBlock(frames, order) : -1;
    locks.release(allocator);
    if (mfn >= 0) {
      ownRun(frames, mfn, count, slot + 1);
      result = mfn;
    }
  }
  locks.release(lock);
  return result;
};

/** Counts `count` frames that could not be taken back from the domain: it has them, whatever it may have. */
export const countPages = (hypervisor: Hypervisor, slot: number, count: number): void => {
  const lock = hypervisor.locks.id("pages", slot);
  hypervisor.locks.acquire(lock);
  addPages(hypervisor, slot, count);
  hypervisor.locks.release(lock);
};

/**
 * Enters `count` frames, which the domain got by other means than allocation, in its accounts. 0, -EINVAL: it is dying
 * or `count` is no number of frames, -EPERM: it owns more than it may already, -E2BIG: it would.
 */
export const assignPages = (hypervisor: Hypervisor, slot: number, count: number): number => {
  const { locks } = hypervisor;
  if (!Number.isSafeInteger(count) || count <= 0) return -EINVAL;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  const result = checkRoom(hypervisor, slot, count);
  if (result === 0) {
    const allocator = locks.id("allocator");
    locks.acquire(allocator);
    consumeClaim(hypervisor, slot, count);
    locks.release(allocator);
    addPages(hypervisor, slot, count);
  }
  locks.release(lock);
  return result;
};

/** Takes `count` frames out of the domain's accounts. The last one gives up its hold on the domain's row. */
export const unassignPages = (hypervisor: Hypervisor, slot: number, count: number): void => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  assert(count > 0 && count <= domains.totPages[slot]!);
  domains.totPages[slot]! -= count;
  const isLast = domains.totPages[slot] === 0;
  locks.release(lock);
  if (isLast) dropDomain(hypervisor, slot);
};

/** Drops a reference to the row of the domain in `slot`. The last one lets a dead domain's row go. */
export const dropDomain = (hypervisor: Hypervisor, slot: number): void => {
  const { attention, domains } = hypervisor;
  const before = Atomics.sub(domains.references, slot, 1);
  assert(before > 0);
  if (before === 1 && domains.stateOf(slot) === "dead") attention.raise(ATTENTION_REQUEST);
};

/** Gives `claimed` frames of an allocation that was undone back to the domain's claim. */
export const restoreClaim = (hypervisor: Hypervisor, slot: number, claimed: number): void => {
  const { domains, frames, locks } = hypervisor;
  if (claimed === 0) return;
  const lock = locks.id("allocator");
  locks.acquire(lock);
  domains.claim[slot]! += claimed;
  Atomics.add(frames.totals, TOTAL_CLAIMED, claimed);
  locks.release(lock);
};

/**
 * Sets memory aside so that the domain can come to own `pages` frames; 0 cancels its claim. 0, -EINVAL: there is a claim
 * already, or `pages` is not between what it owns and what it may own, or it is dying, -ENOMEM: too little is free.
 */
export const setClaim = (hypervisor: Hypervisor, slot: number, pages: number): number =>
  changeClaim(hypervisor, slot, (held, total, max) => {
    if (pages === 0) return 0;
    const isWanted = held === 0 && pages > total && pages <= max && isAlive(hypervisor, slot);
    return isWanted ? pages - total : -EINVAL;
  });

/**
 * As `setClaim`, in place of the claim that the domain has, and without harm when it owns `pages` already: then it has
 * none. -EINVAL: `pages` is more than it may own, or it is dying, -ENOMEM: too little is free; the old claim stays.
 */
export const replaceClaim = (hypervisor: Hypervisor, slot: number, pages: number): number =>
  changeClaim(hypervisor, slot, (_held, total, max) => {
    const isWanted = pages >= 0 && pages <= max && isAlive(hypervisor, slot);
    return isWanted ? Math.max(0, pages - total) : -EINVAL;
  });

/** The claim that a domain is to have, out of what it has claimed, owns and may own; or a negative errno. */
type ClaimRule = (held: number, total: number, max: number) => number;

/** Changes a claim by a rule, under both locks. 0, what the rule says, or -ENOMEM: too little is free; then nothing changed. */
const changeClaim = (hypervisor: Hypervisor, slot: number, rule: ClaimRule): number => {
  const { domains, frames, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  const allocator = locks.id("allocator");
  locks.acquire(lock);
  locks.acquire(allocator);
  const held = domains.claim[slot]!;
  let result = rule(held, domains.totPages[slot]!, domains.maxPages[slot]!);
  if (result - held > frames.totals[TOTAL_FREE]! - frames.totals[TOTAL_CLAIMED]!) result = -ENOMEM;
  if (result >= 0) {
    domains.claim[slot] = result;
    Atomics.add(frames.totals, TOTAL_CLAIMED, result - held);
    result = 0;
  }
  locks.release(allocator);
  locks.release(lock);
  return result;
};

/** Whether the domain in `slot` exists and is not dying: only then may it come to own more. */
export const isAlive = (hypervisor: Hypervisor, slot: number): boolean => {
  const state = hypervisor.domains.stateOf(slot);
  return state !== "free" && state !== "dying" && state !== "dead";
};

/** Whether the domain may come to own `count` frames more. Written so that nothing can wrap. Under its pages lock. */
const checkRoom = (hypervisor: Hypervisor, slot: number, count: number): number => {
  const { domains } = hypervisor;
  const max = domains.maxPages[slot]!;
  const total = domains.totPages[slot]!;
  if (!isAlive(hypervisor, slot)) return -EINVAL;
  if (total > max) return -EPERM;
  return count > max - total ? -E2BIG : 0;
};

/** Takes a run of frames that no other domain has claimed. Under the pages lock. False: there are none. */
const takeUnclaimed = (hypervisor: Hypervisor, slot: number, countMax: number, out: FrameRun): boolean => {
  const { frames, locks } = hypervisor;
  const lock = locks.id("allocator");
  locks.acquire(lock);
  const count = Math.min(countMax, availableTo(hypervisor, slot));
  const isTaken = count > 0 && takeRun(frames, count, out);
  if (isTaken) out.claimed = consumeClaim(hypervisor, slot, out.count);
  locks.release(lock);
  return isTaken;
};

/** Free frames less what others have claimed. Under the allocator lock. */
const availableTo = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, frames } = hypervisor;
  return frames.totals[TOTAL_FREE]! - (frames.totals[TOTAL_CLAIMED]! - domains.claim[slot]!);
};

/** Uses up to `count` frames of the domain's claim; returns how many. Under the allocator lock. */
const consumeClaim = (hypervisor: Hypervisor, slot: number, count: number): number => {
  const { domains, frames } = hypervisor;
  const used = Math.min(count, domains.claim[slot]!);
  if (used === 0) return 0;
  domains.claim[slot]! -= used;
  Atomics.sub(frames.totals, TOTAL_CLAIMED, used);
  return used;
};

/** The first page takes a reference on the domain's row, which keeps it while anything is owned. */
const addPages = (hypervisor: Hypervisor, slot: number, count: number): void => {
  const { domains } = hypervisor;
  if (domains.totPages[slot] === 0) Atomics.add(domains.references, slot, 1);
  domains.totPages[slot]! += count;
  if (domains.totPages[slot]! > domains.peakPages[slot]!) domains.peakPages[slot] = domains.totPages[slot]!;
};
