/**
 * The secret memory of a host: one pool for the program itself, for guests' secret objects, and for the payloads of keys.
 * It is opened, and its code loaded, when it is first wanted; a host whose program and guests have no secrets pays nothing
 * for it. Every domain is an owner of its own, `domain:5`, from its first secret until it is destroyed.
 */
import { XenolithError } from "@xenolith/abi";
import type { PoolOptions, SecretOwner, SecretPool, SecretQuota } from "@xenolith/secrets";

/** How a host's secret memory is opened. */
export interface HostSecretsOptions extends PoolOptions {
  /** What each domain may have at most, by default what the pool has; and as much for payloads of its keys, by default 4 MiB. */
  readonly domainQuota?: SecretQuota;
  /** Called when the pool is opened and the kernel can read what is in it: the policy is `degraded`. */
  readonly onDegraded?: () => void;
}

/** See above. */
export class HostSecrets {
  readonly #options: HostSecretsOptions;
  readonly #noteFault: (message: string) => void;
  readonly #owners = new Map<number, SecretOwner>();
  #pool: SecretPool | undefined;
  #opening: Promise<SecretPool> | undefined;
  #isClosed = false;

  constructor(options: HostSecretsOptions | undefined, noteFault: (message: string) => void) {
    this.#options = options ?? {};
    this.#noteFault = noteFault;
  }

  /** What a domain may have. */
  get domainQuota(): SecretQuota | undefined {
    return this.#options.domainQuota;
  }

  /** The pool, if somebody has wanted one. */
  get opened(): SecretPool | undefined {
    return this.#pool;
  }

  /**
   * The pool; opens it.
   *
   * @throws XenolithError `HOST_CLOSED`; as `SecretPool.open`, and the next call tries again.
   */
  async pool(): Promise<SecretPool> {
    if (this.#isClosed) throw closed();
    this.#opening ??= this.#open();
    try {
      return await this.#opening;
    } catch (error) {
      this.#opening = undefined;
      throw error;
    }
  }

  /**
   * The owner of what a domain has: `domain:` and its number. Only of an open pool, so that it is the caller who bears
   * that there is none.
   *
   * @throws XenolithError `INVALID_ARGUMENT` for a quota that is none.
   */
  ownerOf(pool: SecretPool, domid: number): SecretOwner {
    let owner = this.#owners.get(domid);
    if (owner === undefined) {
      owner = pool.owner(`domain:${domid}`, this.#options.domainQuota);
      this.#owners.set(domid, owner);
    }
    return owner;
  }

  /**
   * The owner of the secret objects that a domain makes by itself, within a quota of its own below what it has in all.
   *
   * @throws XenolithError `HOST_CLOSED`: there is no pool yet, or no more; `INVALID_ARGUMENT` when there is one already.
   */
  guestOwner(domid: number, quota: SecretQuota): SecretOwner {
    if (this.#pool === undefined || this.#isClosed) throw closed();
    return this.ownerOf(this.#pool, domid).owner("objects", quota);
  }

  /** Wipes and releases all that a domain has: it is being destroyed, and its number may have a new bearer soon. */
  release(domid: number): void {
    const owner = this.#owners.get(domid);
    this.#owners.delete(domid);
    try {
      owner?.close();
    } catch (error) {
      this.#noteFault(`secrets of domain ${domid}: ${String(error)}`);
    }
  }

  /** Wipes and releases everything, after all domains. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#opening?.catch(() => {});
    this.#owners.clear();
    await this.#pool?.[Symbol.asyncDispose]();
  }

  async #open(): Promise<SecretPool> {
    const { SecretPool: Pool } = await import("@xenolith/secrets");
    if (this.#isClosed) throw closed();
    this.#pool = Pool.open(this.#options);
    if (!this.#pool.hidden) this.#options.onDegraded?.();
    return this.#pool;
  }
}

const closed = (): XenolithError => new XenolithError("HOST_CLOSED", "secret memory: the host is closed");
