/**
 * Making a mapping of an extent: the maptrack row, what will replace it if it is taken back, and the change of the page
 * table, or none of them. What may be mapped by whom is the callers': extent-map.ts and secret-extent.ts.
 */
import { EEXIST, ENOMEM, ENOSPC, GNTMAP_host_map, GNTMAP_readonly } from "@xenolith/abi";
import { allocateDomainRun, restoreClaim, unassignPages } from "./accounting.ts";
import { switchRun } from "./address-space.ts";
import { freeRun, type FrameRun } from "./buddy.ts";
import { linkMapping, mappingName } from "./extent-mapping.ts";
import { isHoleRun } from "./holes.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { allocHandle, freeHandle } from "./maptrack.ts";
import { MAPPING_FLAG_EXTENT, MAPPING_FLAG_PROVIDED, MAPPING_FLAG_REVOKABLE, MAPPING_LIVE } from "./maptrack-table.ts";

/** What is to stand where in the mapper. */
export interface MappingPlacement {
  readonly slot: number;
  readonly gfn: number;
  /** First frame or page of the extent. */
  readonly mfn: number;
  readonly count: number;
  /** P2M type of the entries. */
  readonly type: number;
  readonly isWritable: boolean;
  /** Whether frames of the mapper's own take its place when it is revoked; zeros otherwise. */
  readonly hasReplacement: boolean;
  /** Its p2m entries, where they are known already. */
  readonly entries?: Uint32Array | undefined;
}

const run: FrameRun = { mfn: 0, count: 0, claimed: 0 };

/**
 * Maps a part of the extent in row `extent` where nothing stands; returns the mapping's name. -EEXIST: something stands
 * there, -ENOSPC: the mapper has no handle or no mapping left, -ENOMEM, -EPERM, -E2BIG: no room for its replacement, or
 * the page table's errno; then nothing has changed.
 */
export const hookMapping = (hypervisor: Hypervisor, extent: number, placement: MappingPlacement): number => {
  const { slot, count, hasReplacement } = placement;
  const handle = allocHandle(hypervisor, slot);
  if (handle < 0) return -ENOSPC;
  let result = hasReplacement ? allocateReplacement(hypervisor, slot, count) : 0;
  if (result === 0) {
    result = hookRow(hypervisor, extent, placement, handle);
    if (result !== 0 && hasReplacement) undoReplacement(hypervisor, slot);
  }
  if (result === 0) return mappingName(hypervisor, slot, handle);
  freeHandle(hypervisor, slot, handle);
  return result;
};

/** Changes the page table and fills the maptrack row in. 0 or an errno, with nothing changed. */
const hookRow = (hypervisor: Hypervisor, extent: number, placement: MappingPlacement, handle: number): number => {
  const { extents, locks, maptrack } = hypervisor;
  const { slot, gfn, mfn, count, type, isWritable, hasReplacement, entries } = placement;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const result = isHoleRun(hypervisor, slot, gfn, count)
    ? switchRun(hypervisor, slot, { gfn, mfn, count, type, urgent: false, entries })
    : -EEXIST;
  if (result === 0) {
    const row = maptrack.row(slot, handle);
    const provided = hasReplacement ? MAPPING_FLAG_PROVIDED : 0;
    const rights = isWritable ? 0 : GNTMAP_readonly;
    maptrack.flags[row] = MAPPING_FLAG_EXTENT | MAPPING_FLAG_REVOKABLE | GNTMAP_host_map | provided | rights;
    maptrack.granter[row] = extents.granter[extent]!;
    maptrack.ref[row] = extent;
    maptrack.gfn[row] = gfn + 1;
    maptrack.deviceGfn[row] = 0;
    maptrack.mfn[row] = mfn;
    maptrack.count[row] = count;
    maptrack.local[row] = hasReplacement ? run.mfn + 1 : 0;
    maptrack.notify[row] = 0;
    linkMapping(hypervisor, row);
    Atomics.store(maptrack.state, row, MAPPING_LIVE);
  }
  locks.release(lock);
  return result;
};

/** Allocates one run of frames for the mapper, in `run`, in its accounts. 0 or an errno. */
const allocateReplacement = (hypervisor: Hypervisor, slot: number, count: number): number => {
  const result = allocateDomainRun(hypervisor, slot, count, run);
  if (result !== 0 || run.count === count) return result;
  undoReplacement(hypervisor, slot);
  return -ENOMEM;
};

const undoReplacement = (hypervisor: Hypervisor, slot: number): void => {
  hypervisor.frames.refs.fill(0, run.mfn, run.mfn + run.count);
  freeRun(hypervisor, run.mfn, run.count);
  restoreClaim(hypervisor, slot, run.claimed);
  unassignPages(hypervisor, slot, run.count);
};
