/**
 * Ending all that a domain has to do with grants, as kexec wants it: every mapping it made goes, every revokable grant
 * it gave is revoked, every other grant it gave is ended unless somebody uses it. The references that the toolstack
 * made (the first eight) and what the control domain mapped into it stay.
 */
import { EBUSY, ENOMEM, GNTST_okay, GNTTAB_NR_RESERVED_ENTRIES, GTF_type_mask } from "@xenolith/abi";
import { lockGranter, unlockGranter } from "./grant-acquire.ts";
import { dropMapping } from "./grant-unmap.ts";
import { GRANT_MODE_PLAIN } from "./grant-table.ts";
import { revokeGrant } from "./grant-revoke.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { HANDLES_PER_PAGE, MAPPING_FLAG_EXTENT, MAPPING_LIVE, MAPPING_SEVERED } from "./maptrack-table.ts";

/** Handles and references looked at in one slice. */
const SLICE = 512;
/** `continueResetGrants`: the slice is used up, call again. */
export const RESET_GRANTS_MORE = 1;

/** How far a reset has come: next handle and next reference to look at, one more than each; -1: not begun. */
export interface ResetCursor {
  handle: number;
  ref: number;
  result: number;
}

/** A reset that has not begun. */
export const createResetCursor = (): ResetCursor => ({ handle: -1, ref: -1, result: 0 });

/** Goes on with a reset of the domain in `slot`. RESET_GRANTS_MORE, 0, -EBUSY or -ENOMEM, as `resetGrants`. */
export const continueResetGrants = (hypervisor: Hypervisor, slot: number, cursor: ResetCursor): number => {
  const { grants, maptrack } = hypervisor;
  if (cursor.handle < 0) cursor.handle = maptrack.frameCount[slot]! * HANDLES_PER_PAGE;
  if (cursor.ref < 0) cursor.ref = grants.refCount(slot);
  let left = SLICE;
  for (; left > 0 && cursor.handle > 0; left -= 1) {
    cursor.handle -= 1;
    if (!dropAny(hypervisor, slot, cursor.handle)) cursor.result = -ENOMEM;
  }
  for (; left > 0 && cursor.ref > GNTTAB_NR_RESERVED_ENTRIES; left -= 1) {
    cursor.ref -= 1;
    if (!endGrant(hypervisor, slot, cursor.ref)) cursor.result = -EBUSY;
  }
  return left === 0 ? RESET_GRANTS_MORE : cursor.result;
};

/**
 * Drops all mappings that the domain in `slot` made and revokes or ends all grants that it gave, at once. -EBUSY: others
 * still use plain grants of its, which stay; -ENOMEM: the page table refused to give a mapping up.
 */
export const resetGrants = (hypervisor: Hypervisor, slot: number): number => {
  const cursor = createResetCursor();
  for (;;) {
    const result = continueResetGrants(hypervisor, slot, cursor);
    if (result !== RESET_GRANTS_MORE) return result;
  }
};

/** Ends a mapping if there is one. */
const dropAny = (hypervisor: Hypervisor, slot: number, handle: number): boolean => {
  const { maptrack } = hypervisor;
  const row = maptrack.row(slot, handle);
  const state = Atomics.load(maptrack.state, row);
  const isThere = state === MAPPING_LIVE || state === MAPPING_SEVERED;
  if (!isThere || (maptrack.flags[row]! & MAPPING_FLAG_EXTENT) !== 0) return true;
  // Within its budget if that is possible: another order of unmapping may need no mapping at all.
  if (dropMapping(hypervisor, slot, handle, false) === GNTST_okay) return true;
  return dropMapping(hypervisor, slot, handle, true) === GNTST_okay;
};

/** Ends access to one reference. False: somebody uses it and it is not revokable. */
const endGrant = (hypervisor: Hypervisor, slot: number, ref: number): boolean => {
  const { directMap, grants } = hypervisor;
  const row = grants.row(slot, ref);
  lockGranter(hypervisor, slot);
  const address = grants.entryAddress(slot, ref);
  const isUsed = grants.pin[row] !== 0;
  const isPlain = grants.mode[row] === GRANT_MODE_PLAIN;
  if (isUsed && !isPlain) directMap.andU32(address, ~GTF_type_mask);
  if (!isUsed) directMap.atomicStoreU32(address, 0);
  unlockGranter(hypervisor, slot);
  if (!isUsed) return true;
  if (isPlain || revokeGrant(hypervisor, slot, ref) !== GNTST_okay) return false;
  directMap.atomicStoreU32(address, 0);
  return true;
};
