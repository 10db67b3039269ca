/**
 * References to frames, and how frames are freed. A frame is freed when its last reference goes: the owner's
 * (allocation) reference or that of a user who must not see it freed: a grant, a registered vcpu_info, an I/O in
 * flight. Until then its owner keeps it in the accounts, on its list of unhooked frames.
 */
import assert from "node:assert/strict";
import { unassignPages } from "./accounting.ts";
import { freeRun } from "./buddy.ts";
import { FRAME_REFS_MAX, FRAME_RELEASED, FRAME_UNHOOKED, HYPERVISOR_OWNER } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isRam } from "./p2m.ts";

/**
 * Takes a reference on the RAM frame at `gfn` of the domain in `slot`: lookup and reference are one step. Returns the
 * frame, or -1: no RAM of the domain's own is there, or the frame has as many references as it can have.
 */
export const getFrame = (hypervisor: Hypervisor, slot: number, gfn: number): number => {
  const { locks, p2m } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const entry = p2m.get(slot, gfn);
  const isTaken = isRam(entry) && addReference(hypervisor, entry >>> 4);
  locks.release(lock);
  return isTaken ? entry >>> 4 : -1;
};

/** Adds a reference to a frame that cannot be freed meanwhile. False: it has as many as it can have. */
export const addReference = (hypervisor: Hypervisor, mfn: number): boolean => {
  const { refs } = hypervisor.frames;
  for (;;) {
    const count = Atomics.load(refs, mfn);
    assert(count > 0);
    if (count >= FRAME_REFS_MAX) return false;
    if (Atomics.compareExchange(refs, mfn, count, count + 1) === count) return true;
  }
};

/** Drops a reference; the last one frees the frame. May take the owner's pages lock. */
export const putFrame = (hypervisor: Hypervisor, mfn: number): void => {
  const before = hypervisor.words.sub(hypervisor.frames.refsStart + mfn * 4, 1);
  assert(before > 0);
  if (before === 1) freeFrame(hypervisor, mfn);
};

/**
 * Drops the owner's reference to a frame that is hooked nowhere any more. The frame is freed, or, while others hold
 * references, waits for them on the owner's list of unhooked frames.
 */
export const releaseFrame = (hypervisor: Hypervisor, slot: number, mfn: number): void => {
  const { frames, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  assert(frames.owner[mfn] === slot + 1);
  assert((frames.flags[mfn]! & FRAME_RELEASED) === 0);
  if ((frames.flags[mfn]! & FRAME_UNHOOKED) === 0) linkUnhooked(hypervisor, slot, mfn);
  frames.flags[mfn]! |= FRAME_RELEASED;
  locks.release(lock);
  putFrame(hypervisor, mfn);
};

/** Frees a run of the domain's frames that nothing names any more: no references, no mapping, no list. */
export const freeDomainRun = (hypervisor: Hypervisor, slot: number, mfn: number, count: number): void => {
  assert(hypervisor.frames.owner[mfn] === slot + 1);
  freeRun(hypervisor, mfn, count);
  unassignPages(hypervisor, slot, count);
};

/** Puts a frame, just unhooked, on its owner's list of unhooked frames: still owned, still counted. */
export const keepUnhooked = (hypervisor: Hypervisor, slot: number, mfn: number): void => {
  const { frames, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  assert(frames.owner[mfn] === slot + 1);
  linkUnhooked(hypervisor, slot, mfn);
  locks.release(lock);
};

/** Takes a frame off its owner's list of unhooked frames, because it is going to be hooked again. */
export const takeUnhooked = (hypervisor: Hypervisor, slot: number, mfn: number): void => {
  const { locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  unlinkUnhooked(hypervisor, slot, mfn);
  locks.release(lock);
};

/** The first unhooked frame that the domain has not released, taken off the list; -1: there is none. */
export const popUnhooked = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, frames, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  let mfn = domains.unhooked[slot]! - 1;
  while (mfn >= 0 && (frames.flags[mfn]! & FRAME_RELEASED) !== 0) mfn = frames.next[mfn]! - 1;
  if (mfn >= 0) unlinkUnhooked(hypervisor, slot, mfn);
  locks.release(lock);
  return mfn;
};

const freeFrame = (hypervisor: Hypervisor, mfn: number): void => {
  const { frames, locks } = hypervisor;
  const owner = frames.owner[mfn]!;
  assert(owner !== 0);
  if (owner === HYPERVISOR_OWNER) {
    freeRun(hypervisor, mfn, 1);
    return;
  }
  const slot = owner - 1;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  if ((frames.flags[mfn]! & FRAME_UNHOOKED) !== 0) unlinkUnhooked(hypervisor, slot, mfn);
  locks.release(lock);
  freeDomainRun(hypervisor, slot, mfn, 1);
};

/** Under the owner's pages lock. */
const linkUnhooked = (hypervisor: Hypervisor, slot: number, mfn: number): void => {
  const { domains, frames } = hypervisor;
  assert((frames.flags[mfn]! & FRAME_UNHOOKED) === 0);
  assert(frames.gfn[mfn] === 0);
  const head = domains.unhooked[slot]!;
  frames.flags[mfn]! |= FRAME_UNHOOKED;
  frames.prev[mfn] = 0;
  frames.next[mfn] = head;
  if (head !== 0) frames.prev[head - 1] = mfn + 1;
  domains.unhooked[slot] = mfn + 1;
};

/** Under the owner's pages lock. */
const unlinkUnhooked = (hypervisor: Hypervisor, slot: number, mfn: number): void => {
  const { domains, frames } = hypervisor;
  assert((frames.flags[mfn]! & FRAME_UNHOOKED) !== 0);
  const next = frames.next[mfn]!;
  const prev = frames.prev[mfn]!;
  if (next !== 0) frames.prev[next - 1] = prev;
  if (prev !== 0) frames.next[prev - 1] = next;
  else domains.unhooked[slot] = next;
  frames.flags[mfn]! &= ~FRAME_UNHOOKED;
  frames.next[mfn] = 0;
  frames.prev[mfn] = 0;
};
