/**
 * Pages cut into slots of one size. Owners share them: a secret of 32 bytes costs 64, whoever has it. Nothing here is
 * secret, and nothing of it lies in secret memory.
 */
import assert from "node:assert/strict";
import { PAGE_BYTES } from "@xenolith/sys";
import type { Chunk } from "./chunk.ts";

/** Bytes behind each secret that tell whether something wrote past it. */
export const CANARY_BYTES = 16;
/** Sizes of slots; what does not fit the largest gets pages of its own. */
const SLOT_BYTES: readonly number[] = [64, 128, 256, 512, 1024, 2048, PAGE_BYTES];

/** Which size of slot holds a secret of so many bytes; undefined when it needs more than a page. */
export const slotClassOf = (sizeBytes: number): number | undefined => {
  const needed = sizeBytes + CANARY_BYTES;
  if (needed > PAGE_BYTES) return undefined;
  // 64 is 2^6: the number of leading zeros of needed - 1 gives the next power of two.
  return needed <= 64 ? 0 : 26 - Math.clz32(needed - 1);
};

/** What a slot of a class takes, in bytes. */
export const slotBytesOf = (slotClass: number): number => SLOT_BYTES[slotClass]!;

/** A page of slots of one size. */
export class SlotPage {
  readonly chunk: Chunk;
  readonly offset: number;
  readonly slotClass: number;
  readonly slotBytes: number;
  readonly #free: Uint8Array;
  #freeCount: number;
  /** Where it is among the open pages of its class; -1 when it is full. */
  place = -1;

  constructor(chunk: Chunk, offset: number, slotClass: number) {
    this.chunk = chunk;
    this.offset = offset;
    this.slotClass = slotClass;
    this.slotBytes = slotBytesOf(slotClass);
    const count = PAGE_BYTES / this.slotBytes;
    this.#free = Uint8Array.from({ length: count }, (_, index) => count - 1 - index);
    this.#freeCount = count;
  }

  get isFull(): boolean {
    return this.#freeCount === 0;
  }

  get isEmpty(): boolean {
    return this.#freeCount === this.#free.length;
  }

  /** The offset of a free slot. */
  take(): number {
    assert(this.#freeCount > 0);
    this.#freeCount -= 1;
    return this.offset + this.#free[this.#freeCount]! * this.slotBytes;
  }

  give(offset: number): void {
    assert(this.#freeCount < this.#free.length);
    this.#free[this.#freeCount] = (offset - this.offset) / this.slotBytes;
    this.#freeCount += 1;
  }
}

/** The pages of slots of a pool that have a free slot, by class. */
export class OpenPages {
  readonly #pages: readonly SlotPage[][] = SLOT_BYTES.map(() => []);

  /** A page of this class with a free slot, in a chunk that is allowed. */
  find(slotClass: number, isAllowed: ((chunk: Chunk) => boolean) | undefined): SlotPage | undefined {
    const pages = this.#pages[slotClass]!;
    return isAllowed === undefined ? pages.at(-1) : pages.find(({ chunk }) => isAllowed(chunk));
  }

  add(page: SlotPage): void {
    const pages = this.#pages[page.slotClass]!;
    page.place = pages.length;
    pages.push(page);
  }

  remove(page: SlotPage): void {
    const pages = this.#pages[page.slotClass]!;
    assert(pages[page.place] === page);
    const last = pages.pop()!;
    if (last !== page) {
      pages[page.place] = last;
      last.place = page.place;
    }
    page.place = -1;
  }

  /** Whether `page` is the only open page of its class. */
  isOnly(page: SlotPage): boolean {
    return this.#pages[page.slotClass]!.length === 1 && page.place === 0;
  }

  /** Pages without a secret, which are kept for the next. */
  empty(): SlotPage[] {
    return this.#pages.flatMap((pages) => pages.filter((page) => page.isEmpty));
  }
}
