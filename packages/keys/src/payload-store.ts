import assert from "node:assert/strict";

/**
 * Where a payload goes: a Uint8Array, or anything that takes bytes without keeping them in the process's ordinary memory,
 * such as a guest's secret page. `set` is called once, and not at all for a payload that is longer than `length`.
 */
export interface PayloadTarget {
  readonly length: number;
  /** The bytes are only lent for the call. */
  set(bytes: Uint8Array): void;
}

/** Where the bytes of payloads are. A handle is a whole number of 0 or more and means nothing elsewhere. */
export interface PayloadStore {
  /** Keeps a copy of these bytes for a user: its handle, or a negated error number (-EDQUOT, -ENOMEM). */
  put(bytes: Uint8Array, uid: number): number;
  /** Gives a payload to another user: its handle from now on, or a negated error number, and it is as before. */
  give(handle: number, uid: number): number;
  /** Copies the first `length` bytes behind the handle to the beginning of the target. */
  copyTo(handle: number, length: number, target: PayloadTarget): void;
  /** Forgets the bytes behind the handle and wipes them. */
  release(handle: number): void;
  /** A user has no keys any more: nothing but its payloads, if it still has some, is to be kept of it. */
  forgetUser(uid: number): void;
  /** Payloads that are kept. */
  readonly count: number;
}

const SLAB_BYTES = 65_536;
/** Cells of one slab that can have a number of their own: handles are slab * CELLS_MAX + cell. */
const CELLS_MAX = 4096;
/** Up to this size a byte loop is faster than a call of `set`. */
const LOOP_BYTES_MAX = 64;

/** Sizes of cells; what is larger has a slab of its own. */
const CELL_BYTES: readonly number[] = [
  16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192, 16_384, 32_768,
];
/** Index into CELL_BYTES by (size + 15) >> 4, for sizes up to 1024. */
const CLASS_OF = Uint8Array.from({ length: 65 }, (_, sixteenths) =>
  CELL_BYTES.findIndex((size) => size >= Math.max(1, sixteenths) * 16),
);

class Slab {
  readonly number: number;
  readonly sizeClass: number;
  readonly bytes: Uint8Array;
  readonly cellBytes: number;
  /** Cells below this one have been used. */
  reached = 0;
  used = 0;
  readonly free: number[] = [];

  constructor(number: number, sizeClass: number, cellBytes: number, sizeBytes: number) {
    this.number = number;
    this.sizeClass = sizeClass;
    this.cellBytes = cellBytes;
    this.bytes = new Uint8Array(sizeBytes);
  }

  get isFull(): boolean {
    return this.free.length === 0 && (this.reached + 1) * this.cellBytes > this.bytes.length;
  }

  take(): number {
    this.used += 1;
    const again = this.free.pop();
    if (again !== undefined) return again;
    this.reached += 1;
    return this.reached - 1;
  }
}

/**
 * Payloads in ordinary memory: cells of fixed sizes in slabs of 64 KiB, so that a payload costs little beside its bytes.
 * They are wiped on release.
 */
export class MemoryPayloadStore implements PayloadStore {
  readonly #slabs: (Slab | undefined)[] = [];
  readonly #unusedNumbers: number[] = [];
  /** Slabs with a free cell, by size class. */
  readonly #open: Slab[][] = CELL_BYTES.map(() => []);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  put(bytes: Uint8Array): number {
    const slab = this.#slabFor(bytes.length);
    const cell = slab.take();
    if (slab.sizeClass >= 0 && slab.isFull) this.#open[slab.sizeClass]!.pop();
    copy(bytes, { from: 0, target: slab.bytes, at: cell * slab.cellBytes, length: bytes.length });
    this.#count += 1;
    return slab.number * CELLS_MAX + cell;
  }

  copyTo(handle: number, length: number, target: PayloadTarget): void {
    const slab = this.#slabOf(handle);
    assert(length <= slab.cellBytes && length <= target.length);
    if (!(target instanceof Uint8Array)) {
      const from = (handle % CELLS_MAX) * slab.cellBytes;
      target.set(slab.bytes.subarray(from, from + length));
      return;
    }
    copy(slab.bytes, { from: (handle % CELLS_MAX) * slab.cellBytes, target, at: 0, length });
  }

  give(handle: number): number {
    return handle;
  }

  forgetUser(): void {
    // Nothing is kept by user here.
  }

  release(handle: number): void {
    const slab = this.#slabOf(handle);
    const cell = handle % CELLS_MAX;
    slab.bytes.fill(0, cell * slab.cellBytes, (cell + 1) * slab.cellBytes);
    this.#count -= 1;
    slab.used -= 1;
    if (slab.sizeClass < 0) {
      this.#drop(slab);
      return;
    }
    const open = this.#open[slab.sizeClass]!;
    if (slab.isFull) open.push(slab);
    slab.free.push(cell);
    // One empty slab of a size stays, so that a payload that comes and goes does not make and drop it each time.
    if (slab.used > 0 || open.length === 1) return;
    open.splice(open.indexOf(slab), 1);
    this.#drop(slab);
  }

  #slabOf(handle: number): Slab {
    const slab = this.#slabs[Math.floor(handle / CELLS_MAX)];
    assert(slab !== undefined);
    return slab;
  }

  #slabFor(size: number): Slab {
    const sizeClass =
      size <= 1024 ? CLASS_OF[(size + 15) >> 4]! : CELL_BYTES.findIndex((cellBytes) => cellBytes >= size);
    if (sizeClass < 0) return this.#create(-1, size, size);
    const open = this.#open[sizeClass]!;
    let slab = open.at(-1);
    if (slab === undefined) {
      slab = this.#create(sizeClass, CELL_BYTES[sizeClass]!, SLAB_BYTES);
      open.push(slab);
    }
    return slab;
  }

  #create(sizeClass: number, cellBytes: number, sizeBytes: number): Slab {
    const number = this.#unusedNumbers.pop() ?? this.#slabs.length;
    const slab = new Slab(number, sizeClass, cellBytes, sizeBytes);
    this.#slabs[number] = slab;
    return slab;
  }

  #drop(slab: Slab): void {
    this.#slabs[slab.number] = undefined;
    this.#unusedNumbers.push(slab.number);
  }
}

interface Stretch {
  readonly from: number;
  readonly target: Uint8Array;
  readonly at: number;
  readonly length: number;
}

const copy = (source: Uint8Array, { from, target, at, length }: Stretch): void => {
  if (length > LOOP_BYTES_MAX) target.set(source.subarray(from, from + length), at);
  else for (let index = 0; index < length; index += 1) target[at + index] = source[from + index]!;
};
