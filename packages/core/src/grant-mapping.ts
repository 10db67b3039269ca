/**
 * What mapping, unmapping and revoking have in common: the halves of a mapping and what each adds to the pin counters,
 * the list of an entry's revokable mappings, and the page that replaces a granted one.
 *
 * The GNTMAP_host_map and GNTMAP_device_map bits of a row's `flags` are the halves that are pinned; they change under
 * the granter's grantTable lock once the row is on a list. `gfn` and `deviceGfn` say what is mapped; they change under
 * the mapper's p2m lock.
 */
import {
  ENOSPC,
  GNTMAP_device_map,
  GNTMAP_guest_avail_mask,
  GNTMAP_host_map,
  GNTMAP_readonly,
  GNTST_bad_page,
  GNTST_general_error,
  GNTST_no_space,
  GNTST_okay,
} from "@xenolith/abi";
import { allocateDomainRun } from "./accounting.ts";
import type { FrameRun } from "./buddy.ts";
import { addReference, keepUnhooked, putFrame, releaseFrame } from "./frame-reference.ts";
import { PIN_DEVICE_READ, PIN_DEVICE_WRITE, PIN_HOST_READ, PIN_HOST_WRITE } from "./grant-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { MAPPING_FLAG_LAID_OVER, MAPPING_FLAG_PROVIDED, MAPPING_FLAG_REVOKABLE } from "./maptrack-table.ts";
import { P2M_GRANT_RO, P2M_GRANT_RW, P2M_RAM, P2M_REVOKABLE_RO, P2M_REVOKABLE_RW, p2mType } from "./p2m.ts";

/** In place of an lgfn: the hypervisor provides the page. */
export const LOCAL_PROVIDED = 0xffff_ffff;
/** Flags of a request that a row keeps. */
export const KEPT_FLAGS = (GNTMAP_guest_avail_mask | 0x1f) >>> 0;
/** Both halves of a mapping. */
export const HALVES = GNTMAP_host_map | GNTMAP_device_map;
/** What the halves in `flags` (GNTMAP_*) add to the pin counters of an entry. */
export const unitsOf = (flags: number): number => {
  const isReadOnly = (flags & GNTMAP_readonly) !== 0;
  let units = 0;
  if ((flags & GNTMAP_host_map) !== 0) units += isReadOnly ? PIN_HOST_READ : PIN_HOST_WRITE;
  if ((flags & GNTMAP_device_map) !== 0) units += isReadOnly ? PIN_DEVICE_READ : PIN_DEVICE_WRITE;
  return units;
};

/** Type of the p2m entries of a mapping with these flags. */
export const mappingType = (flags: number): number => {
  const isReadOnly = (flags & GNTMAP_readonly) !== 0;
  if ((flags & MAPPING_FLAG_REVOKABLE) !== 0) return isReadOnly ? P2M_REVOKABLE_RO : P2M_REVOKABLE_RW;
  return isReadOnly ? P2M_GRANT_RO : P2M_GRANT_RW;
};

/** The status that stands for what the page table answered. */
export const statusOfErrno = (errno: number): number =>
  errno === 0 ? GNTST_okay : errno === -ENOSPC ? GNTST_no_space : GNTST_general_error;

/** Puts a row on its entry's list of revokable mappings. Under the granter's grantTable lock. */
export const linkMapping = (hypervisor: Hypervisor, granter: number, ref: number, row: number): void => {
  const { grants, maptrack } = hypervisor;
  const entry = grants.row(granter, ref);
  maptrack.next[row] = grants.first[entry]!;
  grants.first[entry] = row + 1;
};

/** Takes a row off its entry's list; false: it is not there any more. Under the granter's grantTable lock. */
export const unlinkMapping = (hypervisor: Hypervisor, granter: number, ref: number, row: number): boolean => {
  const { grants, maptrack } = hypervisor;
  const entry = grants.row(granter, ref);
  let before = -1;
  for (let link = grants.first[entry]!; link !== 0; link = maptrack.next[link - 1]!) {
    if (link - 1 === row) {
      if (before < 0) grants.first[entry] = maptrack.next[row]!;
      else maptrack.next[before] = maptrack.next[row]!;
      maptrack.next[row] = 0;
      return true;
    }
    before = link - 1;
  }
  return false;
};

/** Whether a row is on its entry's list. Under the granter's grantTable lock. */
export const isLinked = (hypervisor: Hypervisor, granter: number, ref: number, row: number): boolean => {
  const { grants, maptrack } = hypervisor;
  let link = grants.first[grants.row(granter, ref)]!;
  while (link !== 0 && link - 1 !== row) link = maptrack.next[link - 1]!;
  return link !== 0;
};

/**
 * Gets the page that will replace the granted one: the mapper's own at `lgfn` (the grant is laid over it when it stands
 * where the grant will), or one that the hypervisor provides and charges to the mapper; for reading none is needed.
 * GNTST_bad_page: `lgfn` is no RAM of the mapper's own, GNTST_no_space: it may not have another page.
 */
export const takeReplacement = (
  hypervisor: Hypervisor,
  mapper: number,
  row: number,
  request: { readonly lgfn: number; readonly gfn: number; readonly flags: number },
): number => {
  const { maptrack, locks, p2m } = hypervisor;
  if (request.lgfn === LOCAL_PROVIDED) {
    if ((request.flags & GNTMAP_readonly) !== 0) return GNTST_okay;
    const provided: FrameRun = { mfn: 0, count: 0, claimed: 0 };
    if (allocateDomainRun(hypervisor, mapper, 1, provided) !== 0) return GNTST_no_space;
    keepUnhooked(hypervisor, mapper, provided.mfn);
    maptrack.flags[row]! |= MAPPING_FLAG_PROVIDED;
    maptrack.local[row] = provided.mfn + 1;
    return GNTST_okay;
  }
  const lock = locks.id("p2m", mapper);
  locks.acquire(lock);
  const entry = p2m.get(mapper, request.lgfn);
  const isTaken = p2mType(entry) === P2M_RAM && addReference(hypervisor, entry >>> 4);
  locks.release(lock);
  if (!isTaken) return GNTST_bad_page;
  maptrack.local[row] = (entry >>> 4) + 1;
  const isLaidOver = request.lgfn === request.gfn && (request.flags & GNTMAP_host_map) !== 0;
  if (isLaidOver) maptrack.flags[row]! |= MAPPING_FLAG_LAID_OVER;
  return GNTST_okay;
};

/** Lets go of a row's replacement, which stands nowhere. Without the p2m lock: may free a frame. */
export const dropReplacement = (hypervisor: Hypervisor, mapper: number, row: number): void => {
  const { maptrack } = hypervisor;
  const mfn = maptrack.local[row]! - 1;
  if (mfn < 0) return;
  maptrack.local[row] = 0;
  if ((maptrack.flags[row]! & MAPPING_FLAG_PROVIDED) !== 0) releaseFrame(hypervisor, mapper, mfn);
  else putFrame(hypervisor, mfn);
};
