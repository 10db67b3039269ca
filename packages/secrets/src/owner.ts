import { XenolithError } from "@xenolith/abi";
import { Account, type SecretQuota } from "./account.ts";
import type { SecretPolicy } from "./limits.ts";
import { OwnerState } from "./owner-state.ts";
import { granted, type SecretRefusal } from "./refusal.ts";
import type { SecretRegion } from "./region.ts";
import type { Secret } from "./secret.ts";
import { type OwnerStatistics, statisticsOfOwner } from "./statistics.ts";

/** How an owner is made. */
export interface OwnerOptions extends SecretQuota {
  /** Whether it may use the pool's reserve; only below privileged owners. */
  readonly privileged?: boolean;
  /** `strict` refuses what a degraded pool has; by default as above it. */
  readonly policy?: SecretPolicy;
}

/** Makes the state of an owner below another. For this package. */
export const makeOwner = (above: OwnerState, name: string, options: OwnerOptions): OwnerState => {
  above.checkOpen();
  const { privileged = false, policy = above.policy } = options;
  if (privileged && !above.account.privileged) {
    throw new XenolithError("INVALID_ARGUMENT", `owner ${name} cannot be privileged below ${above.account.path}`);
  }
  if (policy !== "strict" && policy !== "degraded") {
    throw new XenolithError("INVALID_ARGUMENT", `policy is ${String(policy)}, neither strict nor degraded`);
  }
  if (above.children.has(name)) {
    throw new XenolithError("INVALID_ARGUMENT", `there is an owner ${name} below ${above.account.path} already`);
  }
  const chunkCount = above.pool.store.limits.chunkCountMax;
  const account = new Account(name, options, privileged, chunkCount, above.account);
  // Below a strict owner nobody is less strict.
  const state = new OwnerState(above.pool, account, above.policy === "strict" ? "strict" : policy);
  above.children.set(name, state);
  return state;
};

/** The state behind an owner. For this package. */
export let stateOf: (owner: SecretOwner) => OwnerState;

/** Somebody who has secrets, within a quota: a tenant, a domain, a user, a part of the program. */
export class SecretOwner implements Disposable {
  readonly #above: OwnerState;
  readonly #name: string;
  readonly #state: OwnerState;

  static {
    stateOf = (owner) => owner.#state;
  }

  /** @internal Pools and owners make owners: `SecretPool.owner`, `SecretOwner.owner`. */
  constructor(above: OwnerState, name: string, options: OwnerOptions) {
    this.#above = above;
    this.#name = name;
    this.#state = makeOwner(above, name, options);
  }

  /** Its name, behind those of the owners above it. */
  get path(): string {
    return this.#state.account.path;
  }

  /** What it and the owners below it have now. */
  statistics(): OwnerStatistics {
    return statisticsOfOwner(this.#state);
  }

  /** An owner below this one: what it takes counts against both quotas. @throws XenolithError `INVALID_ARGUMENT`. */
  owner(name: string, options: OwnerOptions = {}): SecretOwner {
    return new SecretOwner(this.#state, name, options);
  }

  /**
   * A secret of `size` zeros, from 1 byte to 2 MiB less 16.
   *
   * @throws XenolithError `INVALID_SIZE`, `SECRET_QUOTA`, `SECRET_CEILING`, `SECRET_MEMLOCK`, `SECRET_MEMORY`,
   * `SECRET_UNSUPPORTED`; `SECRET_RELEASED` when the owner is closed.
   */
  allocate(size: number): Secret {
    return granted(this.#state.allocate(size));
  }

  /** As `allocate`, but a refusal is returned: for who expects it. */
  tryAllocate(size: number): Secret | SecretRefusal {
    return this.#state.allocate(size);
  }

  /** A secret with these bytes. The source stays as it is: wipe it. @throws XenolithError as `allocate`. */
  keep(source: Uint8Array): Secret {
    const secret = this.allocate(source.length);
    secret.copyFrom(source);
    return secret;
  }

  /** A region of `size` zeros, a multiple of 4096 bytes. @throws XenolithError as `allocate`. */
  allocateRegion(size: number): SecretRegion {
    return granted(this.#state.allocateRegion(size));
  }

  /** As `allocateRegion`, but a refusal is returned. */
  tryAllocateRegion(size: number): SecretRegion | SecretRefusal {
    return this.#state.allocateRegion(size);
  }

  /**
   * As `tryAllocateRegion`, while the program goes on: where memory is short a helper process makes it, which takes time.
   *
   * @throws XenolithError `SECRET_RELEASED` when the owner is closed, also meanwhile.
   */
  async allocateRegionSoon(size: number): Promise<SecretRegion | SecretRefusal> {
    return this.#state.allocateRegionSoon(size);
  }

  /**
   * Counts `bytes` of regions that the program maps at a further place by itself (`SecretRegion.share`): locked memory
   * is counted once for each mapping. Whatever the owner may have, it may have mapped as much. Undefined, or why not.
   *
   * @throws XenolithError `SECRET_RELEASED` when the owner is closed.
   */
  tryReserveMapping(bytes: number): SecretRefusal | undefined {
    return this.#state.takeMapping(bytes);
  }

  /** Ends what `tryReserveMapping` did: so many bytes are mapped there no more. Also of an owner that was closed. */
  returnMapping(bytes: number): void {
    this.#state.giveMapping(bytes);
  }

  /**
   * The region that another process, or another thread, shared by this descriptor, which stays yours.
   *
   * @throws XenolithError as `allocate`, `INVALID_ARGUMENT` when it is no secret memory of the pool's kind.
   */
  adoptRegion(descriptor: number): SecretRegion {
    return granted(this.#state.adoptRegion(descriptor));
  }

  /**
   * Wipes and releases all that it and the owners below it have.
   *
   * @throws XenolithError `SECRET_IN_USE` inside `withBytes`; `SECRET_OVERRUN`, when all is done.
   */
  close(): void {
    if (this.#state.isClosed) return;
    try {
      this.#state.close();
    } finally {
      if (this.#state.isClosed) this.#above.children.delete(this.#name);
    }
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }
}
