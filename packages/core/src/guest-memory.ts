/**
 * One domain's memory, as the hypervisor reads and writes it on the domain's behalf: address -> gfn -> p2m -> direct
 * map, with the domain's own permissions for each page. Nothing here looks at the guest's linear memory itself.
 *
 * Every access is one lookup under the slot's p2m lock, so no page can be freed and reused in the middle. Callers hold
 * no other lock of that rank or above. Data arrives in a private buffer and is read from there: the guest may change
 * its memory at any time. A bad address is an answer (false, -1, -EFAULT), never an exception.
 */
import { EFAULT } from "@xenolith/abi";
import { FRAME_BYTES } from "./direct-map.ts";
import type { DirectMap } from "./direct-map.ts";
import type { Hypervisor } from "./hypervisor.ts";
import type { LockTable } from "./lock.ts";
import { P2M_READABLE_TYPES, P2M_WRITABLE_TYPES } from "./p2m.ts";

/** Bytes of the private buffer that structs are fetched into. */
export const SCRATCH_BYTES = 4096;

/** log2 of the words of a frame: word indices in a bank stay 30 bits, which the engine keeps as integers. */
const WORDS_SHIFT = 10;
const ADDRESS_END = 0x1_0000_0000;
/** Behind the buffer: where single numbers pass, so that reading one does not spoil a fetched struct. */
const WORD_SCRATCH = SCRATCH_BYTES;
/** Behind that: where small copies pass. */
const SMALL_SCRATCH = SCRATCH_BYTES + 8;
/** Fetches and stores up to this long are made word by word: cheaper than a view for a call to memmove. */
const WORDWISE_BYTES_MAX = 128;
/** Bytes copied under one hold of the lock. */
const SLICE_BYTES = 4 << 20;

/** Accessors for the memory of the domain in one slot. One per thread and domain. */
export class GuestMemory {
  /** What `fetch` read and `store` writes: private to this object. */
  readonly scratch: DataView;
  readonly #scratchBytes: Uint8Array;
  readonly #scratchWords: Uint32Array;
  /** Of the bytes from SMALL_SCRATCH, by length. */
  readonly #smallViews: readonly Uint8Array[];
  readonly #directMap: DirectMap;
  readonly #views: readonly DataView[];
  readonly #words: readonly Uint32Array[];
  readonly #locks: LockTable;
  readonly #lock: number;
  readonly #entries: Uint32Array;
  readonly #base: number;
  readonly #addressEnd: number;
  readonly #bankShift: number;
  readonly #bankMask: number;

  constructor(hypervisor: Hypervisor, slot: number) {
    const { p2m, directMap, locks, geometry } = hypervisor;
    this.#scratchBytes = new Uint8Array(SMALL_SCRATCH + WORDWISE_BYTES_MAX);
    this.scratch = new DataView(this.#scratchBytes.buffer);
    this.#scratchWords = new Uint32Array(this.#scratchBytes.buffer);
    this.#smallViews = Array.from({ length: WORDWISE_BYTES_MAX + 1 }, (_, length) =>
      this.#scratchBytes.subarray(SMALL_SCRATCH, SMALL_SCRATCH + length),
    );
    this.#directMap = directMap;
    this.#views = directMap.views;
    this.#words = directMap.u32;
    this.#locks = locks;
    this.#lock = locks.id("p2m", slot);
    this.#entries = p2m.entries;
    this.#base = p2m.at(slot, 0);
    this.#addressEnd = Math.min(ADDRESS_END, p2m.gfnCount * FRAME_BYTES);
    this.#bankShift = Math.log2(geometry.framesPerBank);
    this.#bankMask = geometry.framesPerBank - 1;
  }

  /** Copies `sizeBytes` (<= SCRATCH_BYTES) bytes at `address` to the start of `scratch`. False: not all readable. */
  fetch(address: number, sizeBytes: number): boolean {
    return this.fetchAt(address, sizeBytes, 0);
  }

  /** As `fetch`, to `scratchOffset` in `scratch`. */
  fetchAt(address: number, sizeBytes: number, scratchOffset: number): boolean {
    const inPage = address & (FRAME_BYTES - 1);
    if (inPage + sizeBytes > FRAME_BYTES || sizeBytes > WORDWISE_BYTES_MAX || !this.#isAddress(address)) {
      return this.#copy(address, this.#scratchBytes, scratchOffset, sizeBytes, false);
    }
    this.#locks.acquire(this.#lock);
    const entry = this.#entries[this.#base + (address >>> 12)]!;
    const isAllowed = ((P2M_READABLE_TYPES >>> (entry & 15)) & 1) !== 0;
    if (isAllowed) {
      const mfn = entry >>> 4;
      const bank = mfn >>> this.#bankShift;
      const inBank = mfn & this.#bankMask;
      if (((inPage | scratchOffset | sizeBytes) & 3) === 0) {
        const word = (inBank << WORDS_SHIFT) | (inPage >>> 2);
        copyWords(this.#words[bank]!, word, this.#scratchWords, scratchOffset >>> 2, sizeBytes >>> 2);
      } else copyUnaligned(this.#views[bank]!, inBank * FRAME_BYTES + inPage, this.scratch, scratchOffset, sizeBytes);
    }
    this.#locks.release(this.#lock);
    return isAllowed;
  }

  /** Copies `sizeBytes` bytes of `scratch` from `scratchOffset` to `address`. False: not all writable, nothing written. */
  store(address: number, sizeBytes: number, scratchOffset = 0): boolean {
    const inPage = address & (FRAME_BYTES - 1);
    if (inPage + sizeBytes > FRAME_BYTES || sizeBytes > WORDWISE_BYTES_MAX || !this.#isAddress(address)) {
      return this.#copy(address, this.#scratchBytes, scratchOffset, sizeBytes, true);
    }
    this.#locks.acquire(this.#lock);
    const entry = this.#entries[this.#base + (address >>> 12)]!;
    const isAllowed = ((P2M_WRITABLE_TYPES >>> (entry & 15)) & 1) !== 0;
    if (isAllowed) {
      const mfn = entry >>> 4;
      const bank = mfn >>> this.#bankShift;
      const inBank = mfn & this.#bankMask;
      if (((inPage | scratchOffset | sizeBytes) & 3) === 0) {
        const word = (inBank << WORDS_SHIFT) | (inPage >>> 2);
        copyWords(this.#scratchWords, scratchOffset >>> 2, this.#words[bank]!, word, sizeBytes >>> 2);
      } else copyUnaligned(this.scratch, scratchOffset, this.#views[bank]!, inBank * FRAME_BYTES + inPage, sizeBytes);
    }
    this.#locks.release(this.#lock);
    return isAllowed;
  }

  /**
   * Copies `count` words at `address` to the start of `target`: quicker than `copyFromGuest` for a few of them. False:
   * they are not readable, or not aligned words of one page, which the caller tries otherwise.
   */
  fetchWords(address: number, target: Uint32Array, count: number): boolean {
    if (!this.#areWords(address, count)) return false;
    this.#locks.acquire(this.#lock);
    const entry = this.#entries[this.#base + (address >>> 12)]!;
    const isAllowed = ((P2M_READABLE_TYPES >>> (entry & 15)) & 1) !== 0;
    if (isAllowed) copyWords(this.#wordsOf(entry), this.#wordAt(entry, address), target, 0, count);
    this.#locks.release(this.#lock);
    return isAllowed;
  }

  /** The other way: copies the first `count` words of `source` to `address`. False: as there, and nothing is written. */
  storeWords(address: number, source: Uint32Array, count: number): boolean {
    if (!this.#areWords(address, count)) return false;
    this.#locks.acquire(this.#lock);
    const entry = this.#entries[this.#base + (address >>> 12)]!;
    const isAllowed = ((P2M_WRITABLE_TYPES >>> (entry & 15)) & 1) !== 0;
    if (isAllowed) copyWords(source, 0, this.#wordsOf(entry), this.#wordAt(entry, address), count);
    this.#locks.release(this.#lock);
    return isAllowed;
  }

  /** The byte at `address`, or -1. */
  readU8(address: number): number {
    return this.#read(address, 1);
  }

  /** The 16-bit number at `address`, or -1. */
  readU16(address: number): number {
    return this.#read(address, 2);
  }

  /** The 32-bit number at `address`, or -1. */
  readU32(address: number): number {
    return this.#read(address, 4);
  }

  /**
   * As `readU16` and `readU32`, for a caller whose gate says READ (gate.ts) instead of taking the lock. -1 too when
   * the number is not aligned.
   */
  peek(address: number, sizeBytes: 2 | 4): number {
    if ((address & (sizeBytes - 1)) !== 0 || !this.#isAddress(address)) return -1;
    return this.#aligned(address, sizeBytes);
  }

  /** Writes a byte; false: not writable. */
  writeU8(address: number, value: number): boolean {
    this.scratch.setUint8(WORD_SCRATCH, value);
    return this.store(address, 1, WORD_SCRATCH);
  }

  /** Writes a 16-bit number; false: not writable. */
  writeU16(address: number, value: number): boolean {
    this.scratch.setUint16(WORD_SCRATCH, value, true);
    return this.store(address, 2, WORD_SCRATCH);
  }

  /** Writes a 32-bit number; false: not writable. */
  writeU32(address: number, value: number): boolean {
    this.scratch.setUint32(WORD_SCRATCH, value, true);
    return this.store(address, 4, WORD_SCRATCH);
  }

  /** Fills `target` from `address`. 0, or -EFAULT: not all of it was readable. */
  copyFromGuest(address: number, target: Uint8Array): number {
    const sizeBytes = target.length;
    const inPage = address & (FRAME_BYTES - 1);
    if (sizeBytes > 0 && sizeBytes <= WORDWISE_BYTES_MAX) {
      // By way of a buffer of our own, of which there is a view of every length: making one costs more than this.
      if (!this.fetchAt(address, sizeBytes, SMALL_SCRATCH)) return -EFAULT;
      target.set(this.#smallViews[sizeBytes]!);
      return 0;
    }
    if (inPage + sizeBytes <= FRAME_BYTES && this.#isAddress(address)) {
      this.#locks.acquire(this.#lock);
      const entry = this.#entries[this.#base + (address >>> 12)]!;
      const isAllowed = ((P2M_READABLE_TYPES >>> (entry & 15)) & 1) !== 0;
      if (!isAllowed) {
        // Nothing is copied.
      } else if (sizeBytes === FRAME_BYTES) target.set(this.#directMap.frameView(entry >>> 4));
      else this.#directMap.copyOut((entry >>> 4) * FRAME_BYTES + inPage, target, 0, sizeBytes);
      this.#locks.release(this.#lock);
      return isAllowed || sizeBytes === 0 ? 0 : -EFAULT;
    }
    return this.#copy(address, target, 0, target.length, false) ? 0 : -EFAULT;
  }

  /** Writes `source` to `address`. 0, or -EFAULT: not all of it was writable. */
  copyToGuest(address: number, source: Uint8Array): number {
    const sizeBytes = source.length;
    const inPage = address & (FRAME_BYTES - 1);
    if (inPage + sizeBytes <= FRAME_BYTES && this.#isAddress(address)) {
      this.#locks.acquire(this.#lock);
      const entry = this.#entries[this.#base + (address >>> 12)]!;
      const isAllowed = ((P2M_WRITABLE_TYPES >>> (entry & 15)) & 1) !== 0;
      if (!isAllowed) {
        // Nothing is copied.
      } else if (sizeBytes === FRAME_BYTES) this.#directMap.frameView(entry >>> 4).set(source);
      else this.#directMap.copyIn((entry >>> 4) * FRAME_BYTES + inPage, source, 0, sizeBytes);
      this.#locks.release(this.#lock);
      return isAllowed || sizeBytes === 0 ? 0 : -EFAULT;
    }
    return this.#copy(address, source, 0, source.length, true) ? 0 : -EFAULT;
  }

  /** Zeroes `sizeBytes` bytes. 0, or -EFAULT. */
  zero(address: number, sizeBytes: number): number {
    return this.#copy(address, null, 0, sizeBytes, true) ? 0 : -EFAULT;
  }

  /** Whether all of the range may be read, or written when `write`, at this moment. */
  accessible(address: number, sizeBytes: number, write: boolean): boolean {
    if (!this.#isInside(address, sizeBytes)) return false;
    if (sizeBytes === 0) return true;
    this.#locks.acquire(this.#lock);
    const isAllowed = this.#allows(address, sizeBytes, write);
    this.#locks.release(this.#lock);
    return isAllowed;
  }

  /** Machine address of `address`, or -1. The caller holds the slot's p2m lock, as long as it uses the result. */
  translate(address: number, write: boolean): number {
    if (!this.#isInside(address, 1)) return -1;
    const entry = this.#entries[this.#base + (address >>> 12)]!;
    const types = write ? P2M_WRITABLE_TYPES : P2M_READABLE_TYPES;
    return ((types >>> (entry & 15)) & 1) === 0 ? -1 : (entry >>> 4) * FRAME_BYTES + (address & (FRAME_BYTES - 1));
  }

  /** Identity of the lock under which `translate` may be called. */
  get lock(): number {
    return this.#lock;
  }

  #read(address: number, sizeBytes: number): number {
    if ((address & (sizeBytes - 1)) === 0 && this.#isAddress(address)) return this.#readAligned(address, sizeBytes);
    if (!this.fetchAt(address, sizeBytes, WORD_SCRATCH)) return -1;
    if (sizeBytes === 4) return this.scratch.getUint32(WORD_SCRATCH, true);
    return sizeBytes === 2 ? this.scratch.getUint16(WORD_SCRATCH, true) : this.scratch.getUint8(WORD_SCRATCH);
  }

  /** Reads a number that lies in one word: without the scratch buffer. -1: not readable. */
  #readAligned(address: number, sizeBytes: number): number {
    this.#locks.acquire(this.#lock);
    const value = this.#aligned(address, sizeBytes);
    this.#locks.release(this.#lock);
    return value;
  }

  /** The number in one word; -1: not readable. Under the lock, or what stands for it. */
  #aligned(address: number, sizeBytes: number): number {
    const entry = this.#entries[this.#base + (address >>> 12)]!;
    if (((P2M_READABLE_TYPES >>> (entry & 15)) & 1) === 0) return -1;
    const mfn = entry >>> 4;
    const at = ((mfn & this.#bankMask) << WORDS_SHIFT) | ((address & (FRAME_BYTES - 1)) >>> 2);
    const word = this.#words[mfn >>> this.#bankShift]![at]!;
    return sizeBytes === 4 ? word : (word >>> ((address & 3) * 8)) & (sizeBytes === 2 ? 0xffff : 0xff);
  }

  /** Copies between the guest and `local` (null: zeros), after checking the whole range. False: nothing was copied. */
  #copy(address: number, local: Uint8Array | null, localAt: number, sizeBytes: number, write: boolean): boolean {
    if (!this.#isInside(address, sizeBytes)) return false;
    if (sizeBytes > SLICE_BYTES && !this.accessible(address, sizeBytes, write)) return false;
    for (let done = 0; done < sizeBytes; done += SLICE_BYTES) {
      const slice = Math.min(SLICE_BYTES, sizeBytes - done);
      this.#locks.acquire(this.#lock);
      const isAllowed = this.#allows(address + done, slice, write);
      if (isAllowed) this.#copySlice(address + done, local, localAt + done, slice, write);
      this.#locks.release(this.#lock);
      if (!isAllowed) return false;
    }
    return true;
  }

  /** Copies a checked range, one contiguous piece of machine memory at a time. Under the lock. */
  #copySlice(address: number, local: Uint8Array | null, localAt: number, sizeBytes: number, write: boolean): void {
    let done = 0;
    while (done < sizeBytes) {
      const at = address + done;
      const machine =
        (this.#entries[this.#base + Math.floor(at / FRAME_BYTES)]! >>> 4) * FRAME_BYTES + (at % FRAME_BYTES);
      const piece = this.#contiguousBytes(at, sizeBytes - done);
      if (local === null) this.#directMap.zero(machine, piece);
      else if (write) this.#directMap.copyIn(machine, local, localAt + done, piece);
      else this.#directMap.copyOut(machine, local, localAt + done, piece);
      done += piece;
    }
  }

  /** How many of the `sizeBytes` bytes from `address` lie in one run of consecutive frames of one bank. */
  #contiguousBytes(address: number, sizeBytes: number): number {
    let gfn = Math.floor(address / FRAME_BYTES);
    let bytes = FRAME_BYTES - (address % FRAME_BYTES);
    let mfn = this.#entries[this.#base + gfn]! >>> 4;
    while (bytes < sizeBytes) {
      gfn += 1;
      mfn += 1;
      const isNext = this.#entries[this.#base + gfn]! >>> 4 === mfn && mfn % (1 << this.#bankShift) !== 0;
      if (!isNext) break;
      bytes += FRAME_BYTES;
    }
    return Math.min(bytes, sizeBytes);
  }

  #areWords(address: number, count: number): boolean {
    const inPage = address & (FRAME_BYTES - 1);
    return (address & 3) === 0 && inPage + count * 4 <= FRAME_BYTES && this.#isAddress(address);
  }

  /** The words of the bank in which the frame of a p2m entry is. */
  #wordsOf(entry: number): Uint32Array {
    return this.#words[entry >>> (4 + this.#bankShift)]!;
  }

  /** Place among them of the word at `address`, which is in that frame. */
  #wordAt(entry: number, address: number): number {
    return (((entry >>> 4) & this.#bankMask) << WORDS_SHIFT) | ((address & (FRAME_BYTES - 1)) >>> 2);
  }

  #isAddress(address: number): boolean {
    return address >>> 0 === address && address < this.#addressEnd;
  }

  #isInside(address: number, sizeBytes: number): boolean {
    const areWhole = Number.isSafeInteger(address) && Number.isSafeInteger(sizeBytes);
    return areWhole && address >= 0 && sizeBytes >= 0 && address + sizeBytes <= this.#addressEnd;
  }

  /** Whether every page of the range is of an allowed type. Under the lock; the range is inside the address space. */
  #allows(address: number, sizeBytes: number, write: boolean): boolean {
    const types = write ? P2M_WRITABLE_TYPES : P2M_READABLE_TYPES;
    const last = this.#base + Math.floor((address + sizeBytes - 1) / FRAME_BYTES);
    for (let at = this.#base + Math.floor(address / FRAME_BYTES); at <= last; at += 1) {
      if (((types >>> (this.#entries[at]! & 15)) & 1) === 0) return false;
    }
    return true;
  }
}

/** Copies `count` words, four at a time. */
const copyWords = (from: Uint32Array, fromAt: number, to: Uint32Array, toAt: number, count: number): void => {
  let done = 0;
  for (; done + 4 <= count; done += 4) {
    to[toAt + done] = from[fromAt + done]!;
    to[toAt + done + 1] = from[fromAt + done + 1]!;
    to[toAt + done + 2] = from[fromAt + done + 2]!;
    to[toAt + done + 3] = from[fromAt + done + 3]!;
  }
  for (; done < count; done += 1) to[toAt + done] = from[fromAt + done]!;
};

const copyUnaligned = (from: DataView, fromAt: number, to: DataView, toAt: number, sizeBytes: number): void => {
  let done = 0;
  for (; done + 4 <= sizeBytes; done += 4) to.setUint32(toAt + done, from.getUint32(fromAt + done, true), true);
  for (; done < sizeBytes; done += 1) to.setUint8(toAt + done, from.getUint8(fromAt + done));
};
