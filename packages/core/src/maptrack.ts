/**
 * Taking and giving back rows of maptracks. A domain's free rows are linked; when none is left it takes another page
 * of the pool, up to its own limit. A row that is taken is MAPPING_PENDING and has a new serial.
 *
 * Memory order: a row becomes MAPPING_LIVE under the mapper's p2m lock, long after its serial changed, so a revoker that
 * finds it live and its serial unchanged has found the mapping that it meant. One that takes a new use of a row for the
 * pending mapping that it meant makes that one give up: a refusal that may always occur. A page's rows are in order
 * before the page can be named.
 */
import assert from "node:assert/strict";
import type { Hypervisor } from "./hypervisor.ts";
import { HANDLES_PER_PAGE, MAPPING_FREE, MAPPING_PENDING } from "./maptrack-table.ts";

/**
 * Takes up to `count` rows for the domain in `slot`: their handles go to `handles`, the rows to `rows`, both from index
 * `at`. Returns how many: fewer when the domain's limit or the pool is reached.
 */
export const allocHandles = (
  hypervisor: Hypervisor,
  slot: number,
  count: number,
  handles: Uint32Array,
  rows: Uint32Array,
  at = 0,
): number => {
  const { locks } = hypervisor;
  const lock = locks.id("maptrack", slot);
  let done = 0;
  locks.acquire(lock);
  while (done < count) {
    const taken = takeLinked(hypervisor, slot, count - done, handles, rows, at + done);
    done += taken;
    if (done < count && !grow(hypervisor, slot)) break;
  }
  locks.release(lock);
  return done;
};

/** Takes one row; returns its handle, or -1. */
export const allocHandle = (hypervisor: Hypervisor, slot: number): number => {
  const { locks } = hypervisor;
  const lock = locks.id("maptrack", slot);
  locks.acquire(lock);
  const handle = take(hypervisor, slot);
  locks.release(lock);
  return handle;
};

/**
 * Gives rows of plain mappings back: `handles[from]` ... `handles[end - 1]`. Nothing names them any more. A free row has
 * gfn, deviceGfn, local and notify 0 and count 1, so that who maps a batch need not write them.
 */
export const freeHandles = (
  hypervisor: Hypervisor,
  slot: number,
  handles: Uint32Array,
  from: number,
  end: number,
): void => {
  const { locks } = hypervisor;
  if (from === end) return;
  const lock = locks.id("maptrack", slot);
  locks.acquire(lock);
  // The last first: who takes them again gets them in the same order.
  for (let index = end - 1; index >= from; index -= 1) give(hypervisor, slot, handles[index]!);
  locks.release(lock);
};

/** Gives one row back, and makes it a plain mapping's again: `freeHandles` is for those that never were anything else. */
export const freeHandle = (hypervisor: Hypervisor, slot: number, handle: number): void => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("maptrack", slot);
  const row = maptrack.ownRow(slot, handle);
  for (const column of [maptrack.gfn, maptrack.deviceGfn, maptrack.local, maptrack.notify]) column[row] = 0;
  maptrack.count[row] = 1;
  locks.acquire(lock);
  give(hypervisor, slot, handle);
  locks.release(lock);
};

/** Takes up to `count` of the rows that the domain has, as `allocHandles` does. Under the slot's maptrack lock. */
const takeLinked = (
  { maptrack }: Hypervisor,
  slot: number,
  count: number,
  handles: Uint32Array,
  rows: Uint32Array,
  at: number,
): number => {
  const { next, serial, state } = maptrack;
  let link = maptrack.freeHead[slot]!;
  let done = 0;
  for (; done < count && link !== 0; done += 1) {
    const row = maptrack.ownRow(slot, link - 1);
    handles[at + done] = link - 1;
    rows[at + done] = row;
    link = next[row]!;
    next[row] = 0;
    serial[row] = (serial[row]! + 1) | 0;
    state[row] = MAPPING_PENDING;
  }
  maptrack.freeHead[slot] = link;
  maptrack.liveCount[slot]! += done;
  return done;
};

/** Under the slot's maptrack lock. */
const take = (hypervisor: Hypervisor, slot: number): number => {
  const { maptrack } = hypervisor;
  const { freeHead, next, serial, state } = maptrack;
  const handle = freeHead[slot]! - 1;
  if (handle < 0) return grow(hypervisor, slot) ? take(hypervisor, slot) : -1;
  const row = maptrack.ownRow(slot, handle);
  freeHead[slot] = next[row]!;
  next[row] = 0;
  serial[row]! += 1;
  state[row] = MAPPING_PENDING;
  maptrack.liveCount[slot]! += 1;
  return handle;
};

/** Under the slot's maptrack lock. */
const give = (hypervisor: Hypervisor, slot: number, handle: number): void => {
  const { maptrack } = hypervisor;
  const row = maptrack.ownRow(slot, handle);
  assert(maptrack.state[row] !== MAPPING_FREE);
  maptrack.state[row] = MAPPING_FREE;
  maptrack.next[row] = maptrack.freeHead[slot]!;
  maptrack.freeHead[slot] = handle + 1;
  maptrack.liveCount[slot]! -= 1;
};

/** Gives all pages of a dead domain back to the pool; every handle is free. */
export const releaseMaptrack = (hypervisor: Hypervisor, slot: number): void => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("maptrack", slot);
  const allocator = locks.id("allocator");
  locks.acquire(lock);
  assert(maptrack.liveCount[slot] === 0);
  const pages = maptrack.frameCount[slot]!;
  Atomics.store(maptrack.frameCount, slot, 0);
  maptrack.freeHead[slot] = 0;
  maptrack.frameMax[slot] = 0;
  locks.acquire(allocator);
  for (let index = 0; index < pages; index += 1) {
    const page = maptrack.directory[slot * maptrack.framesMax + index]! - 1;
    maptrack.directory[slot * maptrack.framesMax + index] = 0;
    Atomics.store(maptrack.pageOwner, page, 0);
    maptrack.pageNext[page] = maptrack.poolHead[0]!;
    maptrack.poolHead[0] = page + 1;
  }
  locks.release(allocator);
  locks.release(lock);
};

/** Adds a page of free rows. Under the slot's maptrack lock. False: the domain has all that it may, or the pool is empty. */
const grow = (hypervisor: Hypervisor, slot: number): boolean => {
  const { maptrack } = hypervisor;
  const count = maptrack.frameCount[slot]!;
  if (count >= Math.min(maptrack.frameMax[slot]!, maptrack.framesMax)) return false;
  const page = takePage(hypervisor);
  if (page < 0) return false;
  const first = count * HANDLES_PER_PAGE;
  const firstRow = page * HANDLES_PER_PAGE;
  for (let index = 0; index < HANDLES_PER_PAGE; index += 1) {
    maptrack.state[firstRow + index] = MAPPING_FREE;
    maptrack.count[firstRow + index] = 1;
    maptrack.next[firstRow + index] = first + index + 2;
  }
  maptrack.next[firstRow + HANDLES_PER_PAGE - 1] = maptrack.freeHead[slot]!;
  maptrack.freeHead[slot] = first + 1;
  maptrack.directory[slot * maptrack.framesMax + count] = page + 1;
  Atomics.store(maptrack.pageOwner, page, slot + 1);
  Atomics.store(maptrack.frameCount, slot, count + 1);
  return true;
};

const takePage = (hypervisor: Hypervisor): number => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("allocator");
  locks.acquire(lock);
  let page = maptrack.poolHead[0]! - 1;
  if (page >= 0) maptrack.poolHead[0] = maptrack.pageNext[page]!;
  else if (maptrack.poolHead[1]! < maptrack.pageCount) {
    page = maptrack.poolHead[1]!;
    maptrack.poolHead[1] = page + 1;
  }
  locks.release(lock);
  return page;
};
