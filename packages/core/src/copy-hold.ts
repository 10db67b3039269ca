/**
 * What lists of copies between domains hold while they are made: the p2m locks of both domains and the locks of the grant tables
 * concerned, in the order of slots, and the in-use bits of the entries. Under these locks no page can be taken away and
 * no entry mapped or revoked, so a copy needs neither a pin nor a reference, and whoever waits for the locks has waited
 * for the copies. A hold ends after a few operations, or when the next one is about other domains.
 *
 * What is done for each operation is little: the bits of references in a row are set, and cleared, by one call of the
 * WebAssembly module, and bytes of neighbouring whole pages are moved in one go, at the latest when the hold ends, before
 * the bits are cleared.
 */
import {
  GNTST_bad_gntref,
  GNTST_bad_domain,
  GNTST_general_error,
  gnttab_copy,
  GTF_permit_access,
  GTF_reading,
  GTF_writing,
} from "@xenolith/abi";
import {
  frameOf,
  lockP2ms,
  lockTables,
  newSide,
  NONE,
  openSide,
  type Side,
  slotOfSide,
  unlockP2ms,
  unlockTables,
} from "./copy-side.ts";
import type { Cpu } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { ANY_GRANTEE, ENTRY_READ_MASK, ENTRY_WRITE_MASK, handshake, USE_COPY } from "./grant-acquire.ts";
import {
  GRANT_ENTRY_BYTES,
  GRANT_MODE_PLAIN,
  GRANT_MODE_REVOKING,
  PIN_FULL_MASK,
  PIN_WRITE_MASK,
  REFS_PER_FRAME,
} from "./grant-table.ts";
import { P2M_HOLE, P2M_RAM, P2M_RAM_RO } from "./p2m.ts";

/** Operations made in one hold of the locks: at most 1 MiB, which takes as long as ten changes of a page table do. */
const HOLD_OPERATIONS_MAX = 256;
/** log2 of the references in a frame. Numbers here are signed whole ones, as the engine handles best: see `source`. */
const REFS_SHIFT = Math.log2(REFS_PER_FRAME) | 0;
/** In the key of a side, besides its domid: it is a reference. */
const REF_KEY = 1 << 16;
/** From the p2m entry of a frame to that of the next one. */
const ENTRY_STEP = 1 << 4;

/** Words of an operation: each side's reference or gfn, and its domid and offset; length and flags. */
export const COPY_SOURCE = 0;
export const COPY_SOURCE_NAME = 1;
export const COPY_DEST = 2;
export const COPY_DEST_NAME = 3;
export const COPY_SIZES = 4;
export const COPY_WORDS = gnttab_copy.sizeBytes / 4;

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
  #bankMask = 0;
  /** Entries in a row whose bits are set: bank, place of the first in it, how many, and the bits to clear. */
  readonly #banks = new Int32Array(2 * HOLD_OPERATIONS_MAX);
  readonly #places = new Int32Array(2 * HOLD_OPERATIONS_MAX);
  readonly #counts = new Int32Array(2 * HOLD_OPERATIONS_MAX);
  readonly #bits = new Int32Array(2 * HOLD_OPERATIONS_MAX);
  #runCount = 0;
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
    this.#bankMask = cpu.hypervisor.directMap.frameMask;
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
    for (let index = 0; index < this.#runCount; index += 1) {
      words[this.#banks[index]!]!.endRun(this.#places[index]!, this.#counts[index]!, this.#bits[index]!);
    }
    this.#runCount = 0;
    this.#source.runCount = 0;
    this.#dest.runCount = 0;
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
    return this.#source.isRef ? this.#use(this.#source, name, false) : this.#own(this.#source, name, false);
  }

  /** As `source`, the frame that it copies to. */
  dest(name: number): number {
    return this.#dest.isRef ? this.#use(this.#dest, name, true) : this.#own(this.#dest, name, true);
  }

  /**
   * Makes up to `count` operations of `list`, the first of which stands at `at` and for which the locks were just taken.
   * They differ in their frames only, which they copy as a whole: references in a row on one side, own frames on the
   * other. Returns how many were made: the next is to be made by itself, and may fail.
   */
  copyRow(list: Int32Array, at: number, count: number): number {
    const isWrite = this.#dest.isRef;
    const theirs = isWrite ? this.#dest : this.#source;
    const mine = isWrite ? this.#source : this.#dest;
    const ref = list[at + (isWrite ? COPY_DEST : COPY_SOURCE)]!;
    if (!this.#isBegun(theirs, ref, isWrite, count)) return 0;
    const { entries, gfnCount } = this.#cpu!.hypervisor.p2m;
    const { words, entries: theirStart } = theirs;
    const ownStart = mine.entries;
    const end = Math.min(count, theirs.runCount - (ref - theirs.runRef), this.#operations + 1);
    let named = theirs.named + 2 * (ref - theirs.runRef);
    let own = at + (isWrite ? COPY_SOURCE : COPY_DEST);
    let done = 0;
    while (done < end) {
      const theirEntry = this.#entry(theirs, words[named]!);
      const ownEntry = this.#entry(mine, list[own]!);
      if ((theirEntry & 15) !== P2M_RAM || (ownEntry & 15) !== P2M_RAM) break;
      // Neighbours on both sides. No call and no store in here: the engine keeps what the arrays are in registers.
      const first = done;
      let distance = ENTRY_STEP;
      for (done += 1, named += 2, own += COPY_WORDS; done < end; done += 1, named += 2, own += COPY_WORDS) {
        const theirGfn = words[named]! >>> 0;
        const ownGfn = list[own]! >>> 0;
        if (theirGfn >= gfnCount || ownGfn >= gfnCount) break;
        if (entries[theirStart + theirGfn]! - theirEntry !== distance) break;
        if (entries[ownStart + ownGfn]! - ownEntry !== distance) break;
        distance += ENTRY_STEP;
      }
      this.#copyRun(isWrite, theirEntry, ownEntry, done - first);
    }
    this.#operations -= Math.max(0, done - 1);
    return done;
  }

  /** Copies `count` whole pages, neighbours on both sides, of which these are the p2m entries of the first. */
  #copyRun(isWrite: boolean, theirFirst: number, ownFirst: number, count: number): void {
    const to = (isWrite ? theirFirst : ownFirst) >>> 4;
    const from = (isWrite ? ownFirst : theirFirst) >>> 4;
    let done = 0;
    while (done < count) done += this.#copyPages(to + done, from + done, count - done);
  }

  /** Copies between two frames that are in use. Both ranges lie in their pages. */
  copy(to: number, toOffset: number, from: number, fromOffset: number, sizeBytes: number): void {
    if (sizeBytes === FRAME_BYTES) {
      this.#copyPages(to, from, 1);
      return;
    }
    if (this.#pages !== 0) this.#flush();
    this.#cpu!.hypervisor.directMap.copyBetween(to, toOffset, from, fromOffset, sizeBytes);
  }

  /**
   * Adds pages, of up to `count` neighbours on both sides, to those that are copied in one go: as many as lie in one
   * bank, if the order of the copies is of no matter among them. Returns how many.
   */
  #copyPages(to: number, from: number, count: number): number {
    const pages = this.#pages;
    const isNext = pages !== 0 && to === this.#to + pages && from === this.#from + pages;
    const inBank = this.#bankMask + 1 - Math.max(to & this.#bankMask, from & this.#bankMask);
    const apart = Math.abs(to - from);
    if (isNext && apart > pages && (to & this.#bankMask) !== 0 && (from & this.#bankMask) !== 0) {
      const added = Math.min(count, inBank, apart - pages);
      this.#pages = pages + added;
      return added;
    }
    if (pages !== 0) this.#flush();
    this.#to = to;
    this.#from = from;
    this.#pages = Math.min(count, inBank, Math.max(apart, 1));
    return this.#pages;
  }

  #flush(): void {
    this.#cpu!.hypervisor.directMap.copyBetween(this.#to, 0, this.#from, 0, this.#pages * FRAME_BYTES);
    this.#pages = 0;
  }

  /** The p2m entry of a frame of one side's domain; a hole for what is no frame. */
  #entry(side: Side, gfn: number): number {
    const { entries, gfnCount } = this.#cpu!.hypervisor.p2m;
    return gfn >= 0 && gfn < gfnCount ? entries[side.entries + gfn]! : P2M_HOLE;
  }

  /** The caller's own frame. */
  #own(side: Side, gfn: number, isDest: boolean): number {
    return frameOf(this.#entry(side, gfn), isDest);
  }

  /** The frame of a reference. What is read from the shared entry is read once, after its bits are set. */
  #use(side: Side, ref: number, isWrite: boolean): number {
    if (ref < 0 || ref >= side.refEnd) return GNTST_bad_gntref;
    const isOurs = ref >= side.runRef && ref - side.runRef < side.runCount;
    if (!isOurs) {
      if (this.#cpu!.hypervisor.grants.pin[side.row + ref] !== 0) return this.#usePinned(side, ref, isWrite);
      const refused = this.#begin(side, ref, isWrite, 1);
      if (refused !== 0) return refused;
    }
    return frameOf(this.#entry(side, side.words[side.named + 2 * (ref - side.runRef)]!), isWrite);
  }

  /** Whether the bits of entry `ref`, and perhaps of up to `ahead` in a row, are set: now, or because they can be. */
  #isBegun(side: Side, ref: number, isWrite: boolean, ahead: number): boolean {
    if (ref < 0 || ref >= side.refEnd) return false;
    if (ref >= side.runRef && ref - side.runRef < side.runCount) return true;
    const isPinned = this.#cpu!.hypervisor.grants.pin[side.row + ref] !== 0;
    return !isPinned && this.#begin(side, ref, isWrite, ahead) === 0;
  }

  /**
   * Sets the bits of an entry that nobody has pinned, and of up to `ahead` in a row. 0, or a status: it does not permit
   * this.
   */
  #begin(side: Side, ref: number, isWrite: boolean, ahead: number): number {
    const { hypervisor, domid } = this.#cpu!;
    const { directMap, grants } = hypervisor;
    if (!side.isAlive) return GNTST_general_error;
    const shared = grants.sharedFrame[side.frames + (ref >>> REFS_SHIFT)]! - 1;
    const bank = shared >>> directMap.frameShift;
    const inFrame = ref & (REFS_PER_FRAME - 1);
    const place = directMap.placeOf(shared) | (inFrame * GRANT_ENTRY_BYTES);
    const limit = Math.min(ahead, this.#operations + 1, REFS_PER_FRAME - inFrame);
    const { pin } = grants;
    const row = side.row + ref;
    let length = 1;
    while (length < limit && pin[row + length] === 0) length += 1;
    const bits = isWrite ? GTF_reading | GTF_writing : GTF_reading;
    const mask = isWrite ? ENTRY_WRITE_MASK : ENTRY_READ_MASK;
    let count = directMap.words[bank]!.beginRun(place, length, mask, (domid << 16) | GTF_permit_access, bits);
    if (count === 0) {
      // It says why, or tries again what the granter has spoilt.
      const flags = handshake(hypervisor, bank * directMap.bankBytes + (place >>> 0), domid, isWrite, USE_COPY);
      if (flags < 0) return flags;
      count = 1;
    }
    this.#note(bank, place, count, bits);
    side.runRef = ref;
    side.runCount = count;
    side.words = directMap.i32[bank]!;
    side.named = (place >>> 2) + 1;
    return 0;
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
    if (isFirstWriter) this.#note(directMap.bankOf(address), directMap.offsetOf(address), 1, GTF_writing);
    return frame;
  }

  /** The bits of `count` entries in a row go when the hold ends. */
  #note(bank: number, place: number, count: number, bits: number): void {
    const run = this.#runCount;
    this.#banks[run] = bank;
    this.#places[run] = place;
    this.#counts[run] = count;
    this.#bits[run] = bits;
    this.#runCount = run + 1;
  }
}
