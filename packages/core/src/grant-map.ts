/**
 * Mapping granted frames, one at a time: into a domain's address space (host half), into the control domain's DMA view
 * (device half), plainly or so that the granter can take the page back. Batches of plain mappings are in grant-batch.ts.
 *
 * The order of the checks is Xen's; each is named by its rule (M1 ... M13) where it is made. Nothing of the mapper is
 * locked while the granter is, and the other way round: between the two the row is pending, and a revoke that finds it
 * so makes the mapping give up.
 * Source: xen/include/public/grant_table.h, GNTTABOP_map_grant_ref; GNTTABOP_map_revokable is an extension.
 */
import {
  GNTMAP_application_map,
  GNTMAP_contains_pte,
  GNTMAP_device_map,
  GNTMAP_guest_avail_mask,
  GNTMAP_host_map,
  GNTMAP_readonly,
  GNTST_bad_domain,
  GNTST_bad_gntref,
  GNTST_general_error,
  GNTST_no_space,
  GNTST_okay,
} from "@xenolith/abi";
import { addReference, keepUnhooked, putFrame } from "./frame-reference.ts";
import { hookRun, unhookRun } from "./address-space.ts";
import { crashDomain } from "./domain-ops.ts";
import { dmaSlot, DOM0_SLOT } from "./domain-table.ts";
import { acquireEntry, lockGranter, releaseEntry, unlockGranter, USE_MAP, USE_MAP_REVOKABLE } from "./grant-acquire.ts";
import {
  dropReplacement,
  KEPT_FLAGS,
  linkMapping,
  mappingType,
  statusOfErrno,
  takeReplacement,
  unitsOf,
  unlinkMapping,
} from "./grant-mapping.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { allocHandle, freeHandle } from "./maptrack.ts";
import {
  INVALID_HANDLE,
  MAPPING_FLAG_LAID_OVER,
  MAPPING_FLAG_REVOKABLE,
  MAPPING_LIVE,
  MAPPING_PENDING,
} from "./maptrack-table.ts";
import { isRam, P2M_HOLE, P2M_RAM, p2mEntry } from "./p2m.ts";

/** What to map. Kept by its maker and used again: nothing on this path allocates. */
export interface MapRequest {
  /** Domid of the granter; the mapper's own is allowed, DOMID_SELF is not. */
  granter: number;
  ref: number;
  /** GNTMAP_*. */
  flags: number;
  /** Where the host half is to stand. */
  gfn: number;
  /** Where the device half is to stand in the DMA view; only the control domain has one. */
  deviceGfn: number;
  /** As GNTTABOP_map_revokable: `lgfn` says what replaces the page when it is revoked (LOCAL_PROVIDED: see there). */
  isRevokable: boolean;
  lgfn: number;
  /** Out: the handle, or INVALID_HANDLE. */
  handle: number;
}

/** A request that asks for nothing yet. */
export const createMapRequest = (): MapRequest => ({
  granter: 0,
  ref: 0,
  flags: 0,
  gfn: 0,
  deviceGfn: 0,
  isRevokable: false,
  lgfn: 0,
  handle: INVALID_HANDLE,
});

/** Flags that say how the host half is to be mapped and that no mapping here can be. */
const UNKNOWN_FLAGS = ~(GNTMAP_host_map | GNTMAP_device_map | GNTMAP_readonly | GNTMAP_guest_avail_mask);

/**
 * Maps as `request` says into the domain in `mapper`; the handle goes there too. Returns GNTST_*; unless it is
 * GNTST_okay nothing has changed. Over a mapping that only its own operation may remove, the mapper is crashed.
 */
export const mapGrant = (hypervisor: Hypervisor, mapper: number, request: MapRequest): number => {
  request.handle = INVALID_HANDLE;
  const granter = findGranter(hypervisor, mapper, request.granter, request.flags);
  if (granter < 0) return granter;
  const handle = allocHandle(hypervisor, mapper);
  // M5
  if (handle < 0) return GNTST_no_space;
  const row = hypervisor.maptrack.row(mapper, handle);
  fillRow(hypervisor, row, granter, request);
  let status = request.isRevokable ? takeReplacement(hypervisor, mapper, row, request) : GNTST_okay;
  if (status === GNTST_okay) status = mapRow(hypervisor, mapper, row, request);
  if (status === GNTST_okay) request.handle = handle;
  else {
    dropReplacement(hypervisor, mapper, row);
    freeHandle(hypervisor, mapper, handle);
  }
  return status;
};

/** M1 to M3: slot of the granter, or the status of a request that is refused before anything is looked up. */
export const findGranter = (hypervisor: Hypervisor, mapper: number, domid: number, flags: number): number => {
  if ((flags & (GNTMAP_host_map | GNTMAP_device_map)) === 0) return GNTST_bad_gntref;
  const refused = GNTMAP_application_map | GNTMAP_contains_pte | (mapper === DOM0_SLOT ? 0 : GNTMAP_device_map);
  if ((flags & refused) !== 0) return GNTST_general_error;
  const granter = hypervisor.domains.slotOf(domid);
  // M4: every domain may map what it was granted (policy class HOOK).
  return granter < 0 ? GNTST_bad_domain : granter;
};

/** Crashes a domain that maps over what is not its own RAM. Returns the status. */
export const refuseTarget = (hypervisor: Hypervisor, mapper: number, gfn: number): number => {
  crashDomain(hypervisor, mapper, `a grant mapped over a page that is not its own RAM, gfn ${gfn}`);
  return GNTST_general_error;
};

const fillRow = (hypervisor: Hypervisor, row: number, granter: number, request: MapRequest): void => {
  const { maptrack } = hypervisor;
  maptrack.flags[row] = (request.flags & KEPT_FLAGS) | (request.isRevokable ? MAPPING_FLAG_REVOKABLE : 0);
  maptrack.granter[row] = granter;
  maptrack.ref[row] = request.ref;
  maptrack.mfn[row] = 0;
};

/** Pins the entry and maps its frame. On failure the pin is gone again. */
const mapRow = (hypervisor: Hypervisor, mapper: number, row: number, request: MapRequest): number => {
  const { locks, maptrack } = hypervisor;
  const mfn = pinRow(hypervisor, mapper, row, request);
  if (mfn < 0) return mfn;
  maptrack.mfn[row] = mfn;
  const lock = locks.id("p2m", mapper);
  locks.acquire(lock);
  const status = insertRow(hypervisor, mapper, row, request);
  locks.release(lock);
  if (status !== GNTST_okay) unpinRow(hypervisor, row, mfn);
  return status;
};

/** M6 to M11. Returns the frame or a status. */
const pinRow = (hypervisor: Hypervisor, mapper: number, row: number, request: MapRequest): number => {
  const { domains, maptrack } = hypervisor;
  const granter = maptrack.granter[row]!;
  const use = request.isRevokable ? USE_MAP_REVOKABLE : USE_MAP;
  lockGranter(hypervisor, granter);
  const mfn = acquireEntry(hypervisor, granter, request.ref, domains.domid[mapper]!, unitsOf(request.flags), use);
  if (mfn >= 0 && request.isRevokable) linkMapping(hypervisor, granter, request.ref, row);
  unlockGranter(hypervisor, granter);
  return mfn;
};

/** Undoes `pinRow`, unless a revoke has done so meanwhile. */
const unpinRow = (hypervisor: Hypervisor, row: number, mfn: number): void => {
  const { locks, maptrack } = hypervisor;
  const granter = maptrack.granter[row]!;
  const ref = maptrack.ref[row]!;
  const flags = maptrack.flags[row]!;
  const lock = locks.id("grantTable", granter);
  locks.acquire(lock);
  const isOurs = (flags & MAPPING_FLAG_REVOKABLE) === 0 || unlinkMapping(hypervisor, granter, ref, row);
  if (isOurs) releaseEntry(hypervisor, granter, ref, unitsOf(flags));
  locks.release(lock);
  if (isOurs) putFrame(hypervisor, mfn);
};

/** M12: puts the frame where it is to stand. Under the mapper's p2m lock. */
const insertRow = (hypervisor: Hypervisor, mapper: number, row: number, request: MapRequest): number => {
  const { maptrack, p2m } = hypervisor;
  const { flags } = request;
  // Revoked before it was mapped.
  if (maptrack.state[row] !== MAPPING_PENDING) return GNTST_general_error;
  if ((flags & UNKNOWN_FLAGS) !== 0) return GNTST_general_error;
  const hasHost = (flags & GNTMAP_host_map) !== 0;
  const hasDevice = (flags & GNTMAP_device_map) !== 0;
  const there = hasHost ? p2m.get(mapper, request.gfn) : P2M_HOLE;
  if (hasHost && !p2m.contains(request.gfn)) return GNTST_general_error;
  if (there !== P2M_HOLE && !isRam(there)) return refuseTarget(hypervisor, mapper, request.gfn);
  const isLaidOver = (maptrack.flags[row]! & MAPPING_FLAG_LAID_OVER) !== 0;
  if (isLaidOver && there !== p2mEntry(maptrack.local[row]! - 1, P2M_RAM)) return GNTST_general_error;
  let status = hasDevice ? insertDevice(hypervisor, row, request.deviceGfn) : GNTST_okay;
  if (status !== GNTST_okay || !hasHost) return publish(hypervisor, row, status);
  const mfn = maptrack.mfn[row]!;
  status = statusOfErrno(hookRun(hypervisor, mapper, request.gfn, mfn, 1, mappingType(maptrack.flags[row]!)));
  if (status === GNTST_okay) {
    maptrack.gfn[row] = request.gfn + 1;
    if (there !== P2M_HOLE) keepUnhooked(hypervisor, mapper, there >>> 4);
  } else if (hasDevice) withdrawDevice(hypervisor, row);
  return publish(hypervisor, row, status);
};

const publish = (hypervisor: Hypervisor, row: number, status: number): number => {
  if (status === GNTST_okay) Atomics.store(hypervisor.maptrack.state, row, MAPPING_LIVE);
  return status;
};

/** Hooks the frame into the DMA view, at a hole other than gfn 0. Under the control domain's p2m lock. */
const insertDevice = (hypervisor: Hypervisor, row: number, gfn: number): number => {
  const { domains, locks, maptrack, p2m } = hypervisor;
  const view = dmaSlot(domains);
  // Its address 0 would mean that no device half is meant.
  if (gfn === 0 || !p2m.contains(gfn)) return GNTST_general_error;
  const lock = locks.id("p2m", view);
  locks.acquire(lock);
  const isFree = p2m.get(view, gfn) === P2M_HOLE;
  const type = mappingType(maptrack.flags[row]!);
  const result = isFree ? hookRun(hypervisor, view, gfn, maptrack.mfn[row]!, 1, type) : 0;
  locks.release(lock);
  if (!isFree) return GNTST_general_error;
  if (result === 0) maptrack.deviceGfn[row] = gfn + 1;
  return statusOfErrno(result);
};

/** Takes the device half away again, because the host half failed. */
const withdrawDevice = (hypervisor: Hypervisor, row: number): void => {
  const { domains, locks, maptrack } = hypervisor;
  const view = dmaSlot(domains);
  const lock = locks.id("p2m", view);
  locks.acquire(lock);
  const result = unhookRun(hypervisor, view, maptrack.deviceGfn[row]! - 1, 1, true);
  locks.release(lock);
  maptrack.deviceGfn[row] = 0;
  // The kernel refuses even that: the device keeps the page, so nobody may ever have it.
  if (result !== 0) addReference(hypervisor, maptrack.mfn[row]!);
};
