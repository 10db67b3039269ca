/**
 * Extents: runs of a domain's frames that the control domain shares as a whole. An extent holds a reference on each of
 * its frames, so they stay what they are whatever their owner does with its gfns, until it is closed and its last
 * mapping is gone. What a mapping of one is, extent-map.ts says; how it is taken back, extent-revoke.ts.
 *
 * Names of extents are numbers that are never used for two: a stale one names nothing.
 */
import { EINVAL, ENOENT, ENOSPC, ESRCH } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import { countUp } from "./address-space.ts";
import { EXTENT_CLOSED, EXTENT_FREE, EXTENT_OF_FRAMES, EXTENT_OF_SECRETS, EXTENT_OPEN } from "./extent-table.ts";
import { addReference, putFrame } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { P2M_EXTENT_RO, P2M_RAM, p2mEntry, p2mType } from "./p2m.ts";

/** An extent's name is its row and the low bits of the row's serial. */
const ROW_SPAN = 2 ** 20;

/**
 * How many gfns from `gfn`, at most `countMax`, of the domain in `slot` are its RAM in consecutive frames of one bank:
 * what one extent can hold.
 */
export const extentRunLength = (hypervisor: Hypervisor, slot: number, gfn: number, countMax: number): number => {
  const { locks, p2m } = hypervisor;
  const lock = locks.id("p2m", slot);
  if (!p2m.contains(gfn)) return 0;
  locks.acquire(lock);
  const length = contiguousLength(hypervisor, slot, gfn, Math.min(countMax, p2m.gfnCount - gfn));
  locks.release(lock);
  return length;
};

/**
 * Makes an extent of `count` gfns from `gfn` of the domain in `slot`; returns its name. -EINVAL: they are not RAM in
 * consecutive frames of one bank, or have as many references as they can have, -ESRCH: the domain is dying, -ENOSPC:
 * there are as many extents as there can be.
 */
export const createExtent = (hypervisor: Hypervisor, slot: number, gfn: number, count: number): number => {
  const { extents, locks, p2m } = hypervisor;
  if (!p2m.contains(gfn, count)) return -EINVAL;
  if (!isAlive(hypervisor, slot)) return -ESRCH;
  const row = extents.state.indexOf(EXTENT_FREE);
  if (row < 0) return -ENOSPC;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const mfn = p2m.get(slot, gfn) >>> 4;
  const isHeld =
    contiguousLength(hypervisor, slot, gfn, count) === count && holdFrames(hypervisor, mfn, count) === count;
  locks.release(lock);
  if (!isHeld) return -EINVAL;
  extents.kind[row] = EXTENT_OF_FRAMES;
  extents.granter[row] = slot;
  extents.gfn[row] = gfn;
  extents.mfn[row] = mfn;
  extents.count[row] = count;
  extents.mappings[row] = 0;
  extents.first[row] = 0;
  extents.serial[row]! += 1;
  const entries = new Uint32Array(count);
  countUp(entries, 0, count, p2mEntry(mfn, P2M_EXTENT_RO));
  extents.entries.set(row, entries);
  Atomics.store(extents.state, row, EXTENT_OPEN);
  return extentName(hypervisor, row);
};

/**
 * No further mapping of the extent: it is given back at once, or with its last mapping. 0, or -ENOENT: it is not open.
 */
export const closeExtent = (hypervisor: Hypervisor, extent: number): number => {
  const { extents } = hypervisor;
  const row = extentRow(hypervisor, extent);
  if (row < 0 || extents.state[row] !== EXTENT_OPEN) return -ENOENT;
  extents.state[row] = EXTENT_CLOSED;
  dropUnused(hypervisor, row);
  return 0;
};

/** Whether the extent is there and can be mapped. */
export const isExtentOpen = (hypervisor: Hypervisor, extent: number): boolean => {
  const row = extentRow(hypervisor, extent);
  return row >= 0 && hypervisor.extents.state[row] === EXTENT_OPEN;
};

/** Row of the extent of that name, or -1: it is gone. */
export const extentRow = (hypervisor: Hypervisor, extent: number): number => {
  const { extents } = hypervisor;
  const row = extent % ROW_SPAN;
  const isThere = extent >= 0 && row < extents.rowCount && extents.state[row] !== EXTENT_FREE;
  return isThere && extentName(hypervisor, row) === extent ? row : -1;
};

/** Name of the extent in `row`. */
export const extentName = ({ extents }: Hypervisor, row: number): number => extents.serial[row]! * ROW_SPAN + row;

/** Gives an extent's frames back if it is closed and nowhere mapped. */
export const dropUnused = (hypervisor: Hypervisor, row: number): void => {
  const { extents } = hypervisor;
  if (extents.state[row] !== EXTENT_CLOSED || extents.mappings[row] !== 0) return;
  extents.entries.delete(row);
  if (extents.kind[row] === EXTENT_OF_SECRETS) {
    Atomics.store(extents.state, row, EXTENT_FREE);
    return;
  }
  releaseFrames(hypervisor, extents.granter[row]!, extents.mfn[row]!, extents.count[row]!);
  Atomics.store(extents.state, row, EXTENT_FREE);
};

/** Under the slot's p2m lock. */
const contiguousLength = (hypervisor: Hypervisor, slot: number, gfn: number, countMax: number): number => {
  const { frames, p2m } = hypervisor;
  const first = p2m.at(slot, gfn);
  const entry = p2m.entries[first]!;
  if (p2mType(entry) !== P2M_RAM) return 0;
  const count = Math.min(countMax, frames.framesPerBank - ((entry >>> 4) % frames.framesPerBank));
  let length = 1;
  while (length < count && p2m.entries[first + length] === entry + length * 16) length += 1;
  return length;
};

/**
 * Takes a reference on each frame, under their owner's p2m lock; returns how many frames that are, or 0: one could take
 * none. A frame that only its owner holds is nobody else's to change under that lock: it needs no atomic operation.
 */
const holdFrames = (hypervisor: Hypervisor, mfn: number, count: number): number => {
  const { refs } = hypervisor.frames;
  for (let frame = mfn; frame < mfn + count; frame += 1) {
    if (refs[frame] === 1) refs[frame] = 2;
    else if (!addReference(hypervisor, frame)) {
      // The owner's reference is still there: none of these is the last.
      for (let held = mfn; held < frame; held += 1) Atomics.sub(refs, held, 1);
      return 0;
    }
  }
  return count;
};

/** Drops a reference on each frame; those that the owner has given up meanwhile are freed. */
const releaseFrames = (hypervisor: Hypervisor, slot: number, mfn: number, count: number): void => {
  const { frames, locks } = hypervisor;
  const lock = locks.id("p2m", slot);
  const others: number[] = [];
  locks.acquire(lock);
  for (let frame = mfn; frame < mfn + count; frame += 1) {
    // Hooked, the owner's reference is there for as long as the lock is held; the other one is ours.
    if (frames.gfn[frame] !== 0 && frames.refs[frame] === 2) frames.refs[frame] = 1;
    else others.push(frame);
  }
  locks.release(lock);
  for (const frame of others) putFrame(hypervisor, frame);
};
