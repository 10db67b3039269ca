import assert from "node:assert/strict";
import { EDQUOT, EINVAL, ENOMEM } from "./errno.ts";
import type { PayloadStore, PayloadTarget } from "./payload-store.ts";

/** What this store needs of a secret: `Secret` of @xenolith/secrets has it. */
export interface PayloadSecret {
  readonly size: number;
  copyFrom(source: Uint8Array): void;
  copyTo(target: Uint8Array): number;
  withBytes<T>(use: (bytes: Uint8Array<ArrayBuffer>) => T): T;
  release(): void;
}

/** What this store needs of an owner: `SecretOwner` of @xenolith/secrets has it. */
export interface PayloadOwner {
  tryAllocate(size: number): PayloadSecret | { readonly code: string };
}

/**
 * Payloads in secret memory. They come from one owner of a pool: its quota stands beside the quotas of users, which the
 * service keeps. The package keys stays usable alone; who wants this opens a pool:
 * `new KeyService({ payloads: new SecretPayloadStore(pool.owner("keys")) })`.
 *
 * A `put` that the owner's quota or size limit forbids answers -EDQUOT or -EINVAL, any other refusal -ENOMEM.
 */
export class SecretPayloadStore implements PayloadStore {
  readonly #owner: PayloadOwner;
  readonly #secrets: (PayloadSecret | undefined)[] = [];
  readonly #unused: number[] = [];

  constructor(owner: PayloadOwner) {
    this.#owner = owner;
  }

  get count(): number {
    return this.#secrets.length - this.#unused.length;
  }

  put(bytes: Uint8Array): number {
    const secret = this.#owner.tryAllocate(bytes.length);
    if ("code" in secret) return errorOf(secret.code);
    secret.copyFrom(bytes);
    const handle = this.#unused.pop() ?? this.#secrets.length;
    this.#secrets[handle] = secret;
    return handle;
  }

  copyTo(handle: number, length: number, target: PayloadTarget): void {
    const secret = this.#secretOf(handle);
    assert(length <= secret.size && length <= target.length);
    if (length === secret.size && target instanceof Uint8Array) secret.copyTo(target);
    else secret.withBytes((bytes) => target.set(bytes.subarray(0, length)));
  }

  release(handle: number): void {
    const secret = this.#secretOf(handle);
    this.#secrets[handle] = undefined;
    this.#unused.push(handle);
    secret.release();
  }

  #secretOf(handle: number): PayloadSecret {
    const secret = this.#secrets[handle];
    assert(secret !== undefined);
    return secret;
  }
}

const errorOf = (code: string): number => {
  if (code === "SECRET_QUOTA") return -EDQUOT;
  return code === "INVALID_SIZE" ? -EINVAL : -ENOMEM;
};
