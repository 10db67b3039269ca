import assert from "node:assert/strict";
import type { Key, KeyIndex } from "./key.ts";
import type { Restriction } from "./restriction.ts";

/** Links that are kept in slots; a keyring with more has an index. */
const SLOTS = 16;

const matches = (key: Key, { type, description, domain }: KeyIndex): boolean =>
  key.type === type && key.description === description && key.domain === domain;

/**
 * The links of one keyring: at most one for each type, domain and description.
 *
 * Up to 16 links stand in slots, whose order is the order in which the keyring is listed and searched: the first link of an empty
 * keyring takes slot 0, each further one the highest slot that is free, and a link that is replaced keeps its slot. A
 * keyring that grows past that is indexed by description and keeps the order of insertion.
 */
export class LinkTable {
  /** What may be linked; set once. */
  restriction: Restriction | undefined = undefined;
  /** Bytes that the collector took no account of when it removed links; they come back when the keyring is cleared or ends. */
  leakedBytes = 0;
  #slots: (Key | undefined)[] = [];
  #index: Map<string, Key | Key[]> | undefined = undefined;
  #count = 0;
  /** Whether there are slots: not before the first link, and no more after the last one was unlinked. */
  #rooted = false;
  /** Keyrings among the links in their order; undefined when it must be made anew. */
  #keyrings: readonly Key[] | undefined = [];
  /** The same as a set, for a keyring that is indexed. */
  #keyringSet: Set<Key> | undefined = undefined;

  /** Links. */
  get size(): number {
    return this.#count;
  }

  /** The key that a link with this index leads to. */
  find(index: KeyIndex): Key | undefined {
    if (this.#index === undefined) {
      const slot = this.#slotOf(index);
      return slot < 0 ? undefined : this.#slots[slot];
    }
    const found = this.#index.get(index.description);
    if (found === undefined) return undefined;
    if (Array.isArray(found)) return found.find((key) => matches(key, index));
    return matches(found, index) ? found : undefined;
  }

  /** Links a key; the result is the key whose link, of the same index, it took the place of. */
  add(key: Key): Key | undefined {
    if (isKeyring(key)) this.#keyrings = undefined;
    if (this.#index !== undefined) return this.#addIndexed(key);
    const slot = this.#slotOf(key);
    if (slot >= 0) {
      const displaced = this.#slots[slot];
      this.#slots[slot] = key;
      return displaced;
    }
    if (this.#count === SLOTS) {
      this.#startIndex();
      return this.#addIndexed(key);
    }
    this.#slots[this.#rooted ? this.#highestFreeSlot() : 0] = key;
    this.#rooted = true;
    this.#count += 1;
    return undefined;
  }

  /** Removes the link to this key, which must be there. The collector leaves slots behind, an unlink of the last one does not. */
  remove(key: Key, byCollector = false): void {
    if (isKeyring(key)) this.#keyrings = undefined;
    this.#count -= 1;
    if (this.#index === undefined) {
      const slot = this.#slots.indexOf(key);
      assert(slot >= 0);
      this.#slots[slot] = undefined;
    } else {
      this.#removeIndexed(key);
    }
    if (this.#count === 0 && !byCollector) this.#reset();
  }

  /** Removes all links: the keys that they led to. */
  clear(): readonly Key[] {
    const keys = this.list();
    this.#reset();
    return keys;
  }

  /** The keys in the order of their links. */
  list(): readonly Key[] {
    if (this.#index === undefined) return this.#slots.filter((key) => key !== undefined);
    return [...this.#index.values()].flat();
  }

  /** The keyrings among them, in the same order. */
  keyrings(): readonly Key[] {
    this.#keyrings ??= this.#keyringSet === undefined ? this.list().filter(isKeyring) : [...this.#keyringSet];
    return this.#keyrings;
  }

  #slotOf({ type, description, domain }: KeyIndex): number {
    const slots = this.#slots;
    for (let slot = 0; slot < slots.length; slot += 1) {
      const key = slots[slot];
      if (key !== undefined && key.description === description && key.type === type && key.domain === domain)
        return slot;
    }
    return -1;
  }

  #highestFreeSlot(): number {
    // Slots that were never used are not there yet; the array gets all of them at once, so that it has no holes.
    while (this.#slots.length < SLOTS) this.#slots.push(undefined);
    return this.#slots.lastIndexOf(undefined);
  }

  #startIndex(): void {
    const keys = this.list();
    this.#index = new Map();
    this.#slots = [];
    this.#keyringSet = new Set();
    this.#count = 0;
    for (const key of keys) this.#addIndexed(key);
  }

  #addIndexed(key: Key): Key | undefined {
    const index = this.#index!;
    const found = index.get(key.description);
    if (isKeyring(key)) this.#keyringSet!.add(key);
    if (found === undefined) {
      index.set(key.description, key);
    } else if (Array.isArray(found)) {
      const at = found.findIndex((other) => matches(other, key));
      if (at >= 0) return this.#displaced(found.splice(at, 1, key)[0]!);
      found.push(key);
    } else if (matches(found, key)) {
      index.set(key.description, key);
      return this.#displaced(found);
    } else {
      index.set(key.description, [found, key]);
    }
    this.#count += 1;
    return undefined;
  }

  #displaced(key: Key): Key {
    if (isKeyring(key)) this.#keyringSet!.delete(key);
    return key;
  }

  #removeIndexed(key: Key): void {
    const index = this.#index!;
    const found = index.get(key.description);
    this.#keyringSet!.delete(key);
    if (Array.isArray(found)) {
      const rest = found.filter((other) => other !== key);
      assert(rest.length === found.length - 1);
      index.set(key.description, rest.length === 1 ? rest[0]! : rest);
    } else {
      assert(found === key);
      index.delete(key.description);
    }
  }

  #reset(): void {
    this.#slots = [];
    this.#index = undefined;
    this.#keyringSet = undefined;
    this.#keyrings = [];
    this.#rooted = false;
    this.#count = 0;
  }
}

/** Whether a key is a keyring. */
export const isKeyring = (key: Key): boolean => key.payload instanceof LinkTable;

/** The links of a key that is a keyring. */
export const linksOf = (keyring: Key): LinkTable => {
  const { payload } = keyring;
  assert(payload instanceof LinkTable);
  return payload;
};
