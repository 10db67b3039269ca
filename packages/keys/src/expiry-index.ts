import type { Key } from "./key.ts";

/** Which keys have an expiry, by second: finding those that are due costs nothing per key that is not. */
export class ExpiryIndex {
  readonly #keys = new Map<number, Set<Key>>();
  /** A binary heap of seconds; it may hold seconds that have no keys any more. */
  #heap: number[] = [];

  /** Notes that a key expires at this second. */
  add(second: number, key: Key): void {
    const keys = this.#keys.get(second);
    if (keys !== undefined) {
      keys.add(key);
      return;
    }
    this.#keys.set(second, new Set([key]));
    if (this.#heap.length > 64 && this.#heap.length > 2 * this.#keys.size) this.#rebuild();
    else this.#push(second);
  }

  /** Forgets it again. */
  remove(second: number, key: Key): void {
    const keys = this.#keys.get(second);
    if (keys === undefined) return;
    keys.delete(key);
    if (keys.size === 0) this.#keys.delete(second);
  }

  /** The first second at which a key expires. */
  first(): number | undefined {
    while (this.#heap.length > 0 && !this.#keys.has(this.#heap[0]!)) this.#pop();
    return this.#heap[0];
  }

  /** Takes out all keys that expire up to and at this second. */
  takeUntil(second: number): Key[] {
    const due: Key[] = [];
    for (let first = this.first(); first !== undefined && first <= second; first = this.first()) {
      for (const key of this.#keys.get(first)!) due.push(key);
      this.#keys.delete(first);
      this.#pop();
    }
    return due;
  }

  /** Whether it knows that this key expires at this second. */
  has(second: number, key: Key): boolean {
    return this.#keys.get(second)?.has(key) ?? false;
  }

  #rebuild(): void {
    this.#heap = [...this.#keys.keys()].toSorted((left, right) => left - right);
  }

  #push(second: number): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(second);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (heap[parent]! <= second) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = second;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child += 1;
      if (heap[child]! >= last) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}
