import { timingSafeEqual } from "node:crypto";
import { XenolithError } from "@xenolith/abi";
import { PAGE_BYTES } from "@xenolith/sys";
import type { Chunk } from "./chunk.ts";
import { SecretHandle } from "./handle.ts";
import { CANARY_BYTES, type SlotPage } from "./slots.ts";

/** Up to this size a byte loop is faster than a call of `set`. */
const LOOP_BYTES_MAX = 64;

/** Where a secret is, for this package: a slot of a page, or pages of its own. */
export interface SecretPlace {
  readonly offset: number;
  readonly chunk: Chunk;
  readonly page: SlotPage | undefined;
}

/** What a secret needs of its owner and pool, for this package. */
export interface Ledger {
  readonly hidden: boolean;
  /** Writes the mark behind a secret. */
  writeCanary(place: SecretPlace, size: number): void;
  /** Wipes a secret and gives its place back; false when the mark behind it was no longer right. */
  free(secret: Secret, place: SecretPlace, size: number): boolean;
  /** A secret for the time of one call, on the pool's own account. */
  scratch(size: number): Secret;
}

/**
 * A secret: bytes in memory that is never swapped, dumped, inherited by a fork or, unless the pool is degraded, read by
 * the kernel on anybody's behalf. It ends, and is wiped, when it is released or disposed of; never by itself.
 */
export class Secret extends SecretHandle {
  /** How many bytes it has. */
  readonly size: number;
  readonly #ledger: Ledger;
  readonly #place: SecretPlace;
  #isLive = true;
  #isSealed = false;
  #lent = 0;

  /** @internal Owners make secrets: `SecretOwner.allocate`. */
  constructor(ledger: Ledger, place: SecretPlace, size: number) {
    super();
    this.size = size;
    this.#ledger = ledger;
    this.#place = place;
    ledger.writeCanary(place, size);
  }

  /** Whether the kernel itself cannot read it; false in a degraded pool. */
  get hidden(): boolean {
    return this.#ledger.hidden;
  }

  /** Whether it can still be used. */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** Whether it was sealed. */
  get isSealed(): boolean {
    return this.#isSealed;
  }

  /**
   * Lends the bytes themselves to a function, which must not be asynchronous: the view is empty when it has returned. Of
   * a sealed secret it is a copy, in secret memory too, which is wiped then. The view's `buffer` is the pool's: use the
   * view, do not clone or transfer what is behind it.
   *
   * @throws XenolithError `SECRET_RELEASED`; `INVALID_ARGUMENT` when the function returned a promise; of a sealed secret
   * the codes of `allocate`.
   */
  withBytes<T>(use: (bytes: Uint8Array<ArrayBuffer>) => T): T {
    const { offset, chunk } = this.#live();
    if (this.#isSealed) return this.#withCopy(use);
    this.#lent += 1;
    try {
      return notPromised(chunk.space.lend(offset, this.size, use));
    } finally {
      this.#lent -= 1;
    }
  }

  /**
   * Writes bytes into the secret, from its byte `at` on. The source stays as it is: wipe it.
   *
   * @throws XenolithError `SECRET_RELEASED`, `SECRET_SEALED`, `INVALID_SIZE` when they do not fit.
   */
  copyFrom(source: Uint8Array, at = 0): void {
    const { offset, chunk } = this.#live();
    if (this.#isSealed) throw new XenolithError("SECRET_SEALED", "a sealed secret cannot be written");
    const length = source.length;
    this.#checkRange(at, length);
    const { bytes } = chunk.space;
    if (length > LOOP_BYTES_MAX) bytes.set(source, offset + at);
    else for (let index = 0; index < length; index += 1) bytes[offset + at + index] = source[index]!;
  }

  /**
   * Copies the whole secret to the beginning of ordinary memory of yours, which you wipe; returns its size.
   *
   * @throws XenolithError `SECRET_RELEASED`, `INVALID_SIZE` when the target is smaller.
   */
  copyTo(target: Uint8Array): number {
    const mine = this.#view();
    if (target.length < this.size) {
      throw new XenolithError("INVALID_SIZE", `a target of ${target.length} bytes for a secret of ${this.size}`);
    }
    target.set(mine);
    return this.size;
  }

  /** Whether it has these bytes, in a time that depends on the sizes only. @throws XenolithError `SECRET_RELEASED`. */
  equals(other: Secret | Uint8Array): boolean {
    const mine = this.#view();
    const theirs = other instanceof Secret ? other.#view() : other;
    return mine.length === theirs.length && timingSafeEqual(mine, theirs);
  }

  /** Makes it read-only, for good. @throws XenolithError `SECRET_RELEASED`. */
  seal(): void {
    this.#live();
    this.#isSealed = true;
  }

  /**
   * Wipes it and gives its memory back, now.
   *
   * @throws XenolithError `SECRET_RELEASED` when that was done before, `SECRET_IN_USE` inside `withBytes`,
   * `SECRET_OVERRUN` when something had written past its end; it is wiped and released all the same.
   */
  release(): void {
    const { offset } = this.#live();
    if (this.#lent > 0) throw new XenolithError("SECRET_IN_USE", "a secret is released by who uses its bytes");
    this.#isLive = false;
    if (!this.#ledger.free(this, this.#place, this.size)) {
      throw new XenolithError("SECRET_OVERRUN", `something wrote past a secret of ${this.size} bytes at ${offset}`);
    }
  }

  #live(): SecretPlace {
    if (!this.#isLive) throw new XenolithError("SECRET_RELEASED", "the secret was released");
    return this.#place;
  }

  #view(): Uint8Array {
    const { offset, chunk } = this.#live();
    return chunk.space.bytes.subarray(offset, offset + this.size);
  }

  #checkRange(at: number, length: number): void {
    if (Number.isSafeInteger(at) && at >= 0 && at + length <= this.size) return;
    throw new XenolithError("INVALID_SIZE", `${length} bytes at ${at} of a secret of ${this.size}`);
  }

  #withCopy<T>(use: (bytes: Uint8Array<ArrayBuffer>) => T): T {
    using copy = this.#ledger.scratch(this.size);
    copy.copyFrom(this.#view());
    this.#lent += 1;
    try {
      return copy.withBytes(use);
    } finally {
      this.#lent -= 1;
    }
  }
}

const notPromised = <T>(result: T): T => {
  if (typeof result !== "object" || result === null || !("then" in result)) return result;
  throw new XenolithError("INVALID_ARGUMENT", "the function that uses a secret's bytes must not be asynchronous");
};

/** What a secret takes: its slot, or whole pages. */
export const costOf = (place: SecretPlace, size: number): number =>
  place.page?.slotBytes ?? Math.ceil((size + CANARY_BYTES) / PAGE_BYTES) * PAGE_BYTES;
