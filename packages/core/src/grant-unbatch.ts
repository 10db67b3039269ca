/**
 * Unmapping many grants at once: neighbours (consecutive gfns, in the order of the list) become one change of the page
 * table, and each lock is taken once for a run of plain mappings. What is not plain (device halves, revokable mappings,
 * notifications, halves that are not named) is done one by one, in its place.
 */
import { GNTMAP_device_map, GNTMAP_readonly, GNTST_bad_handle, GNTST_general_error, GNTST_okay } from "@xenolith/abi";
import { unhookRun } from "./address-space.ts";
import { putFrame } from "./frame-reference.ts";
import { releaseEntry } from "./grant-acquire.ts";
import { BATCH_MAX } from "./grant-batch.ts";
import { statusOfErrno } from "./grant-mapping.ts";
import { PIN_HOST_READ, PIN_HOST_WRITE } from "./grant-table.ts";
import { createUnmapRequest, unmapGrant } from "./grant-unmap.ts";
import type { UnmapRequest } from "./grant-unmap.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { freeHandles } from "./maptrack.ts";
import {
  HANDLES_PER_PAGE,
  MAPPING_FLAG_EXTENT,
  MAPPING_FLAG_REVOKABLE,
  MAPPING_FREE,
  MAPPING_LIVE,
  MAPPING_PENDING,
} from "./maptrack-table.ts";
import { p2mEntry, P2M_GRANT_RO, P2M_GRANT_RW } from "./p2m.ts";

/** A batch of requests and what became of them, by index. Kept by its maker and used again. */
export class UnmapBatch {
  readonly handle = new Uint32Array(BATCH_MAX);
  /** Halves of the host address in bytes; 0: this half stays. */
  readonly hostLow = new Uint32Array(BATCH_MAX);
  readonly hostHigh = new Uint32Array(BATCH_MAX);
  /** Halves of the bus address, or of the new address if the list is one of unmap_and_replace. */
  readonly otherLow = new Uint32Array(BATCH_MAX);
  readonly otherHigh = new Uint32Array(BATCH_MAX);
  isReplace = false;
  /** Out: GNTST_*. */
  readonly status = new Int32Array(BATCH_MAX);
  /** Working space: rows of the plain mappings of a run, and the handles to give back. */
  readonly row = new Int32Array(BATCH_MAX);
  readonly freed = new Uint32Array(BATCH_MAX);
  readonly request: UnmapRequest = createUnmapRequest();
}

/** What only the slow way can do. */
const ODD_FLAGS = MAPPING_FLAG_EXTENT | MAPPING_FLAG_REVOKABLE | GNTMAP_device_map;
const HIGH_UNIT = 0x1_0000_0000;

/** Does the first `count` requests of `batch` for the domain in `mapper`, in order. */
export const unmapBatch = (hypervisor: Hypervisor, mapper: number, batch: UnmapBatch, count: number): void => {
  const { locks } = hypervisor;
  const lock = locks.id("p2m", mapper);
  let from = 0;
  while (from < count) {
    locks.acquire(lock);
    const end = unhookPlain(hypervisor, mapper, batch, from, count);
    locks.release(lock);
    unpinPlain(hypervisor, mapper, batch, from, end);
    if (end < count) unmapOne(hypervisor, mapper, batch, end);
    from = end + 1;
  }
};

const unmapOne = (hypervisor: Hypervisor, mapper: number, batch: UnmapBatch, index: number): void => {
  const { request } = batch;
  request.handle = batch.handle[index]!;
  const other = batch.otherHigh[index]! * HIGH_UNIT + batch.otherLow[index]!;
  request.hostAddress = batch.hostHigh[index]! * HIGH_UNIT + batch.hostLow[index]!;
  request.deviceAddress = batch.isReplace ? 0 : other;
  request.newAddress = batch.isReplace ? other : 0;
  batch.status[index] = unmapGrant(hypervisor, mapper, request);
};

/** Unhooks plain mappings up to the first that is not plain; returns its index. Under the mapper's p2m lock. */
const unhookPlain = (
  hypervisor: Hypervisor,
  mapper: number,
  batch: UnmapBatch,
  from: number,
  count: number,
): number => {
  const { maptrack } = hypervisor;
  const handleEnd = Atomics.load(maptrack.frameCount, mapper) * HANDLES_PER_PAGE;
  let runFrom = from;
  let runGfn = 0;
  let index = from;
  for (; index < count; index += 1) {
    const handle = batch.handle[index]!;
    const row = handle < handleEnd ? maptrack.ownRow(mapper, handle) : -1;
    const state = row < 0 ? MAPPING_FREE : maptrack.state[row]!;
    if (state !== MAPPING_FREE && state !== MAPPING_PENDING && !isPlain(hypervisor, batch, index, row)) break;
    const status = state === MAPPING_LIVE ? checkPlain(hypervisor, mapper, batch, index, row) : GNTST_bad_handle;
    batch.status[index] = status;
    const gfn = status === GNTST_okay ? maptrack.gfn[row]! - 1 : -1;
    if (index > runFrom && gfn !== runGfn + index - runFrom) {
      unhookRows(hypervisor, mapper, batch, runFrom, index, runGfn);
      runFrom = index;
    }
    if (status !== GNTST_okay) {
      runFrom = index + 1;
      continue;
    }
    if (index === runFrom) runGfn = gfn;
    batch.row[index] = row;
    // So that another entry with this handle finds no mapping.
    maptrack.state[row] = MAPPING_PENDING;
  }
  if (index > runFrom) unhookRows(hypervisor, mapper, batch, runFrom, index, runGfn);
  return index;
};

/** Whether a mapping that is there has a host half only, which is named, and nothing depends on its end. */
const isPlain = (hypervisor: Hypervisor, batch: UnmapBatch, index: number, row: number): boolean => {
  const { maptrack } = hypervisor;
  return (
    maptrack.state[row] === MAPPING_LIVE &&
    (maptrack.flags[row]! & ODD_FLAGS) === 0 &&
    maptrack.notify[row] === 0 &&
    (batch.hostLow[index]! | batch.hostHigh[index]!) !== 0 &&
    (batch.otherLow[index]! | batch.otherHigh[index]!) === 0
  );
};

/** U6: whether the page that the row says stands at the address. */
const checkPlain = (hypervisor: Hypervisor, mapper: number, batch: UnmapBatch, index: number, row: number): number => {
  const { maptrack, p2m } = hypervisor;
  const gfn = maptrack.gfn[row]! - 1;
  const isReadOnly = (maptrack.flags[row]! & GNTMAP_readonly) !== 0;
  const expected = p2mEntry(maptrack.mfn[row]!, isReadOnly ? P2M_GRANT_RO : P2M_GRANT_RW);
  const isNamed = batch.hostHigh[index] === 0 && batch.hostLow[index]! >>> 12 === gfn;
  const isSame = isNamed && p2m.entries[p2m.at(mapper, gfn)] === expected;
  return isSame ? GNTST_okay : GNTST_general_error;
};

/** Unhooks the run of entries `from` ... `end - 1`, whose first stands at `gfn`. Under the mapper's p2m lock. */
const unhookRows = (
  hypervisor: Hypervisor,
  mapper: number,
  batch: UnmapBatch,
  from: number,
  end: number,
  gfn: number,
): void => {
  const { maptrack } = hypervisor;
  const status = statusOfErrno(unhookRun(hypervisor, mapper, gfn, end - from));
  for (let index = from; index < end; index += 1) {
    const row = batch.row[index]!;
    batch.status[index] = status;
    if (status === GNTST_okay) maptrack.gfn[row] = 0;
    else maptrack.state[row] = MAPPING_LIVE;
  }
};

/** Unpins what was unhooked, then drops the references and gives the handles back. Without locks. */
const unpinPlain = (hypervisor: Hypervisor, mapper: number, batch: UnmapBatch, from: number, end: number): void => {
  const { locks, maptrack } = hypervisor;
  let held = -1;
  let count = 0;
  for (let index = from; index < end; index += 1) {
    if (batch.status[index] !== GNTST_okay) continue;
    const row = batch.row[index]!;
    const granter = maptrack.granter[row]!;
    if (granter !== held) {
      if (held >= 0) locks.release(locks.id("grantTable", held));
      locks.acquire(locks.id("grantTable", granter));
      held = granter;
    }
    const units = (maptrack.flags[row]! & GNTMAP_readonly) === 0 ? PIN_HOST_WRITE : PIN_HOST_READ;
    releaseEntry(hypervisor, granter, maptrack.ref[row]!, units);
    batch.freed[count] = batch.handle[index]!;
    count += 1;
  }
  if (held >= 0) locks.release(locks.id("grantTable", held));
  for (let index = from; index < end; index += 1) {
    if (batch.status[index] === GNTST_okay) putFrame(hypervisor, maptrack.mfn[batch.row[index]!]!);
  }
  freeHandles(hypervisor, mapper, batch.freed, 0, count);
};
