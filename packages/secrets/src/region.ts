import { XenolithError } from "@xenolith/abi";
import {
  Advice,
  advise,
  check,
  closeDescriptor,
  duplicate,
  mapAnywhere,
  mapFrames,
  PROT_READ,
  PROT_READ_WRITE,
  type Protection,
  protect,
  reserve,
  sealMapping,
} from "@xenolith/sys";
import { mapSecret, refusalOf } from "./growth.ts";
import { SecretHandle } from "./handle.ts";
import type { OwnerState } from "./owner-state.ts";
import type { SecretSpace } from "./space.ts";
import type { RegionMemory } from "./store.ts";

/** A further place of this process where a region is mapped. */
interface Alias {
  readonly address: number;
  readonly lengthBytes: number;
}

/**
 * Whole pages of secret memory with a file of their own: they can be mapped elsewhere, handed to another process by
 * descriptor, taken out of this process's view while others use them, and made read-only.
 */
export class SecretRegion extends SecretHandle {
  /** Its size: a multiple of the page size. */
  readonly size: number;
  readonly #owner: OwnerState;
  readonly #fd: number;
  readonly #space: SecretSpace;
  readonly #aliases = new Map<number, Alias>();
  #isLive = true;
  #isViewed = true;
  #isSealed = false;
  #viewings = 1;
  #lent = 0;

  /** @internal Owners make regions: `SecretOwner.allocateRegion`. */
  constructor(owner: OwnerState, { fd, space }: RegionMemory) {
    super();
    this.size = space.sizeBytes;
    this.#owner = owner;
    this.#fd = fd;
    this.#space = space;
  }

  /** Whether the kernel itself cannot read it; false in a degraded pool. */
  get hidden(): boolean {
    return this.#owner.hidden;
  }

  /** Whether it can still be used. */
  get isLive(): boolean {
    return this.#isLive;
  }

  /** Whether it was sealed. */
  get isSealed(): boolean {
    return this.#isSealed;
  }

  /** How often it was put into this process's view: 1 unless it was removed and restored. */
  get viewings(): number {
    return this.#viewings;
  }

  /**
   * Lends the bytes to a function, as `Secret.withBytes`. Of a sealed region they are read-only pages: writing to them
   * ends the process, which is what a seal is for.
   *
   * @throws XenolithError `SECRET_RELEASED` also when it is not in this process's view.
   */
  withBytes<T>(use: (bytes: Uint8Array<ArrayBuffer>) => T): T {
    this.#checkViewed();
    this.#lent += 1;
    try {
      return this.#space.lend(0, this.size, use);
    } finally {
      this.#lent -= 1;
    }
  }

  /** Writes bytes from its byte `at` on. @throws XenolithError `SECRET_RELEASED`, `SECRET_SEALED`, `INVALID_SIZE`. */
  copyFrom(source: Uint8Array, at = 0): void {
    this.#checkViewed();
    if (this.#isSealed) throw new XenolithError("SECRET_SEALED", "a sealed region cannot be written");
    if (!Number.isSafeInteger(at) || at < 0 || at + source.length > this.size) {
      throw new XenolithError("INVALID_SIZE", `${source.length} bytes at ${at} of a region of ${this.size}`);
    }
    this.#space.bytes.set(source, at);
  }

  /** Copies all of it to ordinary memory of yours. @throws XenolithError `SECRET_RELEASED`, `INVALID_SIZE`. */
  copyTo(target: Uint8Array): number {
    this.#checkViewed();
    if (target.length < this.size) {
      throw new XenolithError("INVALID_SIZE", `a target of ${target.length} bytes for a region of ${this.size}`);
    }
    target.set(this.#space.bytes);
    return this.size;
  }

  /**
   * Its own descriptor, for who maps pages of it at addresses of this process by other means than `mapAt`, and counts that
   * (`SecretOwner.tryReserveMapping`). It ends with the region, and is not to be closed.
   *
   * @throws XenolithError `SECRET_RELEASED`.
   */
  get descriptor(): number {
    this.#checkLive();
    return this.#fd;
  }

  /**
   * A descriptor for another process (in `stdio` of a child, over a Unix socket), which can map it with
   * `SecretOwner.adoptRegion`; close yours when it is handed over. What another process has mapped cannot be taken from
   * it, only emptied (`revoke`): give it to trusted ones.
   *
   * @throws XenolithError `SECRET_RELEASED`; SystemCallError `EMFILE`.
   */
  share(): number {
    this.#checkLive();
    return check(duplicate(this.#fd), "fcntl", { fd: this.#fd });
  }

  /**
   * Maps it over addresses of this process that the caller owns, in place of what is there, until `unmapFrom` or the
   * region's end, which leave inaccessible memory behind. It counts against RLIMIT_MEMLOCK again.
   *
   * @throws XenolithError `SECRET_RELEASED`, `SECRET_SEALED` when it is sealed and `writable`; SystemCallError.
   */
  mapAt(address: number, { writable = false } = {}): void {
    this.#checkLive();
    if (writable && this.#isSealed) throw new XenolithError("SECRET_SEALED", "a sealed region cannot be written");
    const protection = writable ? PROT_READ_WRITE : PROT_READ;
    check(mapFrames(address, this.size, protection, this.#fd, 0), "mmap", { address, length: this.size });
    this.#aliases.set(address, { address, lengthBytes: this.size });
  }

  /** Ends what `mapAt` did. @throws XenolithError `INVALID_ARGUMENT` when it is not mapped there. */
  unmapFrom(address: number): void {
    const alias = this.#aliases.get(address);
    if (alias === undefined) {
      throw new XenolithError("INVALID_ARGUMENT", `the region is not mapped at 0x${address.toString(16)}`);
    }
    this.#withdraw(alias);
  }

  /**
   * Takes it out of this process's view, while its contents and descriptor stay: after it was handed over, nothing that
   * reads this process's memory finds it. `restoreView` brings it back, and that is counted in `viewings`.
   */
  removeFromView(): void {
    this.#checkViewed();
    this.#checkUnused();
    this.#isViewed = false;
    this.#space.withdraw();
  }

  /** Ends `removeFromView`. @throws XenolithError `SECRET_RELEASED`, `SECRET_MEMLOCK`, `SECRET_MEMORY`. */
  restoreView(): void {
    this.#checkLive();
    if (this.#isViewed) return;
    try {
      this.#map();
    } catch (error) {
      throw refusalOf(error).toError();
    }
    if (this.#isSealed) this.#protect(PROT_READ);
    this.#isViewed = true;
    this.#viewings += 1;
  }

  /**
   * Makes this process's view and all mappings by `mapAt` read-only. Who has the descriptor can still map it writable:
   * secret memory knows no seals of files.
   */
  seal(): void {
    this.#checkLive();
    if (this.#isSealed) return;
    this.#checkUnused();
    if (this.#isViewed) this.#protect(PROT_READ);
    for (const alias of this.#aliases.values()) {
      check(protect(alias.address, alias.lengthBytes, PROT_READ), "mprotect", { address: alias.address });
    }
    this.#isSealed = true;
  }

  /**
   * Seals it, and maps it at an address where nothing can replace, unmap or unprotect it until the process ends
   * (mseal); `isUnchangeable` says whether the kernel knows that. The contents can still be wiped by `release`.
   *
   * @throws XenolithError `SECRET_RELEASED`; SystemCallError.
   */
  sealForever(): { readonly address: number; readonly isUnchangeable: boolean } {
    this.seal();
    const address = mapAnywhere({ fd: this.#fd, offsetBytes: 0, lengthBytes: this.size, protection: PROT_READ });
    check(advise(address, this.size, Advice.DONTFORK), "madvise", { address });
    check(advise(address, this.size, Advice.DONTDUMP), "madvise", { address });
    const isUnchangeable = sealMapping(address, this.size) === 0;
    if (!isUnchangeable) this.#aliases.set(address, { address, lengthBytes: this.size });
    return { address, isUnchangeable };
  }

  /** Wipes it, for everybody who has it mapped anywhere, and ends it here. @throws XenolithError `SECRET_RELEASED`. */
  revoke(): void {
    this.release();
  }

  /** As `revoke`. @throws XenolithError `SECRET_RELEASED`, `SECRET_IN_USE` inside `withBytes`. */
  release(): void {
    this.#checkLive();
    this.#checkUnused();
    const { account, pool, members } = this.#owner;
    this.#wipe();
    this.#isLive = false;
    for (const alias of this.#aliases.values()) this.#withdraw(alias);
    this.#space.withdraw();
    closeDescriptor(this.#fd);
    pool.store.giveRegion(this.size);
    account.discharge(this.size, -1);
    members.delete(this);
  }

  /** Stores zeros, through a mapping made for that where this process has none that can be written. */
  #wipe(): void {
    if (!this.#isViewed) this.#map();
    else if (this.#isSealed) this.#protect(PROT_READ_WRITE);
    this.#isViewed = true;
    this.#space.bytes.fill(0);
  }

  #map(): void {
    mapSecret(this.#space, this.#owner.hidden, this.#fd);
  }

  #protect(protection: Protection): void {
    const { address } = this.#space;
    check(protect(address, this.size, protection), "mprotect", { address, length: this.size, protection });
  }

  #withdraw({ address, lengthBytes }: Alias): void {
    check(reserve(address, lengthBytes), "mmap", { address, length: lengthBytes });
    this.#aliases.delete(address);
  }

  #checkLive(): void {
    if (!this.#isLive) throw new XenolithError("SECRET_RELEASED", "the region was released or revoked");
  }

  #checkViewed(): void {
    this.#checkLive();
    if (!this.#isViewed) throw new XenolithError("SECRET_RELEASED", "the region was removed from this process's view");
  }

  #checkUnused(): void {
    if (this.#lent > 0) throw new XenolithError("SECRET_IN_USE", "a region is ended by who uses its bytes");
  }
}
