/**
 * Mapping many granted frames at once. Requests stand in columns; neighbours (consecutive gfns and frames, one way of
 * access) become one change of the page table, and each lock is taken once for a run of entries with one granter. What
 * is not plain (device halves, own grants, odd flags) is done one by one, in its place.
 */
import {
  GNTMAP_guest_avail_mask,
  GNTMAP_host_map,
  GNTMAP_readonly,
  GNTST_general_error,
  GNTST_okay,
} from "@xenolith/abi";
import { hookRun } from "./address-space.ts";
import { putFrame } from "./frame-reference.ts";
import { checkGranter, lockGranter, pinEntry, releaseEntry, unlockGranter, USE_MAP } from "./grant-acquire.ts";
import { createMapRequest, findGranter, mapGrant, refuseTarget } from "./grant-map.ts";
import type { MapRequest } from "./grant-map.ts";
import { statusOfErrno } from "./grant-mapping.ts";
import { pinRun } from "./grant-pin-run.ts";
import { PIN_HOST_READ, PIN_HOST_WRITE } from "./grant-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { allocHandles, freeHandle, freeHandles } from "./maptrack.ts";
import { INVALID_HANDLE, MAPPING_LIVE } from "./maptrack-table.ts";
import { isRam, P2M_GRANT_RO, P2M_GRANT_RW, P2M_HOLE } from "./p2m.ts";
import { RamRuns } from "./ram-runs.ts";

/** Entries of one batch. */
export const BATCH_MAX = 512;

/** A batch of requests and what became of them, by index. Kept by its maker and used again. */
export class MapBatch {
  /** In: domid of the granter. */
  readonly granter = new Uint32Array(BATCH_MAX);
  readonly ref = new Uint32Array(BATCH_MAX);
  /** GNTMAP_*. */
  readonly flags = new Uint32Array(BATCH_MAX);
  /** Where it is to stand; a number beyond the address space is no gfn. */
  readonly gfn = new Uint32Array(BATCH_MAX);
  /** Where in the DMA view, for the control domain. */
  readonly deviceGfn = new Uint32Array(BATCH_MAX);
  /** Out: GNTST_*. */
  readonly status = new Int32Array(BATCH_MAX);
  /** Out: the handle, or INVALID_HANDLE. */
  readonly handle = new Uint32Array(BATCH_MAX);
  /** Working space. */
  readonly row = new Uint32Array(BATCH_MAX);
  readonly mfn = new Int32Array(BATCH_MAX);
  readonly request: MapRequest = createMapRequest();
}

const PLAIN_MASK = ~(GNTMAP_readonly | GNTMAP_guest_avail_mask);

/** RAM that mappings displace. */
const displaced = new RamRuns();

/** Does the first `count` requests of `batch` for the domain in `mapper`, in order. */
export const mapBatch = (hypervisor: Hypervisor, mapper: number, batch: MapBatch, count: number): void => {
  let from = 0;
  while (from < count) {
    const flags = batch.flags[from]!;
    const domid = batch.granter[from]!;
    const granter = (flags & PLAIN_MASK) === GNTMAP_host_map ? findGranter(hypervisor, mapper, domid, flags) : -1;
    if (granter < 0 || granter === mapper) {
      mapOne(hypervisor, mapper, batch, from);
      from += 1;
      continue;
    }
    let end = from + 1;
    while (end < count && batch.granter[end] === domid && (batch.flags[end]! & PLAIN_MASK) === GNTMAP_host_map) {
      end += 1;
    }
    mapPlain(hypervisor, mapper, batch, from, end, granter);
    from = end;
  }
};

const mapOne = (hypervisor: Hypervisor, mapper: number, batch: MapBatch, index: number): void => {
  const { request } = batch;
  request.granter = batch.granter[index]!;
  request.ref = batch.ref[index]!;
  request.flags = batch.flags[index]!;
  request.gfn = batch.gfn[index]!;
  request.deviceGfn = batch.deviceGfn[index]!;
  request.isRevokable = false;
  batch.status[index] = mapGrant(hypervisor, mapper, request);
  batch.handle[index] = request.handle;
};

/** Plain mappings of one granter's frames. */
const mapPlain = (
  hypervisor: Hypervisor,
  mapper: number,
  batch: MapBatch,
  from: number,
  end: number,
  granter: number,
): void => {
  const { locks } = hypervisor;
  const taken = allocHandles(hypervisor, mapper, end - from, batch.handle, batch.row, from);
  if (taken < end - from) {
    // An entry that fails gives its handle to the next one: only one by one it is known which ones get none.
    freeHandles(hypervisor, mapper, batch.handle, from, from + taken);
    for (let index = from; index < end; index += 1) mapOne(hypervisor, mapper, batch, index);
    return;
  }
  pinAll(hypervisor, mapper, batch, from, end, granter);
  const lock = locks.id("p2m", mapper);
  locks.acquire(lock);
  hookAll(hypervisor, mapper, batch, from, end);
  locks.release(lock);
  for (let index = from; index < end; index += 1) {
    if (batch.status[index] !== GNTST_okay) giveUp(hypervisor, mapper, batch, index, granter);
  }
};

/** Pins every entry and fills its row: runs of simple ones at once, the others one by one. */
const pinAll = (
  hypervisor: Hypervisor,
  mapper: number,
  batch: MapBatch,
  from: number,
  end: number,
  granter: number,
): void => {
  const grantee = hypervisor.domains.domid[mapper]!;
  lockGranter(hypervisor, granter);
  const refused = checkGranter(hypervisor, granter);
  let index = from;
  while (index < end) {
    const pinned = refused !== 0 ? 0 : pinRun(hypervisor, granter, grantee, batch, index, end);
    for (const pinnedEnd = index + pinned; index < pinnedEnd; index += 1) batch.status[index] = GNTST_okay;
    if (index === end) break;
    // The next one is not so simple, or stands alone.
    const units = (batch.flags[index]! & GNTMAP_readonly) === 0 ? PIN_HOST_WRITE : PIN_HOST_READ;
    const ref = batch.ref[index]!;
    const mfn = refused !== 0 ? refused : pinEntry(hypervisor, granter, ref, grantee, units, USE_MAP);
    batch.mfn[index] = mfn;
    batch.status[index] = mfn < 0 ? mfn : GNTST_okay;
    index += 1;
  }
  unlockGranter(hypervisor, granter);
  fillRows(hypervisor, batch, from, end, granter);
};

/** What is known of the mappings before they are made; the other columns are what a free row has. Nobody looks yet. */
const fillRows = ({ maptrack }: Hypervisor, batch: MapBatch, from: number, end: number, granter: number): void => {
  const { flags, granter: granters, ref, mfn } = maptrack;
  for (let index = from; index < end; index += 1) {
    const row = batch.row[index]!;
    flags[row] = batch.flags[index]!;
    granters[row] = granter;
    ref[row] = batch.ref[index]!;
    mfn[row] = batch.mfn[index]!;
  }
};

/** Hooks the frames of all entries that were pinned, a run at a time. Under the mapper's p2m lock. */
const hookAll = (hypervisor: Hypervisor, mapper: number, batch: MapBatch, from: number, end: number): void => {
  const { maptrack, p2m } = hypervisor;
  let index = from;
  while (index < end) {
    if (batch.status[index] !== GNTST_okay) {
      index += 1;
      continue;
    }
    const gfn = batch.gfn[index]!;
    const there = p2m.get(mapper, gfn);
    if (!p2m.contains(gfn)) batch.status[index] = GNTST_general_error;
    else if (there !== P2M_HOLE && !isRam(there)) batch.status[index] = refuseTarget(hypervisor, mapper, gfn);
    if (batch.status[index] !== GNTST_okay) {
      index += 1;
      continue;
    }
    const count = runLength(hypervisor, mapper, batch, index, end);
    const status = hookOver(hypervisor, mapper, batch, index, count);
    for (let at = index; at < index + count; at += 1) {
      const row = batch.row[at]!;
      batch.status[at] = status;
      if (status !== GNTST_okay) continue;
      maptrack.gfn[row] = batch.gfn[at]! + 1;
      maptrack.state[row] = MAPPING_LIVE;
    }
    index += count;
  }
};

/** How many entries from `first` can be hooked as one run: all over holes, or all over RAM. */
const runLength = (hypervisor: Hypervisor, mapper: number, batch: MapBatch, first: number, end: number): number => {
  const { frames, p2m } = hypervisor;
  const { entries } = p2m;
  const gfn = batch.gfn[first]!;
  const mfn = batch.mfn[first]!;
  const at = p2m.at(mapper, gfn);
  const limit = Math.min(end - first, p2m.gfnCount - gfn, frames.framesPerBank - (mfn & (frames.framesPerBank - 1)));
  const access = batch.flags[first]! & GNTMAP_readonly;
  const isOverHole = entries[at] === P2M_HOLE;
  let count = 1;
  while (count < limit) {
    const index = first + count;
    const entry = entries[at + count]!;
    const isNext = batch.gfn[index] === gfn + count && batch.mfn[index] === mfn + count;
    if (!isNext || (batch.flags[index]! & GNTMAP_readonly) !== access) break;
    if (isOverHole ? entry !== P2M_HOLE : !isRam(entry)) break;
    count += 1;
  }
  return count;
};

/** Hooks one run; RAM that stood there stays owned. Returns the status of its entries. */
const hookOver = (hypervisor: Hypervisor, mapper: number, batch: MapBatch, first: number, count: number): number => {
  const gfn = batch.gfn[first]!;
  const isOverHole = hypervisor.p2m.get(mapper, gfn) === P2M_HOLE;
  if (!isOverHole) displaced.collect(hypervisor, mapper, gfn, count);
  const type = (batch.flags[first]! & GNTMAP_readonly) === 0 ? P2M_GRANT_RW : P2M_GRANT_RO;
  const result = hookRun(hypervisor, mapper, gfn, batch.mfn[first]!, count, type);
  if (result === 0 && !isOverHole) displaced.keep(hypervisor, mapper);
  return statusOfErrno(result);
};

/** Undoes what was done for an entry that failed. */
const giveUp = (hypervisor: Hypervisor, mapper: number, batch: MapBatch, index: number, granter: number): void => {
  const { locks } = hypervisor;
  const mfn = batch.mfn[index]!;
  if (mfn >= 0) {
    const units = (batch.flags[index]! & GNTMAP_readonly) === 0 ? PIN_HOST_WRITE : PIN_HOST_READ;
    const lock = locks.id("grantTable", granter);
    locks.acquire(lock);
    releaseEntry(hypervisor, granter, batch.ref[index]!, units);
    locks.release(lock);
    putFrame(hypervisor, mfn);
  }
  freeHandle(hypervisor, mapper, batch.handle[index]!);
  batch.handle[index] = INVALID_HANDLE;
};
