/**
 * Taking granted pages back: every mapping of a revokable entry is switched to the page that replaces it, in one step
 * each, so that the mapper sees the one or the other and never faults. Needs no list but the entry's own, no memory and
 * no mapping (each revokable page is charged as a mapping of its own: vma.ts).
 *
 * Whoever takes a row off the entry's list unpins it. The row's domain may end the mapping meanwhile, and may even use
 * the row again: its serial tells.
 */
import { GNTMAP_readonly, GNTST_bad_gntref, GNTST_general_error, GNTST_okay } from "@xenolith/abi";
import { detachHeld, rehookRun } from "./address-space.ts";
import { ATTENTION_REVOKED } from "./attention.ts";
import { crashDomain } from "./domain-ops.ts";
import { dmaSlot, DOM0_SLOT } from "./domain-table.ts";
import { putFrame } from "./frame-reference.ts";
import { ZERO_FRAME } from "./frame-table.ts";
import { awaitCopies, releaseEntry } from "./grant-acquire.ts";
import { linkMapping, unitsOf } from "./grant-mapping.ts";
import { GRANT_MODE_REVOKABLE, GRANT_MODE_REVOKING } from "./grant-table.ts";
import { putBack } from "./grant-unmap.ts";
import type { Hypervisor } from "./hypervisor.ts";
import {
  MAPPING_FLAG_LAID_OVER,
  MAPPING_LIVE,
  MAPPING_PENDING,
  MAPPING_REVOKED,
  MAPPING_SEVERED,
} from "./maptrack-table.ts";
import { P2M_LOCAL_RO, P2M_LOCAL_RW } from "./p2m.ts";

/** How long to sleep at a time until another revoker of the same entry is done. */
const WAIT_NS = 100_000;
/** What `revokeOne` returns for the last user of an entry. */
const LAST = 1;
/** Changes of a page table that the kernel may refuse before that is taken for its last word. */
const SWITCH_TRIES = 3;

/**
 * Revokes reference `ref` of the domain in `granter`, which has ended access in the shared entry: when this returns, no
 * mapping of the entry is left. GNTST_bad_gntref: no such reference, GNTST_general_error: it is in use, but not
 * revokable, or (for mappings of the control domain only) the kernel refuses to switch the page. An entry that is not
 * in use needs no revoking: GNTST_okay.
 */
export const revokeGrant = (hypervisor: Hypervisor, granter: number, ref: number): number => {
  const { grants, locks } = hypervisor;
  const lock = locks.id("grantTable", granter);
  // Access has been removed: what copies begin from here on find.
  awaitCopies(hypervisor, granter);
  locks.acquire(lock);
  let status = ref < grants.refCount(granter) ? GNTST_okay : GNTST_bad_gntref;
  const row = status === GNTST_okay ? grants.row(granter, ref) : -1;
  if (row >= 0 && grants.pin[row] !== 0 && (grants.mode[row]! & GRANT_MODE_REVOKABLE) === 0)
    status = GNTST_general_error;
  while (status === GNTST_okay && (grants.mode[row]! & GRANT_MODE_REVOKABLE) !== 0) {
    grants.mode[row]! |= GRANT_MODE_REVOKING;
    const link = grants.first[row]!;
    if (link === 0) awaitPins(hypervisor, lock, row);
    else status = revokeOne(hypervisor, lock, granter, ref, link - 1);
  }
  locks.release(lock);
  return Math.min(status, GNTST_okay);
};

/** Lets the lock go until the pins of `row`, all in other hands, may have changed. */
const awaitPins = (hypervisor: Hypervisor, lock: number, row: number): void => {
  const { grants, locks, platform } = hypervisor;
  const pin = grants.pin[row]!;
  locks.release(lock);
  const words = new Int32Array(grants.pin.buffer, grants.pin.byteOffset + row * 4, 1);
  platform.wait(words, 0, pin | 0, WAIT_NS);
  locks.acquire(lock);
};

/**
 * Revokes one mapping. Gives `lock`, the granter's grantTable lock, back meanwhile. LAST: nobody uses the entry any more.
 * Whoever maps it from then on does so because its granter left access on, and is not waited for: that could last for ever.
 */
const revokeOne = (hypervisor: Hypervisor, lock: number, granter: number, ref: number, mapping: number): number => {
  const { grants, locks, maptrack } = hypervisor;
  const entry = grants.row(granter, ref);
  const serial = maptrack.serial[mapping]!;
  const mapper = maptrack.ownerOf(mapping);
  const units = unitsOf(maptrack.flags[mapping]!);
  const mfn = grants.frame[entry]! - 1;
  grants.first[entry] = maptrack.next[mapping]!;
  maptrack.next[mapping] = 0;
  locks.release(lock);
  const isSevered = sever(hypervisor, mapper, mapping, serial);
  locks.acquire(lock);
  if (!isSevered) {
    grants.mode[entry]! &= ~GRANT_MODE_REVOKING;
    return GNTST_general_error;
  }
  releaseEntry(hypervisor, granter, ref, units);
  const isLast = grants.pin[entry] === 0;
  locks.release(lock);
  putFrame(hypervisor, mfn);
  locks.acquire(lock);
  return isLast ? LAST : GNTST_okay;
};

/**
 * Makes the mapping that was row `row` when its serial was `serial` show its replacement. False: the kernel refuses; then
 * the row is on its entry's list again.
 */
const sever = (hypervisor: Hypervisor, mapper: number, row: number, serial: number): boolean => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("p2m", mapper);
  let isSevered = true;
  locks.acquire(lock);
  // The state first: see maptrack.ts.
  const state = Atomics.load(maptrack.state, row);
  const isSame = Atomics.load(maptrack.serial, row) === serial;
  // Exchanged: who gives the row back holds another lock, and a free row must stay free.
  if (isSame && state === MAPPING_PENDING) {
    Atomics.compareExchange(maptrack.state, row, MAPPING_PENDING, MAPPING_REVOKED);
  }
  if (isSame && state === MAPPING_LIVE) isSevered = switchRow(hypervisor, mapper, row);
  if (!isSevered) relink(hypervisor, row);
  locks.release(lock);
  return isSevered;
};

const relink = (hypervisor: Hypervisor, row: number): void => {
  const { locks, maptrack } = hypervisor;
  const granter = maptrack.granter[row]!;
  const lock = locks.id("grantTable", granter);
  locks.acquire(lock);
  linkMapping(hypervisor, granter, maptrack.ref[row]!, row);
  locks.release(lock);
};

/** Switches both halves. Under the mapper's p2m lock. */
const switchRow = (hypervisor: Hypervisor, mapper: number, row: number): boolean => {
  const { maptrack } = hypervisor;
  if (maptrack.deviceGfn[row] !== 0 && !switchDevice(hypervisor, row)) return false;
  if (maptrack.gfn[row] !== 0 && !switchHost(hypervisor, mapper, row)) return false;
  Atomics.store(maptrack.state, row, MAPPING_SEVERED);
  if (mapper === DOM0_SLOT) hypervisor.attention.raise(ATTENTION_REVOKED);
  const hasPage = maptrack.gfn[row] !== 0 || maptrack.deviceGfn[row] !== 0;
  const local = maptrack.local[row]! - 1;
  if (hasPage || local < 0) return true;
  // The page it was laid over is back at its place, where its owner's reference keeps it.
  maptrack.local[row] = 0;
  putFrame(hypervisor, local);
  return true;
};

const switchDevice = (hypervisor: Hypervisor, row: number): boolean => {
  const { domains, locks, maptrack } = hypervisor;
  const view = dmaSlot(domains);
  const lock = locks.id("p2m", view);
  locks.acquire(lock);
  const result = hookReplacement(hypervisor, view, maptrack.deviceGfn[row]! - 1, row);
  locks.release(lock);
  return result === 0;
};

/** A guest whose page cannot be switched loses its whole address space: that needs no mapping, and ends its access. */
const switchHost = (hypervisor: Hypervisor, mapper: number, row: number): boolean => {
  if (replaceHost(hypervisor, mapper, row) === 0) return true;
  if (mapper === DOM0_SLOT) return false;
  crashDomain(hypervisor, mapper, "a revoked page could not be replaced");
  let result = 1;
  for (let tries = 0; tries < SWITCH_TRIES && result !== 0; tries += 1) result = detachHeld(hypervisor, mapper);
  return result === 0 && replaceHost(hypervisor, mapper, row) === 0;
};

const replaceHost = (hypervisor: Hypervisor, mapper: number, row: number): number => {
  const { maptrack } = hypervisor;
  if ((maptrack.flags[row]! & MAPPING_FLAG_LAID_OVER) === 0) {
    return hookReplacement(hypervisor, mapper, maptrack.gfn[row]! - 1, row);
  }
  const result = putBack(hypervisor, mapper, row);
  if (result === 0) maptrack.gfn[row] = 0;
  return result;
};

/** Hooks the row's local page at `gfn`, or the page of zeros when it has none. Under the slot's p2m lock. */
const hookReplacement = (hypervisor: Hypervisor, slot: number, gfn: number, row: number): number => {
  const { maptrack } = hypervisor;
  const isReadOnly = (maptrack.flags[row]! & GNTMAP_readonly) !== 0;
  const local = maptrack.local[row]! - 1;
  const mfn = local < 0 ? ZERO_FRAME : local;
  let result = 1;
  for (let tries = 0; tries < SWITCH_TRIES && result !== 0; tries += 1) {
    result = rehookRun(hypervisor, slot, gfn, mfn, 1, isReadOnly ? P2M_LOCAL_RO : P2M_LOCAL_RW);
  }
  return result;
};
