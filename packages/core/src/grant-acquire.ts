/**
 * Pinning entries of a granter's table: what a mapping does before it touches the granted frame, and undoes when it is
 * done (a copy holds the locks instead: copy-hold.ts). While an entry is pinned its frame, its grantee and its mode are what they were at the first pin,
 * whatever the granter writes into the shared entry since; and the shared entry says READING, and WRITING while there
 * is a writer.
 *
 * A pin comes with one reference to the frame. It goes first, the reference after it (`putFrame`, without the lock).
 * Source: xen/include/public/grant_table.h (the handshake), docs/misc/grant-tables.txt.
 */
import {
  GNTST_bad_gntref,
  GNTST_bad_page,
  GNTST_general_error,
  GNTST_permission_denied,
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_revokable,
  GTF_sub_page,
  GTF_type_mask,
  GTF_writing,
} from "@xenolith/abi";
import assert from "node:assert/strict";
import { isAlive } from "./accounting.ts";
import { FRAME_REFS_MAX } from "./frame-table.ts";
import {
  GRANT_MODE_PLAIN,
  GRANT_MODE_REVOKABLE,
  GRANT_MODE_REVOKING,
  PIN_FULL_MASK,
  PIN_WRITE_MASK,
  REFS_PER_FRAME,
} from "./grant-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isRam, P2M_RAM, p2mType } from "./p2m.ts";

/** What access to an entry is wanted for. */
export const USE_MAP = 0;
export const USE_MAP_REVOKABLE = 1;
export const USE_COPY = 2;

/** What `handshake` wants to be as it should in an entry's first word, besides the grantee: for a reader, for a writer. */
export const ENTRY_READ_MASK = 0xffff_0000 | GTF_type_mask | GTF_sub_page;
export const ENTRY_WRITE_MASK = ENTRY_READ_MASK | GTF_readonly;

/** Compare-and-swaps of a shared entry that a granter may spoil before it is told off. */
const HANDSHAKE_TRIES = 5;
/** Mappings of one revokable entry at a time. */
export const REVOKABLE_MAPPINGS_MAX = 2;

/** Takes the locks under which an entry of the domain in `granter` may be pinned: its p2m's, then its table's. */
export const lockGranter = (hypervisor: Hypervisor, granter: number): void => {
  const { locks } = hypervisor;
  locks.acquire(locks.id("p2m", granter));
  locks.acquire(locks.id("grantTable", granter));
};

/**
 * Returns when every copy from or to a page of the domain in `granter` has ended that had begun before: copies hold its
 * p2m lock, and the most frequent ones hold no other of its.
 */
export const awaitCopies = (hypervisor: Hypervisor, granter: number): void => {
  const { locks } = hypervisor;
  const lock = locks.id("p2m", granter);
  locks.acquire(lock);
  locks.release(lock);
};

/** Gives back what `lockGranter` took. */
export const unlockGranter = (hypervisor: Hypervisor, granter: number): void => {
  const { locks } = hypervisor;
  locks.release(locks.id("grantTable", granter));
  locks.release(locks.id("p2m", granter));
};

/**
 * Pins entry `ref` of the domain in `granter` for the domain called `grantee`, and takes a reference to its frame.
 * `units` is what is added to the pin counters (PIN_*; those of writers ask for write access), `use` one of USE_*.
 * Returns the frame, or what failed, with nothing changed: GNTST_bad_gntref, GNTST_general_error, GNTST_bad_page, or
 * GNTST_permission_denied: a plain mapping of a revokable entry. Under `lockGranter`.
 */
export const acquireEntry = (
  hypervisor: Hypervisor,
  granter: number,
  ref: number,
  grantee: number,
  units: number,
  use: number,
): number => {
  const refused = checkGranter(hypervisor, granter);
  if (refused !== 0) return refused;
  return pinEntry(hypervisor, granter, ref, grantee, units, use);
};

/** 0, or GNTST_general_error: the domain in `granter` is dying, none of its entries can be pinned any more. */
export const checkGranter = (hypervisor: Hypervisor, granter: number): number =>
  isAlive(hypervisor, granter) ? 0 : GNTST_general_error;

/** As `acquireEntry`, of a granter that `checkGranter` found alive under the same hold of the locks. */
export const pinEntry = (
  hypervisor: Hypervisor,
  granter: number,
  ref: number,
  grantee: number,
  units: number,
  use: number,
): number => {
  const { grants } = hypervisor;
  if (ref >= grants.frameCount[granter]! * REFS_PER_FRAME) return GNTST_bad_gntref;
  const row = grants.row(granter, ref);
  const pin = grants.pin[row]!;
  if (pin === 0) return pinFirst(hypervisor, granter, ref, grantee, units, use);
  if (grants.grantee[row] !== grantee || (pin & PIN_FULL_MASK) !== 0) return GNTST_general_error;
  const mode = grants.mode[row]!;
  const refused = mode === GRANT_MODE_PLAIN ? refusePlain(use) : refuseRevokable(hypervisor, row, use);
  if (refused !== 0) return refused;
  const isWrite = (units & PIN_WRITE_MASK) !== 0;
  const isFirstWriter = isWrite && (pin & PIN_WRITE_MASK) === 0;
  // The granter of a revokable entry ends access first and revokes then: nothing may be pinned between.
  if (isFirstWriter || mode !== GRANT_MODE_PLAIN) {
    const domid = mode === GRANT_MODE_PLAIN ? ANY_GRANTEE : grantee;
    const found = handshake(hypervisor, grants.entryAddress(granter, ref), domid, isWrite, USE_COPY);
    if (found < 0) return found;
  }
  const mfn = grants.frame[row]! - 1;
  if (!takeReference(hypervisor, mfn)) {
    if (isFirstWriter) clearBits(hypervisor, grants.entryAddress(granter, ref), GTF_writing);
    return GNTST_general_error;
  }
  grants.pin[row] = pin + units;
  return mfn;
};

/**
 * Takes `units` off the pin counters of entry `ref` of the domain in `granter`, and clears WRITING with the last writer
 * and READING with the last pin. Nothing that the pin stood for reaches the frame any more. Drop the reference to the
 * frame afterwards. Under the granter's grantTable lock.
 */
export const releaseEntry = (hypervisor: Hypervisor, granter: number, ref: number, units: number): void => {
  const { grants } = hypervisor;
  const row = grants.row(granter, ref);
  const before = grants.pin[row]!;
  const pin = (before - units) >>> 0;
  assert(before >= units);
  grants.pin[row] = pin;
  let bits = 0;
  if ((units & PIN_WRITE_MASK) !== 0 && (pin & PIN_WRITE_MASK) === 0) bits = GTF_writing;
  if (pin === 0) {
    bits |= GTF_reading;
    assert(grants.first[row] === 0);
    grants.frame[row] = 0;
    grants.mode[row] = GRANT_MODE_PLAIN;
  }
  if (bits !== 0 && ref < grants.frameCount[granter]! * REFS_PER_FRAME) {
    clearBits(hypervisor, grants.entryAddress(granter, ref), bits);
  }
};

/** In place of a domid: while an entry is pinned, whom it names now does not matter. */
export const ANY_GRANTEE = -1;

/** First pin of an entry: everything is read from the shared entry and the granter's p2m, once. */
const pinFirst = (
  hypervisor: Hypervisor,
  granter: number,
  ref: number,
  grantee: number,
  units: number,
  use: number,
): number => {
  const { directMap, grants, p2m } = hypervisor;
  const isWrite = (units & PIN_WRITE_MASK) !== 0;
  const address = grants.entryAddress(granter, ref);
  const flags = handshake(hypervisor, address, grantee, isWrite, use);
  if (flags < 0) return flags;
  const gfn = directMap.loadU32(address + 4);
  const entry = p2m.get(granter, gfn);
  const mfn = entry >>> 4;
  const isPermitted = isWrite ? p2mType(entry) === P2M_RAM : isRam(entry);
  if (!isPermitted || !takeReference(hypervisor, mfn)) {
    clearBits(hypervisor, address, GTF_reading | GTF_writing);
    return isRam(entry) ? GNTST_general_error : GNTST_bad_page;
  }
  const row = grants.row(granter, ref);
  grants.pin[row] = units;
  grants.grantee[row] = grantee;
  grants.frame[row] = mfn + 1;
  grants.gfn[row] = gfn;
  grants.mode[row] = (flags & GTF_revokable) !== 0 ? GRANT_MODE_REVOKABLE : GRANT_MODE_PLAIN;
  return mfn;
};

/**
 * Sets READING, and WRITING for a writer, in the shared entry at `address`, if it permits `grantee` (ANY_GRANTEE: not
 * looked at) this access. Returns the entry's flags, or a status with nothing changed.
 */
export const handshake = (
  hypervisor: Hypervisor,
  address: number,
  grantee: number,
  isWrite: boolean,
  use: number,
): number => {
  const { directMap } = hypervisor;
  const bank = directMap.bankOf(address);
  const words = directMap.words[bank]!;
  const offset = address - bank * directMap.bankBytes;
  const bits = isWrite ? GTF_reading | GTF_writing : GTF_reading;
  let word = words.load(offset);
  for (let tries = 0; tries < HANDSHAKE_TRIES; tries += 1) {
    const flags = word & 0xffff;
    if ((flags & (GTF_type_mask | GTF_sub_page)) !== GTF_permit_access) return GNTST_general_error;
    if (grantee !== ANY_GRANTEE && word >>> 16 !== grantee) return GNTST_general_error;
    if (isWrite && (flags & GTF_readonly) !== 0) return GNTST_general_error;
    const isRevokable = (flags & GTF_revokable) !== 0;
    if (isRevokable && use === USE_MAP) return GNTST_permission_denied;
    if (!isRevokable && use === USE_MAP_REVOKABLE) return GNTST_general_error;
    const found = (flags & bits) === bits ? word : words.compareExchange(offset, word, word | bits);
    if (found === word) return flags;
    word = found;
  }
  return GNTST_general_error;
};

/** Clears bits of the shared entry at `address`, whatever the granter does to it meanwhile. */
export const clearBits = (hypervisor: Hypervisor, address: number, bits: number): void => {
  const { directMap } = hypervisor;
  const bank = directMap.bankOf(address);
  directMap.words[bank]!.and(address - bank * directMap.bankBytes, ~bits);
};

const refusePlain = (use: number): number => (use === USE_MAP_REVOKABLE ? GNTST_general_error : 0);

/** Whether a pinned revokable entry may be pinned once more. Under the granter's grantTable lock. */
const refuseRevokable = (hypervisor: Hypervisor, row: number, use: number): number => {
  const { grants, maptrack } = hypervisor;
  if (use === USE_MAP) return GNTST_permission_denied;
  if ((grants.mode[row]! & GRANT_MODE_REVOKING) !== 0) return GNTST_general_error;
  if (use === USE_COPY) return 0;
  let count = 0;
  for (let link = grants.first[row]!; link !== 0; link = maptrack.next[link - 1]!) count += 1;
  return count < REVOKABLE_MAPPINGS_MAX ? 0 : GNTST_general_error;
};

/** As `addReference`, with the fast atomics: mapping a batch takes hundreds. */
const takeReference = (hypervisor: Hypervisor, mfn: number): boolean => {
  const { frames, words } = hypervisor;
  const address = frames.refsStart + mfn * 4;
  let count = frames.refs[mfn]!;
  for (;;) {
    assert(count > 0);
    if (count >= FRAME_REFS_MAX) return false;
    const found = words.compareExchange(address, count, count + 1);
    if (found === count) return true;
    count = found;
  }
};
