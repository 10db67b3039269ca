/**
 * A page-table double for tests: keeps its own table for each address space, counts mappings as Linux does, checks what
 * it is told and fails on demand. Discarding really zeroes the frames, and `read`/`write` see what the guest would see.
 */
import assert from "node:assert/strict";
import { ENOMEM } from "@xenolith/abi";
import type { Geometry } from "./geometry.ts";
import type { Mmu } from "./platform.ts";

/** One address space: frame + 1 or 0, and whether the guest may write it. */
interface FakeSpace {
  readonly frames: Uint32Array;
  readonly writable: Uint8Array;
}

/** What one call asked for. */
export interface MmuCall {
  readonly kind: "map" | "mapSecret" | "protect" | "zero" | "unmap" | "discard";
  /** First gfn, or first mfn of a discard. */
  readonly first: number;
  readonly count: number;
}

const FRAME_BYTES = 4096;
/** In `FakeSpace.frames`: the kernel's zero page. */
const ZERO_PAGE = 0xffff_ffff;
/** In `FakeSpace.frames`: secret memory is this, its handle, and 12 bits of page. */
const SECRET = 0x4000_0000;
const SECRET_PAGES = 4096;

/** See the file's comment. Used from one thread. */
export class FakeMmu implements Mmu {
  /** Every call so far, failed ones included. */
  readonly calls: MmuCall[] = [];
  /** Most mappings that the fake kernel allows in all spaces together. */
  vmaLimit = Infinity;
  /** Called at each call, before it does anything: what others do meanwhile. */
  onCall: ((call: MmuCall) => void) | undefined = undefined;
  readonly #geometry: Geometry;
  readonly #banks: readonly Uint8Array[];
  readonly #spaces = new Map<number, FakeSpace>();
  readonly #secrets = new Map<number, Uint8Array>();
  #failIn = 0;
  #failCount = 0;

  constructor(geometry: Geometry, banks: readonly SharedArrayBuffer[]) {
    this.#geometry = geometry;
    this.#banks = banks.map((bank) => new Uint8Array(bank));
  }

  /** The n-th call from now (1 = the next), and `count - 1` after it, will change nothing and return -ENOMEM. */
  failAt(n: number, count = 1): void {
    this.#failIn = n;
    this.#failCount = count;
  }

  /** Number of mappings that Linux would keep for the space at `base`. */
  vmaCount(base: number): number {
    const space = this.#space(base);
    let count = 1;
    for (let gfn = 1; gfn < space.frames.length; gfn += 1) if (!this.#merges(space, gfn)) count += 1;
    return count;
  }

  /** Frame at `gfn` of the space at `base`, or -1. */
  frameAt(base: number, gfn: number): number {
    return this.#space(base).frames[gfn]! - 1;
  }

  /** Whether the guest may write `gfn`. */
  writableAt(base: number, gfn: number): boolean {
    return this.#space(base).writable[gfn] === 1;
  }

  /** Makes `pages` pages of zeros that `mapSecret` can map by `handle`, and returns them. */
  addSecret(handle: number, pages: number): Uint8Array {
    assert(handle > 0 && handle < 2 ** 17 && pages < SECRET_PAGES);
    const bytes = new Uint8Array(pages * FRAME_BYTES);
    this.#secrets.set(handle, bytes);
    return bytes;
  }

  /** How often a page of the secret memory of that handle is mapped, in all spaces. */
  secretMappings(handle: number): number {
    const first = SECRET + handle * SECRET_PAGES + 1;
    let count = 0;
    for (const { frames } of this.#spaces.values()) {
      count += frames.filter((frame) => frame >= first && frame < first + SECRET_PAGES).length;
    }
    return count;
  }

  /** What `frameAt` answers for page `page` of the secret memory of that handle. */
  secretFrame(handle: number, page: number): number {
    return SECRET + handle * SECRET_PAGES + page;
  }

  /** The byte that the guest reads at `address`, or -1 where it would trap. */
  read(base: number, address: number): number {
    const frame = this.frameAt(base, Math.floor(address / FRAME_BYTES));
    if (frame === ZERO_PAGE - 1) return 0;
    return frame < 0 ? -1 : this.#bytesOf(frame, 1)[address % FRAME_BYTES]!;
  }

  /** The guest writes a byte; false where it would trap. */
  write(base: number, address: number, value: number): boolean {
    const gfn = Math.floor(address / FRAME_BYTES);
    if (!this.writableAt(base, gfn)) return false;
    this.#bytesOf(this.frameAt(base, gfn), 1)[address % FRAME_BYTES] = value;
    return true;
  }

  map(base: number, gfn: number, mfn: number, count: number, writable: boolean): number {
    const space = this.#checkRange(base, gfn, count);
    const { framesPerBank, machineFrames } = this.#geometry;
    assert(mfn >= 0 && mfn + count <= machineFrames, "map of frames that do not exist");
    assert(Math.floor(mfn / framesPerBank) === Math.floor((mfn + count - 1) / framesPerBank), "map across banks");
    if (this.#fails({ kind: "map", first: gfn, count })) return -ENOMEM;
    return this.#change(space, gfn, count, (index) => [mfn + index + 1, writable ? 1 : 0]);
  }

  mapSecret(base: number, gfn: number, handle: number, page: number, count: number, writable: boolean): number {
    const space = this.#checkRange(base, gfn, count);
    const bytes = this.#secrets.get(handle);
    assert(bytes !== undefined, `map of secret memory ${handle}, which does not exist`);
    assert(page >= 0 && (page + count) * FRAME_BYTES <= bytes.length, "map beyond the end of secret memory");
    if (this.#fails({ kind: "mapSecret", first: gfn, count })) return -ENOMEM;
    return this.#change(space, gfn, count, (index) => [this.secretFrame(handle, page + index) + 1, writable ? 1 : 0]);
  }

  protect(base: number, gfn: number, count: number, writable: boolean): number {
    const space = this.#checkRange(base, gfn, count);
    const frames = space.frames.slice(gfn, gfn + count);
    assert(
      frames.every((frame) => frame > SECRET && frame !== ZERO_PAGE),
      "protect of what is not secret memory",
    );
    if (this.#fails({ kind: "protect", first: gfn, count })) return -ENOMEM;
    return this.#change(space, gfn, count, (index) => [frames[index]!, writable ? 1 : 0]);
  }

  zero(base: number, gfn: number, count: number): number {
    const space = this.#checkRange(base, gfn, count);
    if (this.#fails({ kind: "zero", first: gfn, count })) return -ENOMEM;
    return this.#change(space, gfn, count, () => [ZERO_PAGE, 0]);
  }

  unmap(base: number, gfn: number, count: number): number {
    const space = this.#checkRange(base, gfn, count);
    if (this.#fails({ kind: "unmap", first: gfn, count })) return -ENOMEM;
    return this.#change(space, gfn, count, () => [0, 0]);
  }

  discard(mfn: number, count: number): number {
    const { framesPerBank, machineFrames } = this.#geometry;
    assert(count > 0 && mfn >= 0 && mfn + count <= machineFrames, "discard of frames that do not exist");
    assert(Math.floor(mfn / framesPerBank) === Math.floor((mfn + count - 1) / framesPerBank), "discard across banks");
    for (const { frames } of this.#spaces.values()) {
      const mapped = frames.findIndex((frame) => frame !== ZERO_PAGE && frame > mfn && frame <= mfn + count);
      assert(mapped < 0, `discard of a frame that is mapped at gfn ${mapped}`);
    }
    if (this.#fails({ kind: "discard", first: mfn, count })) return -ENOMEM;
    this.#bytesOf(mfn, count).fill(0);
    return 0;
  }

  /** Applies a change unless it would exceed `vmaLimit`. */
  #change(space: FakeSpace, gfn: number, count: number, entry: (index: number) => [number, number]): number {
    const frames = space.frames.slice(gfn, gfn + count);
    const writable = space.writable.slice(gfn, gfn + count);
    for (let index = 0; index < count; index += 1) {
      const [frame, mode] = entry(index);
      space.frames[gfn + index] = frame;
      space.writable[gfn + index] = mode;
    }
    if (this.vmaLimit === Infinity) return 0;
    let total = 0;
    for (const base of this.#spaces.keys()) total += this.vmaCount(base);
    if (total <= this.vmaLimit) return 0;
    space.frames.set(frames, gfn);
    space.writable.set(writable, gfn);
    return -ENOMEM;
  }

  #fails(call: MmuCall): boolean {
    this.calls.push(call);
    this.onCall?.(call);
    if (this.#failIn === 0) return false;
    this.#failIn -= 1;
    if (this.#failIn > 0) return false;
    this.#failCount -= 1;
    if (this.#failCount > 0) this.#failIn = 1;
    return true;
  }

  #merges(space: FakeSpace, gfn: number): boolean {
    const frame = space.frames[gfn]!;
    const before = space.frames[gfn - 1]!;
    if (frame === 0 || before === 0 || frame === ZERO_PAGE) return frame === before;
    const isBankEnd = frame <= SECRET && (frame - 1) % this.#geometry.framesPerBank === 0;
    const isNext = frame === before + 1 && !isBankEnd;
    return isNext && space.writable[gfn] === space.writable[gfn - 1];
  }

  #bytesOf(mfn: number, count: number): Uint8Array {
    if (mfn >= SECRET) {
      const secret = this.#secrets.get(Math.floor((mfn - SECRET) / SECRET_PAGES))!;
      const from = ((mfn - SECRET) % SECRET_PAGES) * FRAME_BYTES;
      return secret.subarray(from, from + count * FRAME_BYTES);
    }
    const { framesPerBank } = this.#geometry;
    const at = (mfn % framesPerBank) * FRAME_BYTES;
    return this.#banks[Math.floor(mfn / framesPerBank)]!.subarray(at, at + count * FRAME_BYTES);
  }

  #checkRange(base: number, gfn: number, count: number): FakeSpace {
    assert(gfn >= 0 && count > 0 && gfn + count <= this.#geometry.gfnCount, "a range outside the address space");
    return this.#space(base);
  }

  #space(base: number): FakeSpace {
    assert(base !== 0, "no address space at 0");
    let space = this.#spaces.get(base);
    if (space === undefined) {
      const { gfnCount } = this.#geometry;
      space = { frames: new Uint32Array(gfnCount), writable: new Uint8Array(gfnCount) };
      this.#spaces.set(base, space);
    }
    return space;
  }
}
