/**
 * The hypervisor's own view of all machine memory. A machine address is mfn * 4096 + offset, a number below 2^40.
 *
 * Whoever uses it holds what keeps the frame from being freed meanwhile: the p2m lock of the domain in which it was
 * looked up, or a reference. Free frames must not be touched (see frame-table.ts).
 */
import assert from "node:assert/strict";
import { type AtomicWords, plainWords } from "./atomic-words.ts";

/** Bytes of a frame. */
export const FRAME_BYTES = 4096;
/** Views of single frames that are kept; a power of two. */
const FRAME_VIEWS = 256;

/** Typed views of every bank; bank = address / bankBytes. */
export class DirectMap {
  /** Shared views, one of each kind per bank. */
  readonly u8: readonly Uint8Array[];
  readonly u32: readonly Uint32Array[];
  readonly i32: readonly Int32Array[];
  readonly i16: readonly Int16Array[];
  readonly views: readonly DataView[];
  /** Fast atomics on every bank. */
  readonly words: readonly AtomicWords[];
  /** Bytes of one bank, a power of two. */
  readonly bankBytes: number;
  /** mfn = bank << frameShift | frame within the bank, which frameMask selects. */
  readonly frameShift: number;
  readonly frameMask: number;
  /** 1 / bankBytes: exact, and cheaper to multiply with. */
  readonly #inverse: number;
  /**
   * Views for bulk copies: the thread's non-shared ones, which copy as memmove does, or else the shared ones. A bank's
   * is made when it is first needed: the engine answers each one with a collection of its heap.
   */
  readonly #bulk: (Uint8Array | undefined)[];
  /** Buffer and place of each of them: asking the view for its buffer costs more than the rest of a small copy. */
  readonly #buffers: (ArrayBufferLike | undefined)[];
  readonly #starts: number[];
  readonly #fastBank: ((bank: number) => Uint8Array) | undefined;
  /** Views of frames that were copied as a whole lately, by the low bits of their mfn. */
  readonly #frameViews: Uint8Array[];
  readonly #frameMfns = new Int32Array(FRAME_VIEWS).fill(-1);

  constructor(
    banks: readonly SharedArrayBuffer[],
    fastBank?: (bank: number) => Uint8Array,
    words: readonly AtomicWords[] = banks.map(plainWords),
  ) {
    this.u8 = banks.map((bank) => new Uint8Array(bank));
    this.u32 = banks.map((bank) => new Uint32Array(bank));
    this.i32 = banks.map((bank) => new Int32Array(bank));
    this.i16 = banks.map((bank) => new Int16Array(bank));
    this.words = words;
    this.views = banks.map((bank) => new DataView(bank));
    this.bankBytes = banks[0]?.byteLength ?? FRAME_BYTES;
    this.frameShift = Math.log2(this.bankBytes / FRAME_BYTES);
    this.frameMask = 2 ** this.frameShift - 1;
    this.#inverse = 1 / this.bankBytes;
    this.#fastBank = fastBank;
    this.#bulk = banks.map(() => undefined);
    this.#buffers = banks.map(() => undefined);
    this.#starts = banks.map(() => 0);
    this.#frameViews = Array.from({ length: FRAME_VIEWS }, () => new Uint8Array(0));
    assert(Number.isInteger(Math.log2(this.bankBytes)));
  }

  /** Bank of a machine address. */
  bankOf(machine: number): number {
    return (machine * this.#inverse) | 0;
  }

  /** Offset of a machine address in its bank. */
  offsetOf(machine: number): number {
    return machine - this.bankOf(machine) * this.bankBytes;
  }

  /** Where frame `mfn` begins in its bank, signed. */
  placeOf(mfn: number): number {
    return (mfn & this.frameMask) << 12;
  }

  /** The 32-bit number at `machine`, which is aligned to 4. Not atomic for the language, whole on every machine. */
  loadU32(machine: number): number {
    const bank = this.bankOf(machine);
    return this.u32[bank]![this.#word(machine, bank)]!;
  }

  /** Writes the 32-bit number at `machine`, aligned to 4. */
  storeU32(machine: number, value: number): void {
    const bank = this.bankOf(machine);
    this.u32[bank]![this.#word(machine, bank)] = value;
  }

  /** Atomically reads the aligned 32-bit number at `machine`. */
  atomicLoadU32(machine: number): number {
    const bank = this.bankOf(machine);
    return Atomics.load(this.u32[bank]!, this.#word(machine, bank));
  }

  /** Atomically writes the aligned 32-bit number at `machine`. */
  atomicStoreU32(machine: number, value: number): void {
    const bank = this.bankOf(machine);
    Atomics.store(this.u32[bank]!, this.#word(machine, bank), value);
  }

  /** Atomically sets `bits`; returns what was there, unsigned. */
  orU32(machine: number, bits: number): number {
    const bank = this.bankOf(machine);
    return Atomics.or(this.u32[bank]!, this.#word(machine, bank), bits);
  }

  /** Atomically keeps only `bits`; returns what was there, unsigned. */
  andU32(machine: number, bits: number): number {
    const bank = this.bankOf(machine);
    return Atomics.and(this.u32[bank]!, this.#word(machine, bank), bits);
  }

  /** Atomically exchanges the aligned 32-bit number. */
  exchangeU32(machine: number, value: number): number {
    const bank = this.bankOf(machine);
    return Atomics.exchange(this.u32[bank]!, this.#word(machine, bank), value);
  }

  /** Compare-and-swap; returns what was there: equal to `expected` on success. Values are unsigned. */
  cas(machine: number, expected: number, replacement: number): number {
    const bank = this.bankOf(machine);
    return Atomics.compareExchange(this.u32[bank]!, this.#word(machine, bank), expected, replacement);
  }

  /** Atomically writes one byte. */
  atomicStoreU8(machine: number, value: number): void {
    const bank = this.bankOf(machine);
    Atomics.store(this.u8[bank]!, machine - bank * this.bankBytes, value);
  }

  /** Atomically exchanges one byte. */
  exchangeU8(machine: number, value: number): number {
    const bank = this.bankOf(machine);
    return Atomics.exchange(this.u8[bank]!, machine - bank * this.bankBytes, value);
  }

  /** A shared view of `sizeBytes` bytes of one bank. Allocates. */
  bytes(machine: number, sizeBytes: number): Uint8Array {
    const offset = this.offsetOf(machine);
    return this.u8[this.bankOf(machine)]!.subarray(offset, offset + sizeBytes);
  }

  /** Copies `sizeBytes` bytes of one bank into `target` from index `at`. For bulk: it costs one view per call. */
  copyOut(machine: number, target: Uint8Array, at: number, sizeBytes: number): void {
    const bank = this.bankOf(machine);
    const offset = machine - bank * this.bankBytes;
    const buffer = this.#buffers[bank] ?? this.#openBulk(bank).buffer;
    target.set(new Uint8Array(buffer, this.#starts[bank]! + offset, sizeBytes), at);
  }

  /** Copies `sizeBytes` bytes of `source` from index `at` into one bank. */
  copyIn(machine: number, source: Uint8Array, at: number, sizeBytes: number): void {
    const isWhole = at === 0 && sizeBytes === source.length;
    const bytes = isWhole ? source : source.subarray(at, at + sizeBytes);
    this.#bulkOf(this.bankOf(machine)).set(bytes, this.offsetOf(machine));
  }

  /** Zeroes `sizeBytes` bytes of one bank. */
  zero(machine: number, sizeBytes: number): void {
    const offset = this.offsetOf(machine);
    this.#bulkOf(this.bankOf(machine)).fill(0, offset, offset + sizeBytes);
  }

  /** Zeroes `count` frames of one bank from `mfn`. */
  zeroFrames(mfn: number, count: number): void {
    this.zero(mfn * FRAME_BYTES, count * FRAME_BYTES);
  }

  /** Copies `count` frames; each run lies in one bank, and the two do not overlap. */
  copyFrames(to: number, from: number, count: number): void {
    const bank = this.bankOf(from * FRAME_BYTES);
    const buffer = this.#buffers[bank] ?? this.#openBulk(bank).buffer;
    const start = this.#starts[bank]! + this.offsetOf(from * FRAME_BYTES);
    const source = new Uint8Array(buffer, start, count * FRAME_BYTES);
    this.copyIn(to * FRAME_BYTES, source, 0, source.length);
  }

  /**
   * Copies `sizeBytes` bytes from `fromOffset` of frame `from` to `toOffset` of frame `to`, as memmove does. Neither end
   * leaves its bank. For copies from frame to frame: it makes no view.
   */
  copyBetween(to: number, toOffset: number, from: number, fromOffset: number, sizeBytes: number): void {
    const shift = this.frameShift;
    const mask = this.frameMask;
    const bank = to >>> shift;
    if (bank === from >>> shift) {
      this.words[bank]!.copy(((to & mask) << 12) | toOffset, ((from & mask) << 12) | fromOffset, sizeBytes);
      return;
    }
    const offset = (from & mask) * FRAME_BYTES + fromOffset;
    const source = this.#bulkOf(from >>> shift).subarray(offset, offset + sizeBytes);
    this.#bulkOf(bank).set(source, (to & mask) * FRAME_BYTES + toOffset);
  }

  /** Makes the view of `bank` for bulk copies, ahead of its first use. */
  prepareBulk(bank: number): void {
    this.#bulkOf(bank);
  }

  /** A view for bulk copies of one frame. Making one costs half as much as copying the frame: the last ones are kept. */
  frameView(mfn: number): Uint8Array {
    const place = mfn & (FRAME_VIEWS - 1);
    const kept = this.#frameViews[place]!;
    return this.#frameMfns[place] === mfn ? kept : this.#openFrame(mfn, place);
  }

  #openFrame(mfn: number, place: number): Uint8Array {
    const offset = (mfn & this.frameMask) * FRAME_BYTES;
    const view = this.#bulkOf(mfn >>> this.frameShift).subarray(offset, offset + FRAME_BYTES);
    this.#frameViews[place] = view;
    this.#frameMfns[place] = mfn;
    return view;
  }

  #bulkOf(bank: number): Uint8Array {
    return this.#bulk[bank] ?? this.#openBulk(bank);
  }

  #openBulk(bank: number): Uint8Array {
    const view = this.#fastBank?.(bank) ?? this.u8[bank]!;
    assert(view.length === this.bankBytes);
    this.#bulk[bank] = view;
    this.#buffers[bank] = view.buffer;
    this.#starts[bank] = view.byteOffset;
    return view;
  }

  #word(machine: number, bank: number): number {
    return ((machine - bank * this.bankBytes) * 0.25) | 0;
  }
}
