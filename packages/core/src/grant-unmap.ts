/**
 * Ending mappings. Only the halves that are named go; the handle is free when none is left. A page that a grant was
 * laid over comes back; anything else leaves a hole. The pin goes when the page is out of reach, the reference to the
 * frame after it.
 *
 * A revokable mapping that is not on its entry's list any more is being revoked: then its pin is the revoker's business,
 * and only what the mapper sees is ended here.
 * Source: xen/include/public/grant_table.h, GNTTABOP_unmap_grant_ref.
 */
import {
  GNTMAP_device_map,
  GNTMAP_host_map,
  GNTST_bad_dev_addr,
  GNTST_bad_handle,
  GNTST_general_error,
  GNTST_okay,
} from "@xenolith/abi";
import { rehookRun, unhookRun } from "./address-space.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { dmaSlot } from "./domain-table.ts";
import { putFrame, takeUnhooked } from "./frame-reference.ts";
import { releaseEntry } from "./grant-acquire.ts";
import { dropReplacement, HALVES, isLinked, statusOfErrno, unitsOf, unlinkMapping } from "./grant-mapping.ts";
import { clearNotified, sendNotified } from "./grant-notify.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { freeHandle } from "./maptrack.ts";
import {
  MAPPING_FLAG_EXTENT,
  MAPPING_FLAG_LAID_OVER,
  MAPPING_FLAG_REVOKABLE,
  MAPPING_LIVE,
  MAPPING_PENDING,
  MAPPING_SEVERED,
} from "./maptrack-table.ts";
import { P2M_HOLE, P2M_RAM } from "./p2m.ts";

/** What to unmap, as a guest says it. Addresses are bytes; 0: this half stays. */
export interface UnmapRequest {
  handle: number;
  hostAddress: number;
  deviceAddress: number;
  /** GNTTABOP_unmap_and_replace: what is to stand there instead; must be 0. */
  newAddress: number;
}

/** A request that names nothing yet. */
export const createUnmapRequest = (): UnmapRequest => ({
  handle: 0,
  hostAddress: 0,
  deviceAddress: 0,
  newAddress: 0,
});

/** What is left to do when the p2m lock has been given back. */
const rest = { isGone: false, mfn: -1, notify: 0 };

/**
 * Unmaps what `request` names of a mapping of the domain in `mapper`. GNTST_bad_handle: it has no such mapping,
 * GNTST_bad_dev_addr, GNTST_general_error: another page stands at the address, or `newAddress` is not 0,
 * GNTST_no_space: it would leave more holes than the domain may have. On failure the mapping stays.
 */
export const unmapGrant = (hypervisor: Hypervisor, mapper: number, request: UnmapRequest): number => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("p2m", mapper);
  locks.acquire(lock);
  const row = maptrack.row(mapper, request.handle);
  // U1, U4
  const status = row < 0 ? GNTST_bad_handle : unmapRow(hypervisor, mapper, row, request, false);
  // Read before the lock goes: another caller of a simulation may come between.
  const { mfn, isGone, notify } = rest;
  locks.release(lock);
  if (row < 0) return status;
  if (mfn >= 0) putFrame(hypervisor, mfn);
  if (isGone) forget(hypervisor, mapper, row, request.handle, notify);
  return status;
};

/**
 * Ends a mapping as a whole, without being asked by its owner: it is dying, or resets itself. `urgent` may use the reserve
 * of mappings. GNTST_bad_handle: there is none, or it is the control domain's to end.
 */
export const dropMapping = (hypervisor: Hypervisor, mapper: number, handle: number, urgent: boolean): number => {
  const { locks, maptrack } = hypervisor;
  const row = maptrack.row(mapper, handle);
  const lock = locks.id("p2m", mapper);
  locks.acquire(lock);
  everything.hostAddress = Math.max(0, maptrack.gfn[row]! - 1) * FRAME_BYTES + 1;
  everything.deviceAddress = Math.max(0, maptrack.deviceGfn[row]! - 1) * FRAME_BYTES;
  const status = unmapRow(hypervisor, mapper, row, everything, urgent);
  const { mfn, isGone, notify } = rest;
  locks.release(lock);
  if (mfn >= 0) putFrame(hypervisor, mfn);
  if (isGone) forget(hypervisor, mapper, row, handle, notify);
  return status;
};

const everything = createUnmapRequest();

/** Unhooks the halves that are named and unpins them. Under the mapper's p2m lock; `rest` says what is to follow without it. */
const unmapRow = (
  hypervisor: Hypervisor,
  mapper: number,
  row: number,
  request: UnmapRequest,
  urgent: boolean,
): number => {
  const { maptrack } = hypervisor;
  rest.isGone = false;
  rest.mfn = -1;
  rest.notify = 0;
  const refused = checkRequest(hypervisor, mapper, row, request);
  if (refused !== GNTST_okay) return refused;
  const state = maptrack.state[row]!;
  const hasHost = maptrack.gfn[row] !== 0;
  const hasDevice = maptrack.deviceGfn[row] !== 0;
  const isHost = hasHost && request.hostAddress !== 0;
  const isDevice = hasDevice && request.deviceAddress !== 0;
  // U7: halves that are not mapped are nothing to unmap. A severed mapping may have none left: any address ends it.
  if (request.hostAddress === 0 && !isDevice) return GNTST_okay;
  if (isHost === hasHost && isDevice === hasDevice) {
    clearNotified(hypervisor, maptrack.notify[row]!, maptrack.mfn[row]!);
  }
  let result = isDevice ? unhookDevice(hypervisor, row, urgent) : 0;
  let halves = isDevice && result === 0 ? GNTMAP_device_map : 0;
  if (isHost && result === 0) {
    result = unhookHost(hypervisor, mapper, row, urgent);
    if (result === 0) halves |= GNTMAP_host_map;
  }
  if (state === MAPPING_LIVE && halves !== 0) unpinHalves(hypervisor, row, halves);
  if (maptrack.gfn[row] === 0 && maptrack.deviceGfn[row] === 0) {
    rest.isGone = true;
    rest.notify = maptrack.notify[row]!;
    Atomics.store(maptrack.state, row, MAPPING_PENDING);
  }
  return statusOfErrno(result);
};

/** U1 to U6, and the address that unmap_and_replace must not have. */
const checkRequest = (hypervisor: Hypervisor, mapper: number, row: number, request: UnmapRequest): number => {
  const { maptrack } = hypervisor;
  const { hostAddress, deviceAddress } = request;
  const state = maptrack.state[row]!;
  const isThere = state === MAPPING_LIVE || state === MAPPING_SEVERED;
  if (!isThere || (maptrack.flags[row]! & MAPPING_FLAG_EXTENT) !== 0) return GNTST_bad_handle;
  if (request.newAddress !== 0) return GNTST_general_error;
  const hostGfn = maptrack.gfn[row]! - 1;
  const deviceGfn = maptrack.deviceGfn[row]! - 1;
  // U5
  if (deviceAddress !== 0 && deviceGfn >= 0 && deviceAddress !== deviceGfn * FRAME_BYTES) return GNTST_bad_dev_addr;
  if (hostAddress === 0 || hostGfn < 0) return GNTST_okay;
  // U6
  const isSame = Math.floor(hostAddress / FRAME_BYTES) === hostGfn && standsAt(hypervisor, mapper, row, hostGfn);
  return isSame ? GNTST_okay : GNTST_general_error;
};

/** Whether what the row says stands at `gfn`: the granted frame, or what replaces it. */
const standsAt = (hypervisor: Hypervisor, slot: number, row: number, gfn: number): boolean => {
  const { maptrack, p2m } = hypervisor;
  const entry = p2m.get(slot, gfn);
  const mfn = entry >>> 4;
  if (entry === P2M_HOLE) return false;
  if (maptrack.state[row] === MAPPING_LIVE && mfn === maptrack.mfn[row]) return true;
  return mfn === Math.max(0, maptrack.local[row]! - 1);
};

const unhookDevice = (hypervisor: Hypervisor, row: number, urgent: boolean): number => {
  const { domains, locks, maptrack } = hypervisor;
  const view = dmaSlot(domains);
  const lock = locks.id("p2m", view);
  locks.acquire(lock);
  const result = unhookRun(hypervisor, view, maptrack.deviceGfn[row]! - 1, 1, urgent);
  locks.release(lock);
  if (result === 0) maptrack.deviceGfn[row] = 0;
  return result;
};

const unhookHost = (hypervisor: Hypervisor, mapper: number, row: number, urgent: boolean): number => {
  const { maptrack } = hypervisor;
  const gfn = maptrack.gfn[row]! - 1;
  const isLaidOver = (maptrack.flags[row]! & MAPPING_FLAG_LAID_OVER) !== 0;
  const result = isLaidOver ? putBack(hypervisor, mapper, row) : unhookRun(hypervisor, mapper, gfn, 1, urgent);
  if (result === 0) maptrack.gfn[row] = 0;
  return result;
};

/** Puts the mapper's own page back over which the grant was laid. Under the mapper's p2m lock. */
export const putBack = (hypervisor: Hypervisor, mapper: number, row: number): number => {
  const { maptrack } = hypervisor;
  const mfn = maptrack.local[row]! - 1;
  const result = rehookRun(hypervisor, mapper, maptrack.gfn[row]! - 1, mfn, 1, P2M_RAM);
  if (result !== 0) return result;
  takeUnhooked(hypervisor, mapper, mfn);
  maptrack.flags[row]! &= ~MAPPING_FLAG_LAID_OVER;
  return 0;
};

/** Takes halves that are unhooked off the pin counters. Under the mapper's p2m lock. */
const unpinHalves = (hypervisor: Hypervisor, row: number, halves: number): void => {
  const { locks, maptrack } = hypervisor;
  const granter = maptrack.granter[row]!;
  const ref = maptrack.ref[row]!;
  const lock = locks.id("grantTable", granter);
  locks.acquire(lock);
  const flags = maptrack.flags[row]!;
  const isRevokable = (flags & MAPPING_FLAG_REVOKABLE) !== 0;
  const isGone = (flags & HALVES & ~halves) === 0;
  const isPinned = !isRevokable || (isGone ? unlinkMapping : isLinked)(hypervisor, granter, ref, row);
  if (isPinned) releaseEntry(hypervisor, granter, ref, unitsOf(flags & ~(HALVES & ~halves)));
  maptrack.flags[row] = flags & ~halves;
  locks.release(lock);
  if (isPinned && isGone) rest.mfn = maptrack.mfn[row]!;
};

/** Gives the handle of a mapping back that is gone. Without locks: may free frames and wakes others. */
const forget = (hypervisor: Hypervisor, mapper: number, row: number, handle: number, notify: number): void => {
  dropReplacement(hypervisor, mapper, row);
  freeHandle(hypervisor, mapper, handle);
  sendNotified(hypervisor, mapper, notify);
};
