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
import type { KeyService, KeyServiceOptions, SecretPayloadStore, UpcallActor } from "@xenolith/keys";
import type { SecretOwner, SecretPool } from "@xenolith/secrets";
import type { HostSecrets } from "./host-secrets.ts";
import type { KeyBuilder, KeyRequest } from "./keys/key-builder.ts";
import type { KeyProgram } from "./keys/key-program.ts";
import { DOMAIN_UID_FIRST, domainUid, KeyringTable } from "./keys/keyring-table.ts";

/** How a host's key service is made: who builds keys, limits, types of one's own. */
export interface HostKeysOptions extends Omit<KeyServiceOptions, "payloads"> {
  /**
   * Who builds the keys that domains, or the program itself, ask for and do not have: a function, or a program that is
   * called as the kernel calls request-key(8). Instead of `upcall`, for which one starts helpers oneself.
   */
  readonly requestKey?: KeyBuilder | KeyProgram;
  /** Told that `requestKey` threw, could not be started, or gave what cannot be a key; whoever asked is refused. */
  readonly onRequestFailed?: (error: unknown, request: KeyRequest) => void;
}

/**
 * Secret memory that the payloads of a domain's keys may take when nothing else is said. The quota of keys alone would not
 * do: a big key counts for 16 bytes there and may take a MiB.
 */
const DOMAIN_PAYLOAD_BYTES = 4 << 20;

/** Throws XenolithError `INVALID_ARGUMENT` for options that contradict each other. */
export const checkKeysOptions = ({ requestKey, upcall }: HostKeysOptions = {}): void => {
  if (requestKey !== undefined && upcall !== undefined)
    throw new XenolithError("INVALID_ARGUMENT", "keys: either requestKey or upcall builds keys, not both");
  if (requestKey === undefined || typeof requestKey === "function") return;
  const [file = ""] = requestKey.program;
  if (!file.startsWith("/"))
    throw new XenolithError("INVALID_ARGUMENT", `keys: the program ${JSON.stringify(file)} is no absolute path`);
};

/** What it works with. */
export interface HostKeysParts {
  readonly hypervisor: Hypervisor;
  readonly secrets: HostSecrets;
  /** Name of the domain in a slot. */
  readonly nameOf: (slot: number) => string;
}

/** See above. */
export class HostKeys {
  readonly #hypervisor: Hypervisor;
  readonly #secrets: HostSecrets;
  readonly #options: HostKeysOptions;
  /** Keyrings of domains. */
  readonly keyrings: KeyringTable;
  #service: KeyService | undefined;
  #payloads: SecretPayloadStore<SecretOwner> | undefined;
  #starting: Promise<KeyService> | undefined;
  #isClosed = false;

  constructor(parts: HostKeysParts, options: HostKeysOptions = {}) {
    this.#hypervisor = parts.hypervisor;
    this.#secrets = parts.secrets;
    this.#options = options;
    this.keyrings = new KeyringTable(parts.hypervisor, parts.nameOf);
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

  /** What does not agree in the service, and records of domains that there are not: a sentence each. */
  audit(): string[] {
    return [...(this.#service?.audit() ?? []).map((finding) => `keys: ${finding}`), ...this.keyrings.audit()];
  }

  /** Ends the service, after all domains: requests and waits answer -EINTR, payloads are wiped. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#starting?.catch(() => {});
    this.#service?.close();
    this.#payloads?.close();
  }

  async #start(): Promise<KeyService> {
    const [{ KeyService: Service, SecretPayloadStore: Store }, pool] = await Promise.all([
      import("@xenolith/keys"),
      this.#secrets.pool(),
    ]);
    if (this.#isClosed) throw closed();
    const { requestKey: _builder, onRequestFailed: _told, ...options } = this.#options;
    const upcall = await this.#upcalls();
    if (this.#isClosed) throw closed();
    const payloads = new Store(pool.table(), (uid) => this.#ownerOf(pool, uid));
    this.#payloads = payloads;
    this.#service = new Service({ ...options, payloads, ...(upcall === undefined ? {} : { upcall }) });
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
      const quota = this.#secrets.domainQuota ?? { bytes: DOMAIN_PAYLOAD_BYTES };
      return pool.owner(`keys:domain:${domains.domid[slot]!}.${generation}`, quota);
    }
    return pool.owner(`keys:uid:${uid}`);
  }

  /** Who is told of keys that are not there; undefined for nobody. */
  async #upcalls(): Promise<UpcallActor | undefined> {
    const { requestKey, upcall } = this.#options;
    if (requestKey === undefined && upcall === undefined) return undefined;
    const { DomainUpcalls } = await import("./keys/domain-upcalls.ts");
    const actor = requestKey === undefined ? upcall! : await this.#actor(requestKey);
    return new DomainUpcalls(actor, (uid) => this.keyrings.ofUser(uid));
  }

  async #actor(requestKey: KeyBuilder | KeyProgram): Promise<UpcallActor> {
    const { BuilderActor } = await import("./keys/key-builder.ts");
    return new BuilderActor(typeof requestKey === "function" ? requestKey : await this.#program(requestKey), {
      service: () => this.#service!,
      domainOf: (uid) => this.keyrings.ofUser(uid)?.facts,
      onFailure: (error, request) => this.#options.onRequestFailed?.(error, request),
    });
  }

  async #program(program: KeyProgram): Promise<KeyBuilder> {
    const { programBuilder } = await import("./keys/key-program.ts");
    const owner = (await this.#secrets.pool()).owner("keys:built");
    return programBuilder(program, owner);
  }
}

const closed = (): XenolithError => new XenolithError("HOST_CLOSED", "keys: the host is closed");
