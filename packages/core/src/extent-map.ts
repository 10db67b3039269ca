/**
 * Mapping extents. A mapping is one row of the mapper's maptrack, flagged MAPPING_FLAG_EXTENT, and one change of its
 * page table, however long the extent is. It holds nothing of the granter's but a place in the extent's list. What
 * replaces it when it is taken back is there from the beginning: zeros for who may only read, and for who may write a
 * run of zeroed frames of the mapper's own, which `local` names and nothing else does.
 *
 * Such a row belongs to the control domain: the guest cannot unmap it. Names of mappings are numbers that are never used
 * for two: a stale one names nothing.
 */
import { EINVAL, ENOENT, ESRCH } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import { switchRun } from "./address-space.ts";
import { dropUnused, extentRow } from "./extent.ts";
import { hookMapping } from "./extent-hook.ts";
import {
  linkMapping,
  mappingHandle,
  mappingRow,
  mappingSlot,
  switchMapping,
  switchWithin,
  unlinkMapping,
} from "./extent-mapping.ts";
import { EXTENT_OF_FRAMES, EXTENT_OPEN } from "./extent-table.ts";
import { freeDomainRun } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { freeHandle } from "./maptrack.ts";
import { MAPPING_LIVE, MAPPING_PENDING } from "./maptrack-table.ts";
import { P2M_EXTENT_RO, P2M_EXTENT_RW, P2M_HOLE } from "./p2m.ts";
import { scrubRun } from "./scrub.ts";

/** Where and how to map an extent. */
export interface ExtentTarget {
  readonly slot: number;
  readonly gfn: number;
  readonly isWritable: boolean;
}

/**
 * Maps an extent of frames where nothing stands; returns the mapping's name. -ENOENT: the extent is closed, -EINVAL: the
 * gfns do not all exist, or the mapper is the granter, -ESRCH: the mapper or the granter is dying, -EEXIST: something
 * stands there, -ENOSPC: the mapper has no handle or no mapping left, -ENOMEM, -EPERM, -E2BIG: no room for its
 * replacement, or the page table's errno.
 */
export const mapExtent = (hypervisor: Hypervisor, extent: number, target: ExtentTarget): number => {
  const { extents, p2m } = hypervisor;
  const { slot, gfn, isWritable } = target;
  const row = extentRow(hypervisor, extent);
  if (row < 0 || extents.state[row] !== EXTENT_OPEN || extents.kind[row] !== EXTENT_OF_FRAMES) return -ENOENT;
  const count = extents.count[row]!;
  if (!Number.isInteger(gfn) || !p2m.contains(gfn, count) || extents.granter[row] === slot) return -EINVAL;
  if (!isAlive(hypervisor, slot) || !isAlive(hypervisor, extents.granter[row]!)) return -ESRCH;
  return hookMapping(hypervisor, row, {
    slot,
    gfn,
    mfn: extents.mfn[row]!,
    count,
    type: isWritable ? P2M_EXTENT_RW : P2M_EXTENT_RO,
    isWritable,
    hasReplacement: isWritable,
    entries: isWritable ? undefined : extents.entries.get(row),
  });
};

/**
 * Takes a mapping away, whether it was revoked or not; nothing stands there afterwards. 0, or -ENOENT: it is gone. When
 * the page table refuses although nothing more is needed, the mapper is crashed and its whole address space taken away.
 */
export const unmapExtent = (hypervisor: Hypervisor, mapping: number): number => {
  const row = mappingRow(hypervisor, mapping);
  if (row < 0) return -ENOENT;
  const result = switchMapping(hypervisor, mappingSlot(mapping), row, P2M_HOLE);
  if (result === 0) endMapping(hypervisor, mapping, row);
  return result;
};

/**
 * As `unmapExtent`, at the mapper's own wish: it may cost no more mappings than the mapper may have. -ENOSPC, or the page
 * table's errno: nothing has changed.
 */
export const unmapOwn = (hypervisor: Hypervisor, mapping: number): number => {
  const row = mappingRow(hypervisor, mapping);
  if (row < 0) return -ENOENT;
  const result = switchWithin(hypervisor, mappingSlot(mapping), row);
  if (result === 0) endMapping(hypervisor, mapping, row);
  return result;
};

/** Forgets a mapping where nothing stands any more. */
const endMapping = (hypervisor: Hypervisor, mapping: number, row: number): void => {
  const { maptrack } = hypervisor;
  const slot = mappingSlot(mapping);
  const local = maptrack.local[row]! - 1;
  const count = maptrack.count[row]!;
  const extent = maptrack.ref[row]!;
  const wasLive = maptrack.state[row] === MAPPING_LIVE;
  if (local >= 0) {
    hypervisor.frames.refs.fill(0, local, local + count);
    freeDomainRun(hypervisor, slot, local, count);
  }
  if (wasLive) unlinkMapping(hypervisor, row);
  endRow(hypervisor, slot, row);
  freeHandle(hypervisor, slot, mappingHandle(mapping));
  if (wasLive) dropUnused(hypervisor, extent);
};

/**
 * From now on the row is nobody's: a guest that names its handle finds no mapping. Under the mapper's p2m lock, as it
 * looks: a live row that is no extent's any more would be one that it may unmap, and free a second time.
 */
const endRow = (hypervisor: Hypervisor, slot: number, row: number): void => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  Atomics.store(maptrack.state, row, MAPPING_PENDING);
  maptrack.flags[row] = 0;
  locks.release(lock);
};

/**
 * Lets a mapping of the extent that was revoked show it again, where it stands; nobody faults meanwhile either. 0 also if
 * it was not revoked, -ENOENT: the extent is closed or the mapping gone, -ESRCH: one of the domains is dying, -ENOSPC: the
 * mapper has no mapping left, or the page table's errno; then nothing has changed.
 */
export const restoreMapping = (hypervisor: Hypervisor, extent: number, mapping: number): number => {
  const { extents, maptrack } = hypervisor;
  const extentAt = extentRow(hypervisor, extent);
  const row = mappingRow(hypervisor, mapping);
  const slot = mappingSlot(mapping);
  if (extentAt < 0 || extents.state[extentAt] !== EXTENT_OPEN || row < 0) return -ENOENT;
  if (extents.kind[extentAt] !== EXTENT_OF_FRAMES) return -ENOENT;
  if (maptrack.ref[row] !== extentAt || maptrack.mfn[row] !== extents.mfn[extentAt]) return -ENOENT;
  if (!isAlive(hypervisor, slot) || !isAlive(hypervisor, extents.granter[extentAt]!)) return -ESRCH;
  return maptrack.state[row] === MAPPING_LIVE ? 0 : rehook(hypervisor, slot, row);
};

/** Hooks the frames of a revoked mapping's extent again; its replacement is zeroed for the next time. 0 or an errno. */
const rehook = (hypervisor: Hypervisor, slot: number, row: number): number => {
  const { extents, locks, maptrack } = hypervisor;
  const local = maptrack.local[row]! - 1;
  const count = maptrack.count[row]!;
  const isWritable = local >= 0;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const result = switchRun(hypervisor, slot, {
    gfn: maptrack.gfn[row]! - 1,
    mfn: maptrack.mfn[row]!,
    count,
    type: isWritable ? P2M_EXTENT_RW : P2M_EXTENT_RO,
    urgent: false,
    entries: isWritable ? undefined : extents.entries.get(maptrack.ref[row]!),
  });
  if (result === 0) {
    linkMapping(hypervisor, row);
    Atomics.store(maptrack.state, row, MAPPING_LIVE);
  }
  locks.release(lock);
  if (result === 0 && isWritable) scrubRun(hypervisor, local, count);
  return result;
};
