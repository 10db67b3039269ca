/**
 * The key service of a host, embedded in its process: keys of the program itself and of guests, with their payloads in the
 * host's secret memory. It starts, and its code is loaded, when it is first wanted.
 *
 * A domain is a user of the service. Its user number lies outside of those that Linux gives to people and services, and
 * comes from the serial of its creation, not from its domid: a domid is given again, and what a dead domain's user owned
 * must not become the next domain's.
 */
import { XenolithError } from "@xenolith/abi";
import type { Hypervisor } from "@xenolith/core";
import type { KeyService, KeyServiceOptions, ProcessIdentity } from "@xenolith/keys";
import type { SecretOwner, SecretPool } from "@xenolith/secrets";
import type { HostSecrets } from "./host-secrets.ts";

/** How a host's key service is made: who starts helpers, limits, types of one's own. */
export type HostKeysOptions = Omit<KeyServiceOptions, "payloads">;

/** The first of 2^31 - 2 user numbers of domains. (2^32 - 1 stands for "unchanged" in system calls.) */
export const DOMAIN_UID_FIRST = 0x8000_0000;
const DOMAIN_UID_COUNT = 0x7fff_fffe;

/** The user number of the domain with this serial of creation. */
export const domainUid = (generation: number): number => DOMAIN_UID_FIRST + (generation % DOMAIN_UID_COUNT);

/** See above. */
export class HostKeys {
  readonly #hypervisor: Hypervisor;
  readonly #secrets: HostSecrets;
  readonly #options: HostKeysOptions;
  #service: KeyService | undefined;
  #starting: Promise<KeyService> | undefined;
  #isClosed = false;

  constructor(hypervisor: Hypervisor, secrets: HostSecrets, options: HostKeysOptions = {}) {
    this.#hypervisor = hypervisor;
    this.#secrets = secrets;
    this.#options = options;
  }

  /** The service, if somebody has wanted one. */
  get started(): KeyService | undefined {
    return this.#service;
  }

  /**
   * The service; starts it.
   *
   * @throws XenolithError `HOST_CLOSED`; `INVALID_ARGUMENT` for options; as `SecretPool.open`.
   */
  async service(): Promise<KeyService> {
    if (this.#isClosed) throw closed();
    this.#starting ??= this.#start();
    try {
      return await this.#starting;
    } catch (error) {
      this.#starting = undefined;
      throw error;
    }
  }

  /** Who a vCPU of a domain is for the service: a thread of the domain's user, without any capability. */
  identityOf(slot: number): ProcessIdentity {
    const { domains } = this.#hypervisor;
    const uid = domainUid(domains.generation[slot]!);
    return { pid: domains.domid[slot]!, uid, gid: uid, sysAdmin: false, setUid: false };
  }

  /** Ends the service, after all domains: requests and waits answer -EINTR, payloads are wiped. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#starting?.catch(() => {});
    this.#service?.close();
  }

  async #start(): Promise<KeyService> {
    const [{ KeyService: Service, SecretPayloadStore }, pool] = await Promise.all([
      import("@xenolith/keys"),
      this.#secrets.pool(),
    ]);
    if (this.#isClosed) throw closed();
    const payloads = new SecretPayloadStore(pool.table(), (uid) => this.#ownerOf(pool, uid));
    this.#service = new Service({ ...this.#options, payloads });
    return this.#service;
  }

  /**
   * The owner of a user's payloads. A domain's is not the owner of its secret objects: a key that others have links to
   * outlives the domain that made it, and its payload with it.
   */
  #ownerOf(pool: SecretPool, uid: number): SecretOwner {
    const { domains, geometry } = this.#hypervisor;
    for (let slot = 0; uid >= DOMAIN_UID_FIRST && slot < geometry.domainCountMax; slot += 1) {
      const generation = domains.generation[slot]!;
      if (domains.stateOf(slot) === "free" || domainUid(generation) !== uid) continue;
      return pool.owner(`keys:domain:${domains.domid[slot]!}.${generation}`, this.#secrets.domainQuota);
    }
    return pool.owner(`keys:uid:${uid}`);
  }
}

const closed = (): XenolithError => new XenolithError("HOST_CLOSED", "keys: the host is closed");
