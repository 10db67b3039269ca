/**
 * Which guest frames of an address space are in use, as runs: first fit, with one spare gfn behind each run, so that a
 * run of one's own never touches somebody else's.
 */
import assert from "node:assert/strict";

/** Hands out runs of the gfns from `begin` to `end` - 1. */
export class GfnAllocator {
  /** Free runs in order: where each begins, and how long it is. Neighbours are merged. */
  readonly #begins: number[];
  readonly #counts: number[];

  constructor(begin: number, end: number) {
    assert(begin >= 0 && end > begin);
    this.#begins = [begin];
    this.#counts = [end - begin];
  }

  /** The first of `count` (> 0) gfns that nobody has, or -1: there is no such run. */
  take(count: number): number {
    assert(Number.isSafeInteger(count) && count > 0);
    const needed = count + 1;
    const at = this.#counts.findIndex((free) => free >= needed);
    if (at < 0) return -1;
    const gfn = this.#begins[at]!;
    this.#begins[at]! += needed;
    this.#counts[at]! -= needed;
    if (this.#counts[at] === 0) {
      this.#begins.splice(at, 1);
      this.#counts.splice(at, 1);
    }
    return gfn;
  }

  /** Takes back what `take(count)` returned. */
  give(gfn: number, count: number): void {
    const length = count + 1;
    const at = this.#indexAfter(gfn);
    const left = at - 1;
    const isAfterLeft = left >= 0 && this.#begins[left]! + this.#counts[left]! === gfn;
    const isBeforeRight = this.#begins[at] === gfn + length;
    assert(left < 0 || this.#begins[left]! + this.#counts[left]! <= gfn);
    assert(at === this.#begins.length || this.#begins[at]! >= gfn + length);
    if (isAfterLeft && isBeforeRight) {
      this.#counts[left]! += length + this.#counts[at]!;
      this.#begins.splice(at, 1);
      this.#counts.splice(at, 1);
    } else if (isAfterLeft) {
      this.#counts[left]! += length;
    } else if (isBeforeRight) {
      this.#begins[at] = gfn;
      this.#counts[at]! += length;
    } else {
      this.#begins.splice(at, 0, gfn);
      this.#counts.splice(at, 0, length);
    }
  }

  /** Index of the first free run that begins behind `gfn`. */
  #indexAfter(gfn: number): number {
    let low = 0;
    let high = this.#begins.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#begins[middle]! <= gfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
