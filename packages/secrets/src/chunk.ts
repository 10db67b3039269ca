import assert from "node:assert/strict";
import { PAGE_BYTES } from "@xenolith/sys";
import type { SlotPage } from "./slots.ts";
import type { SecretSpace } from "./space.ts";

/** One chunk of a pool: a file, its mapping, and which of its pages are taken. For this package. */
export class Chunk {
  readonly index: number;
  readonly fd: number;
  readonly space: SecretSpace;
  /** The pages of it that are cut into slots, by number; the others are free, or parts of runs. */
  readonly slotPages: (SlotPage | undefined)[];
  readonly #taken: Uint8Array;
  #freePages: number;
  /** No free page lies below it. */
  #searchFrom = 0;

  constructor(index: number, fd: number, space: SecretSpace) {
    this.index = index;
    this.fd = fd;
    this.space = space;
    this.#taken = new Uint8Array(space.sizeBytes / PAGE_BYTES);
    this.#freePages = this.#taken.length;
    this.slotPages = Array.from({ length: this.#taken.length });
  }

  get pageCount(): number {
    return this.#taken.length;
  }

  get freePages(): number {
    return this.#freePages;
  }

  /** Takes `count` pages in a row; the offset of the first in the chunk, or undefined. */
  takePages(count: number): number | undefined {
    if (count > this.#freePages) return undefined;
    const first = this.#findRun(count);
    if (first === undefined) return undefined;
    this.#taken.fill(1, first, first + count);
    this.#freePages -= count;
    if (first === this.#searchFrom) this.#searchFrom = first + count;
    return first * PAGE_BYTES;
  }

  /** Gives pages back that `takePages` gave; they have been wiped. */
  givePages(offset: number, count: number): void {
    const first = offset / PAGE_BYTES;
    for (let page = first; page < first + count; page += 1) assert(this.#taken[page] === 1);
    this.#taken.fill(0, first, first + count);
    this.#freePages += count;
    this.#searchFrom = Math.min(this.#searchFrom, first);
  }

  #findRun(count: number): number | undefined {
    let run = 0;
    for (let page = this.#searchFrom; page < this.#taken.length; page += 1) {
      run = this.#taken[page] === 0 ? run + 1 : 0;
      if (run === count) return page - count + 1;
    }
    return undefined;
  }
}
