import { EDQUOT, EINVAL, ENOMEM } from "./errno.ts";
import type { PayloadStore, PayloadTarget } from "./payload-store.ts";

/** What this store needs of an owner: `SecretOwner` of @xenolith/secrets has it. */
export interface PayloadOwner {
  statistics(): { readonly slots: number };
  close(): void;
}

/** What this store needs of a table: `SecretTable` of @xenolith/secrets has it. */
export interface PayloadTable<Owner extends PayloadOwner> {
  readonly count: number;
  put(bytes: Uint8Array, owner: Owner): number | { readonly code: string };
  give(handle: number, owner: Owner): number | { readonly code: string };
  copyTo(handle: number, length: number, target: PayloadTarget): void;
  release(handle: number): void;
  [Symbol.dispose](): void;
}

/**
 * Payloads in secret memory: each user is an owner of a pool, from its first payload until it has no keys any more. The
 * quota of that owner stands beside the quota of keys, which counts other things: a big key charges 16 bytes to the latter.
 *
 * The package keys stays usable alone; who wants this opens a pool and gives `KeyService` a store of its table:
 * `new SecretPayloadStore(pool.table(), (uid) => pool.owner("uid:" + uid))`.
 *
 * What an owner's quota or the largest size forbids is -EDQUOT or -EINVAL; where the pool, RLIMIT_MEMLOCK or the kernel has
 * no more it is -ENOMEM. Nothing has changed then.
 */
export class SecretPayloadStore<Owner extends PayloadOwner> implements PayloadStore {
  readonly #table: PayloadTable<Owner>;
  readonly #ownerOf: (uid: number) => Owner;
  readonly #owners = new Map<number, Owner>();
  /** Users without keys, of whom there are still payloads: of types that do not give them to a key's new user. */
  readonly #leaving = new Set<number>();
  #isClosed = false;

  /** `ownerOf` makes the owner of a user; it is called again after that one was closed. */
  constructor(table: PayloadTable<Owner>, ownerOf: (uid: number) => Owner) {
    this.#table = table;
    this.#ownerOf = ownerOf;
  }

  get count(): number {
    return this.#table.count;
  }

  put(bytes: Uint8Array, uid: number): number {
    return this.#isClosed ? -ENOMEM : numberOf(this.#table.put(bytes, this.#owner(uid)));
  }

  give(handle: number, uid: number): number {
    return this.#isClosed ? -ENOMEM : numberOf(this.#table.give(handle, this.#owner(uid)));
  }

  copyTo(handle: number, length: number, target: PayloadTarget): void {
    this.#table.copyTo(handle, length, target);
  }

  release(handle: number): void {
    if (this.#isClosed) return;
    try {
      this.#table.release(handle);
    } finally {
      if (this.#leaving.size > 0) for (const uid of this.#leaving) this.forgetUser(uid);
    }
  }

  forgetUser(uid: number): void {
    const owner = this.#owners.get(uid);
    if (owner === undefined) return;
    if (owner.statistics().slots > 0) {
      this.#leaving.add(uid);
      return;
    }
    this.#leaving.delete(uid);
    this.#owners.delete(uid);
    owner.close();
  }

  /**
   * Wipes all payloads and closes their owners. For after the service was closed: keys that a helper still holds end when
   * it does, and their payloads have gone then.
   */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#table[Symbol.dispose]();
    for (const owner of this.#owners.values()) owner.close();
    this.#owners.clear();
  }

  #owner(uid: number): Owner {
    let owner = this.#owners.get(uid);
    if (owner === undefined) this.#owners.set(uid, (owner = this.#ownerOf(uid)));
    else if (this.#leaving.size > 0) this.#leaving.delete(uid);
    return owner;
  }
}

const numberOf = (result: number | { readonly code: string }): number => {
  if (typeof result === "number") return result;
  if (result.code === "SECRET_QUOTA") return -EDQUOT;
  return result.code === "INVALID_SIZE" ? -EINVAL : -ENOMEM;
};
