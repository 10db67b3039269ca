/**
 * What lists of copies between domains hold while they are made: the p2m locks of both domains and the locks of the grant tables
 * concerned, in the order of slots, and the in-use bits of the entries. Under these locks no page can be taken away and
 * no entry mapped or revoked, so a copy needs neither a pin nor a reference, and whoever waits for the locks has waited
 * for the copies. A hold ends after a few operations, or when the next one is about other domains.
 *
 * Bytes of neighbouring whole pages are moved in one go: at the latest when the hold ends, before the bits are cleared.
 */
import {
  DOMID_SELF,
  GNTST_bad_domain,
  GNTST_bad_gntref,
  GNTST_bad_page,
  GNTST_general_error,
  GNTST_permission_denied,
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_sub_page,
  GTF_type_mask,
  GTF_writing,
} from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { DOMAIN_STATES } from "./domain-table.ts";
import { ANY_GRANTEE, handshake, USE_COPY } from "./grant-acquire.ts";
import {
  GRANT_ENTRY_BYTES,
  GRANT_MODE_PLAIN,
  GRANT_MODE_REVOKING,
  PIN_FULL_MASK,
  PIN_WRITE_MASK,
  REFS_PER_FRAME,
} from "./grant-table.ts";
import { LOCK_RANKS } from "./lock.ts";
import { P2M_RAM, P2M_RAM_RO } from "./p2m.ts";

/** Operations made in one hold of the locks: it takes no longer than a few changes of a page table do. */
const HOLD_OPERATIONS_MAX = 64;
/** How many ranks the lock of a table is behind that of a p2m. */
const TABLE_RANKS = LOCK_RANKS.indexOf("grantTable") - LOCK_RANKS.indexOf("p2m");
/** log2 of the references in a frame. Numbers here are signed whole ones, as the engine handles best: see `source`. */
const REFS_SHIFT = Math.log2(REFS_PER_FRAME) | 0;
/** In the key of a side, besides its domid: it is a reference. */
const REF_KEY = 1 << 16;
const DYING = DOMAIN_STATES.indexOf("dying");
/** Neither a slot nor a frame. */
const NONE = -1;

/** What has to be as it should in an entry's first word, besides the domid: for a reader, and for a writer. */
export const ENTRY_READ_MASK = 0xffff_0000 | GTF_type_mask | GTF_sub_page;
export const ENTRY_WRITE_MASK = ENTRY_READ_MASK | GTF_readonly;

/** One side of the operations of a hold. */
interface Side {
  slot: number;
  /** It is a reference of the domain's table. */
  isRef: boolean;
  /** Its domain is not dying. */
  isAlive: boolean;
  /** References that the table has; first row, place in `sharedFrame` and place in the p2m. */
  refEnd: number;
  row: number;
  frames: number;
  entries: number;
  /** The reference that was used last, any 32-bit number, and its frame; NONE: there is none. */
  ref: number;
  frame: number;
}

const newSide = (): Side => ({
  slot: NONE,
  isRef: false,
  isAlive: false,
  refEnd: 0,
  row: 0,
  frames: 0,
  entries: 0,
  ref: 0,
  frame: NONE,
});

/** See the file's comment. Each thread has its own; it is open within one operation. */
export class CopyHold {
  /** The caller; undefined: no lock is held. */
  #cpu: Cpu | undefined = undefined;
  readonly #source = newSide();
  readonly #dest = newSide();
  /** How the caller named the two sides, and operations that may yet be made between them. */
  #sourceKey = 0;
  #destKey = 0;
  #operations = 0;
  #bankShift = 0;
  #bankMask = 0;
  /** Entries whose bits are set: bank, place in it, and the bits to clear. */
  readonly #banks = new Int32Array(2 * HOLD_OPERATIONS_MAX);
  readonly #places = new Int32Array(2 * HOLD_OPERATIONS_MAX);
  readonly #bits = new Int32Array(2 * HOLD_OPERATIONS_MAX);
  #entryCount = 0;
  /** Whole pages to copy yet. */
  #to = 0;
  #from = 0;
  #pages = 0;

  /**
   * Takes the locks for an operation of `cpu` between two domains, as it names them. 0, GNTST_bad_domain: there is none,
   * or GNTST_permission_denied: a frame has to be the caller's, and to be said to be.
   */
  enter(cpu: Cpu, source: number, dest: number, isSourceRef: boolean, isDestRef: boolean): number {
    const sourceKey = isSourceRef ? source | REF_KEY : source;
    const destKey = isDestRef ? dest | REF_KEY : dest;
    if (this.#operations > 0 && sourceKey === this.#sourceKey && destKey === this.#destKey) {
      this.#operations -= 1;
      return 0;
    }
    const sourceSlot = slotOfSide(cpu, source, isSourceRef);
    if (sourceSlot < 0) return sourceSlot;
    const destSlot = slotOfSide(cpu, dest, isDestRef);
    if (destSlot < 0) return destSlot;
    this.close();
    lockP2ms(cpu, sourceSlot, destSlot);
    // In a simulation threads share the object: whose it is becomes known when the first lock is held.
    this.#cpu = cpu;
    this.#operations = HOLD_OPERATIONS_MAX - 1;
    this.#sourceKey = sourceKey;
    this.#destKey = destKey;
    this.#bankMask = cpu.hypervisor.geometry.framesPerBank - 1;
    this.#bankShift = 32 - Math.clz32(this.#bankMask);
    lockTables(cpu, isSourceRef ? sourceSlot : NONE, isDestRef ? destSlot : NONE);
    openSide(this.#source, cpu, sourceSlot, isSourceRef);
    openSide(this.#dest, cpu, destSlot, isDestRef);
    return 0;
  }

  /** Whether the p2m lock of `cpu`'s domain is held. */
  covers(cpu: Cpu): boolean {
    return this.#cpu === cpu && (this.#source.slot === cpu.slot || this.#dest.slot === cpu.slot);
  }

  /** Makes all copies that are left and clears the bits; locks stay held. */
  finish(): void {
    if (this.#cpu === undefined) return;
    if (this.#pages !== 0) this.#flush();
    const { words } = this.#cpu.hypervisor.directMap;
    for (let index = 0; index < this.#entryCount; index += 1) {
      words[this.#banks[index]!]!.and(this.#places[index]!, ~this.#bits[index]!);
    }
    this.#entryCount = 0;
    this.#source.frame = NONE;
    this.#dest.frame = NONE;
    this.#operations = 0;
  }

  /** As `finish`, and gives the locks back. */
  close(): void {
    const cpu = this.#cpu;
    if (cpu === undefined) return;
    this.finish();
    const { slot: source, isRef: isSourceRef } = this.#source;
    const { slot: dest, isRef: isDestRef } = this.#dest;
    this.#cpu = undefined;
    unlockTables(cpu, isSourceRef ? source : NONE, isDestRef ? dest : NONE);
    unlockP2ms(cpu, source, dest);
  }

  /** The frame that the operation copies from, in use from now on, or a status. A number above 2^31 is given signed. */
  source(name: number): number {
    const side = this.#source;
    if (!side.isRef) return this.#own(side, name, false);
    return name === side.ref && side.frame !== NONE ? side.frame : this.#use(side, name, false);
  }

  /** As `source`, the frame that it copies to. */
  dest(name: number): number {
    const side = this.#dest;
    if (!side.isRef) return this.#own(side, name, true);
    return name === side.ref && side.frame !== NONE ? side.frame : this.#use(side, name, true);
  }

  /** Copies between two frames that are in use. Both ranges lie in their pages. */
  copy(to: number, toOffset: number, from: number, fromOffset: number, sizeBytes: number): void {
    if (sizeBytes === FRAME_BYTES) {
      this.#copyPage(to, from);
      return;
    }
    if (this.#pages !== 0) this.#flush();
    this.#cpu!.hypervisor.directMap.copyBetween(to, toOffset, from, fromOffset, sizeBytes);
  }

  /** Adds a page to those that are copied in one go, if the order of the copies is of no matter among them. */
  #copyPage(to: number, from: number): void {
    const pages = this.#pages;
    const isNext = to === this.#to + pages && from === this.#from + pages && Math.abs(to - from) > pages;
    if (pages !== 0 && isNext && (to & this.#bankMask) !== 0 && (from & this.#bankMask) !== 0) {
      this.#pages = pages + 1;
      return;
    }
    if (pages !== 0) this.#flush();
    this.#to = to;
    this.#from = from;
    this.#pages = 1;
  }

  #flush(): void {
    this.#cpu!.hypervisor.directMap.copyBetween(this.#to, 0, this.#from, 0, this.#pages * FRAME_BYTES);
    this.#pages = 0;
  }

  /** The caller's own frame. */
  #own(side: Side, gfn: number, isDest: boolean): number {
    const { p2m } = this.#cpu!.hypervisor;
    const isGfn = gfn >= 0 && gfn < p2m.gfnCount;
    return isGfn ? frameOf(p2m.entries[side.entries + gfn]!, isDest) : GNTST_bad_page;
  }

  /** The frame of a reference. What is read from the shared entry is read once, after its bits are set. */
  #use(side: Side, ref: number, isWrite: boolean): number {
    const { directMap, grants, p2m } = this.#cpu!.hypervisor;
    if (ref < 0 || ref >= side.refEnd) return GNTST_bad_gntref;
    if (grants.pin[side.row + ref] !== 0) return this.#usePinned(side, ref, isWrite);
    if (!side.isAlive) return GNTST_general_error;
    const shared = grants.sharedFrame[side.frames + (ref >>> REFS_SHIFT)]! - 1;
    const bank = shared >>> this.#bankShift;
    const place = ((shared & this.#bankMask) << 12) | ((ref & (REFS_PER_FRAME - 1)) * GRANT_ENTRY_BYTES);
    const refused = this.#begin(bank, place, isWrite);
    if (refused !== 0) return refused;
    this.#note(bank, place, isWrite ? GTF_reading | GTF_writing : GTF_reading);
    const gfn = directMap.i32[bank]![(place >>> 2) + 1]!;
    const frame = gfn >= 0 && gfn < p2m.gfnCount ? frameOf(p2m.entries[side.entries + gfn]!, isWrite) : GNTST_bad_page;
    if (frame < 0) return frame;
    side.ref = ref;
    side.frame = frame;
    return frame;
  }

  /** Sets the bits of an entry that nobody has pinned. 0, or a status: it does not permit this. */
  #begin(bank: number, place: number, isWrite: boolean): number {
    const { hypervisor, domid } = this.#cpu!;
    const { directMap } = hypervisor;
    const word = directMap.i32[bank]![place >>> 2]!;
    const wanted = (domid << 16) | GTF_permit_access;
    if ((word & (isWrite ? ENTRY_WRITE_MASK : ENTRY_READ_MASK)) === wanted) {
      const bits = isWrite ? GTF_reading | GTF_writing : GTF_reading;
      if (directMap.words[bank]!.compareExchange(place, word, word | bits) === word) return 0;
    }
    const flags = handshake(hypervisor, bank * directMap.bankBytes + (place >>> 0), domid, isWrite, USE_COPY);
    return Math.min(flags, 0);
  }

  /** Of a pinned entry what counts is how it was pinned; the shared entry says whether it may be written meanwhile. */
  #usePinned(side: Side, ref: number, isWrite: boolean): number {
    const { hypervisor, domid } = this.#cpu!;
    const { directMap, grants, p2m } = hypervisor;
    const row = side.row + ref;
    const pin = grants.pin[row]!;
    const mode = grants.mode[row]!;
    const frame = grants.frame[row]! - 1;
    const isRefused = grants.grantee[row] !== domid || (pin & PIN_FULL_MASK) !== 0;
    if (isRefused || (mode & GRANT_MODE_REVOKING) !== 0) return GNTST_general_error;
    if (!side.isAlive) return GNTST_bad_domain;
    const isFirstWriter = isWrite && (pin & PIN_WRITE_MASK) === 0;
    // The granter of a revokable entry ends access first and revokes then: nothing may be used between.
    if (!isFirstWriter && mode === GRANT_MODE_PLAIN) return frame;
    const home = p2m.get(side.slot, grants.gfn[row]!);
    if (isFirstWriter && home >>> 4 === frame && (home & 15) === P2M_RAM_RO) return GNTST_general_error;
    const address = grants.entryAddress(side.slot, ref);
    const grantee = mode === GRANT_MODE_PLAIN ? ANY_GRANTEE : domid;
    const flags = handshake(hypervisor, address, grantee, isWrite, USE_COPY);
    if (flags < 0) return flags;
    if (isFirstWriter) this.#note(directMap.bankOf(address), directMap.offsetOf(address), GTF_writing);
    return frame;
  }

  /** The bits of an entry go when the hold ends. */
  #note(bank: number, place: number, bits: number): void {
    this.#banks[this.#entryCount] = bank;
    this.#places[this.#entryCount] = place;
    this.#bits[this.#entryCount] = bits;
    this.#entryCount += 1;
  }
}

/** Slot of the domain that one side is about, or a status. */
const slotOfSide = (cpu: Cpu, domid: number, isRef: boolean): number => {
  if (domid === DOMID_SELF) return cpu.slot;
  if (!isRef) return GNTST_permission_denied;
  const slot = cpu.hypervisor.domains.slotOf(domid);
  return slot < 0 ? GNTST_bad_domain : slot;
};

/** The frame of a p2m entry, if it is RAM that may be read, or written, or a status. */
const frameOf = (entry: number, isWrite: boolean): number => {
  const type = entry & 15;
  if (type === P2M_RAM) return entry >>> 4;
  if (type !== P2M_RAM_RO) return GNTST_bad_page;
  return isWrite ? GNTST_general_error : entry >>> 4;
};

const openSide = (side: Side, cpu: Cpu, slot: number, isRef: boolean): void => {
  const { domains, grants, p2m } = cpu.hypervisor;
  side.slot = slot;
  side.isRef = isRef;
  side.frame = NONE;
  side.entries = p2m.at(slot, 0);
  if (!isRef) return;
  // Plain: what has been begun when the domain starts to die may end as if it had been before.
  const state = domains.state[slot]!;
  side.isAlive = state !== 0 && state < DYING;
  side.refEnd = grants.frameCount[slot]! * REFS_PER_FRAME;
  side.row = grants.row(slot, 0);
  side.frames = slot * grants.framesMax;
};

/** Identity of the first p2m lock. */
const p2mLockOf = (cpu: Cpu): number => cpu.memory.lock - cpu.slot;
/** Identity of the first lock of a grant table. */
const tableLockOf = (cpu: Cpu): number => p2mLockOf(cpu) + TABLE_RANKS * cpu.hypervisor.domains.slotCount;

const lockP2ms = (cpu: Cpu, source: number, dest: number): void => {
  lockBoth(cpu, p2mLockOf(cpu), source, dest);
};

const unlockP2ms = (cpu: Cpu, source: number, dest: number): void => {
  unlockBoth(cpu, p2mLockOf(cpu), source, dest);
};

/** NONE: that side is no reference. */
const lockTables = (cpu: Cpu, source: number, dest: number): void => {
  if (Math.max(source, dest) === NONE) return;
  lockBoth(cpu, tableLockOf(cpu), source === NONE ? dest : source, dest === NONE ? source : dest);
};

const unlockTables = (cpu: Cpu, source: number, dest: number): void => {
  if (Math.max(source, dest) === NONE) return;
  unlockBoth(cpu, tableLockOf(cpu), source === NONE ? dest : source, dest === NONE ? source : dest);
};

/** Takes the locks `first + a` and `first + b`, or the one that they are. */
const lockBoth = (cpu: Cpu, first: number, a: number, b: number): void => {
  const { locks } = cpu.hypervisor;
  locks.acquire(first + Math.min(a, b));
  if (a !== b) locks.acquire(first + Math.max(a, b));
};

const unlockBoth = (cpu: Cpu, first: number, a: number, b: number): void => {
  const { locks } = cpu.hypervisor;
  if (a !== b) locks.release(first + Math.max(a, b));
  locks.release(first + Math.min(a, b));
};
