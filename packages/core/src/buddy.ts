/**
 * The frame allocator: a buddy system over all banks. A block is 2^order frames, aligned to its size inside its bank, so
 * it never crosses one. Lists hold block heads only: taking or giving back a run of n frames touches O(log n) rows,
 * besides the columns of the frames themselves.
 *
 * Only zero, non-resident frames come in (see frame-table.ts), so what goes out is zero.
 */
import assert from "node:assert/strict";
import { FRAME_FREE_HEAD, HYPERVISOR_OWNER, TOTAL_CLAIMED, TOTAL_FREE, TOTAL_ORDERS } from "./frame-table.ts";
import type { FrameTable } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { scrubRun } from "./scrub.ts";

/** A run of machine frames of one bank, filled in by the callee so that no hot path allocates. */
export interface FrameRun {
  mfn: number;
  count: number;
  /** How many of them came out of a claim (accounting.ts). */
  claimed: number;
}

/** Frames that nobody owns, claimed or not. */
export const freeFrameCount = (hypervisor: Hypervisor): number => Atomics.load(hypervisor.frames.totals, TOTAL_FREE);

/** Puts every machine frame on the free lists, in as few blocks as alignment allows. Called once, at boot. */
export const layFreeFrames = (hypervisor: Hypervisor): void => {
  const { frames, locks } = hypervisor;
  const lock = locks.id("allocator");
  locks.acquire(lock);
  assert(frames.totals[TOTAL_FREE] === 0);
  for (let first = 0; first < frames.count; first += frames.framesPerBank) {
    insertRun(frames, first, Math.min(frames.framesPerBank, frames.count - first));
  }
  locks.release(lock);
};

/**
 * Takes one block of 2^`order` unclaimed frames for the hypervisor: owner HYPERVISOR_OWNER, one reference each. Returns
 * the first frame, or -1 when there is none.
 */
export const allocateFrames = (hypervisor: Hypervisor, order: number): number => {
  const { frames, locks } = hypervisor;
  const count = 2 ** order;
  const lock = locks.id("allocator");
  locks.acquire(lock);
  const unclaimed = frames.totals[TOTAL_FREE]! - frames.totals[TOTAL_CLAIMED]!;
  const mfn = count <= unclaimed ? takeBlock(frames, order) : -1;
  locks.release(lock);
  if (mfn >= 0) ownRun(frames, mfn, count, HYPERVISOR_OWNER);
  return mfn;
};

/** Gives back what `allocateFrames` returned. Every reference but the first must be gone. Scrubs first. */
export const freeFrames = (hypervisor: Hypervisor, mfn: number, order: number): void => {
  const { frames } = hypervisor;
  const count = 2 ** order;
  for (let index = mfn; index < mfn + count; index += 1) {
    assert(frames.owner[index] === HYPERVISOR_OWNER);
    assert(Atomics.load(frames.refs, index) === 1);
    frames.refs[index] = 0;
  }
  freeRun(hypervisor, mfn, count);
};

/**
 * Takes frame 0 out for good, while all frames are free: a machine address of 0 means "none" in the tables, so nothing
 * that can be named by its address may stand there.
 */
export const withholdFirstFrame = (hypervisor: Hypervisor): void => {
  const { frames, locks } = hypervisor;
  const lock = locks.id("allocator");
  locks.acquire(lock);
  assert((frames.flags[0]! & FRAME_FREE_HEAD) !== 0);
  const count = 2 ** frames.order[0]!;
  unlink(frames, 0, frames.order[0]!);
  if (count > 1) insertRun(frames, 1, count - 1);
  ownRun(frames, 0, 1, HYPERVISOR_OWNER);
  locks.release(lock);
};

/**
 * Scrubs `count` frames from `mfn` and puts them on the free lists. Nothing names them any more: no references, no
 * mapping, no list. Takes the allocator lock; may be called under a pages lock.
 */
export const freeRun = (hypervisor: Hypervisor, mfn: number, count: number): void => {
  const { frames, locks } = hypervisor;
  scrubRun(hypervisor, mfn, count);
  frames.owner.fill(0, mfn, mfn + count);
  frames.flags.fill(0, mfn, mfn + count);
  const lock = locks.id("allocator");
  locks.acquire(lock);
  insertRun(frames, mfn, count);
  locks.release(lock);
};

/** Makes `count` frames from `mfn`, just taken from the free lists, `owner`'s, with one reference each. */
export const ownRun = (frames: FrameTable, mfn: number, count: number, owner: number): void => {
  frames.owner.fill(owner, mfn, mfn + count);
  frames.refs.fill(1, mfn, mfn + count);
};

/** Takes the longest contiguous run of at most `countMax` free frames. Under the allocator lock; false: no frame left. */
export const takeRun = (frames: FrameTable, countMax: number, out: FrameRun): boolean => {
  assert(countMax > 0);
  const orders = frames.totals[TOTAL_ORDERS]!;
  if (orders === 0) return false;
  const wanted = 32 - Math.clz32(countMax - 1);
  const order = wanted < 32 && orders >>> wanted !== 0 ? wanted : 31 - Math.clz32(orders);
  const mfn = takeBlock(frames, order);
  assert(mfn >= 0);
  out.mfn = mfn;
  out.count = Math.min(countMax, 2 ** order);
  if (out.count < 2 ** order) insertRun(frames, mfn + out.count, 2 ** order - out.count);
  return true;
};

/** Takes a block of exactly 2^`order` frames, splitting a bigger one. Under the allocator lock; -1: none. */
export const takeBlock = (frames: FrameTable, order: number): number => {
  const orders = frames.totals[TOTAL_ORDERS]!;
  const fitting = order < 32 ? (orders >>> order) << order : 0;
  if (fitting === 0) return -1;
  let found = 31 - Math.clz32(fitting & -fitting);
  const mfn = frames.freeHead[found]! - 1;
  unlink(frames, mfn, found);
  while (found > order) {
    found -= 1;
    link(frames, mfn + 2 ** found, found);
  }
  return mfn;
};

/** Puts a run of one bank on the free lists, in aligned blocks that merge with free neighbours. Under the allocator lock. */
const insertRun = (frames: FrameTable, mfn: number, count: number): void => {
  let at = mfn;
  let left = count;
  while (left > 0) {
    const order = Math.min(alignmentOrder(frames, at), 31 - Math.clz32(left));
    insertBlock(frames, at, order);
    at += 2 ** order;
    left -= 2 ** order;
  }
};

const insertBlock = (frames: FrameTable, mfn: number, order: number): void => {
  const orderMax = 31 - Math.clz32(frames.framesPerBank);
  let head = mfn;
  let merged = order;
  while (merged < orderMax) {
    const buddy = head ^ (1 << merged);
    const isFree = buddy < frames.count && (frames.flags[buddy]! & FRAME_FREE_HEAD) !== 0;
    if (!isFree || frames.order[buddy] !== merged) break;
    unlink(frames, buddy, merged);
    head = Math.min(head, buddy);
    merged += 1;
  }
  link(frames, head, merged);
};

/** Largest order to which `mfn` is aligned inside its bank. Banks are a power of two long. */
const alignmentOrder = (frames: FrameTable, mfn: number): number => {
  const inBank = (mfn & (frames.framesPerBank - 1)) | frames.framesPerBank;
  return 31 - Math.clz32(inBank & -inBank);
};

const link = (frames: FrameTable, mfn: number, order: number): void => {
  const head = frames.freeHead[order]!;
  frames.flags[mfn] = FRAME_FREE_HEAD;
  frames.order[mfn] = order;
  frames.prev[mfn] = 0;
  frames.next[mfn] = head;
  if (head !== 0) frames.prev[head - 1] = mfn + 1;
  frames.freeHead[order] = mfn + 1;
  frames.totals[TOTAL_ORDERS]! |= 1 << order;
  Atomics.add(frames.totals, TOTAL_FREE, 2 ** order);
};

const unlink = (frames: FrameTable, mfn: number, order: number): void => {
  const next = frames.next[mfn]!;
  const prev = frames.prev[mfn]!;
  if (next !== 0) frames.prev[next - 1] = prev;
  if (prev !== 0) frames.next[prev - 1] = next;
  else frames.freeHead[order] = next;
  if (frames.freeHead[order] === 0) frames.totals[TOTAL_ORDERS]! &= ~(1 << order);
  frames.flags[mfn] = 0;
  frames.next[mfn] = 0;
  frames.prev[mfn] = 0;
  Atomics.sub(frames.totals, TOTAL_FREE, 2 ** order);
};
