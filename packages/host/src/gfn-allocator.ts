/**
 * Which guest frames of an address space are in use, as runs, with one spare gfn behind each run, so that a run of one's
 * own never touches somebody else's. Next fit: what comes back is used again as late as possible, because JavaScript may
 * still have views of it.
 */
import assert from "node:assert/strict";

/** Hands out runs of the gfns from `begin` to `end` - 1. */
export class GfnAllocator {
  /** Free runs in order: where each begins, and how long it is. Neighbours are merged. */
  readonly #begins: number[];
  readonly #counts: number[];
  /** Behind the run that was taken last. */
  #cursor: number;

  constructor(begin: number, end: number) {
    assert(begin >= 0 && end > begin);
    this.#begins = [begin];
    this.#counts = [end - begin];
    this.#cursor = begin;
  }

  /** The first of `count` (> 0) gfns that nobody has, or -1: there is no such run. */
  take(count: number): number {
    assert(Number.isSafeInteger(count) && count > 0);
    const needed = count + 1;
    const at = this.#find(needed);
    if (at < 0) return -1;
    const begin = this.#begins[at]!;
    const gfn = begin < this.#cursor && begin + this.#counts[at]! - this.#cursor >= needed ? this.#cursor : begin;
    this.#cut(at, gfn, needed);
    this.#cursor = gfn + needed;
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

  /** Index of a free run of `needed` gfns, the next one from the cursor on, or -1. */
  #find(needed: number): number {
    const { length } = this.#counts;
    const first = Math.max(0, this.#indexAfter(this.#cursor) - 1);
    const isNext = (at: number): boolean =>
      this.#counts[at]! - Math.max(0, at === first ? this.#cursor - this.#begins[at]! : 0) >= needed;
    for (let at = first; at < length; at += 1) if (isNext(at)) return at;
    for (let at = 0; at <= Math.min(first, length - 1); at += 1) if (this.#counts[at]! >= needed) return at;
    return -1;
  }

  /** Takes `count` gfns from `gfn` out of the free run at index `at`. */
  #cut(at: number, gfn: number, count: number): void {
    const begin = this.#begins[at]!;
    const left = gfn - begin;
    const right = begin + this.#counts[at]! - gfn - count;
    const parts: [number, number][] = [];
    if (left > 0) parts.push([begin, left]);
    if (right > 0) parts.push([gfn + count, right]);
    this.#begins.splice(at, 1, ...parts.map(([first]) => first));
    this.#counts.splice(at, 1, ...parts.map(([, length]) => length));
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
