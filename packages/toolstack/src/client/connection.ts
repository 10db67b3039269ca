/**
 * The daemon as the commands see it: each route of its API as a function.
 */
import type {
  AuditView,
  ClaimsView,
  SecretsView,
  CreateRequest,
  DefinitionsView,
  DefinitionView,
  DmesgView,
  DomainsView,
  DomainView,
  HostView,
  UpdateRequest,
  VcpusView,
} from "../daemon/api-types.ts";
import { complain } from "../terminal.ts";
import { ApiClient, type ApiRequest, type ApiStream } from "./api-client.ts";
import { choosePlace, type ClientFlags } from "./choose-place.ts";

/** What can be done to a domain without saying more. */
export type DomainAction = "pause" | "unpause";

/** One daemon. Every function throws what `ApiClient.ask` throws. */
export class Connection {
  readonly #client: ApiClient;

  constructor(client: ApiClient) {
    this.#client = client;
  }

  /** Figures of the host. */
  host(): Promise<HostView> {
    return this.#client.ask<HostView>({ method: "GET", path: "/v1/host" }, ["memoryBytes", "memoryFreeBytes"]);
  }

  /** All domains. */
  async domains(): Promise<readonly DomainView[]> {
    return (await this.#client.ask<DomainsView>({ method: "GET", path: "/v1/domains" }, ["domains"])).domains;
  }

  /** The domains of these names or domids; all when none is named. */
  async named(words: readonly string[]): Promise<readonly DomainView[]> {
    return words.length === 0 ? this.domains() : Promise.all(words.map((word) => this.domain(word)));
  }

  /** One domain, by name or domid. */
  domain(word: string): Promise<DomainView> {
    return this.#ofDomain({ method: "GET", path: domainPath(word) });
  }

  /** Makes a domain and, unless it is to be paused, lets it run. */
  create(body: CreateRequest): Promise<DomainView> {
    return this.#ofDomain({ method: "POST", path: "/v1/domains", body });
  }

  /** Ends a domain at once. */
  async destroy(word: string): Promise<void> {
    await this.#client.ask({ method: "DELETE", path: domainPath(word) });
  }

  /** Asks a guest to end, or ends it. */
  end(word: string, how: "shutdown" | "reboot", force: boolean): Promise<DomainView> {
    return this.#ofDomain({ method: "POST", path: `${domainPath(word)}/${how}`, body: { force } });
  }

  /** Pauses or unpauses. */
  act(word: string, action: DomainAction): Promise<DomainView> {
    return this.#ofDomain({ method: "POST", path: `${domainPath(word)}/${action}`, body: {} });
  }

  /** Gives a domain another name. */
  rename(word: string, name: string): Promise<DomainView> {
    return this.#ofDomain({ method: "POST", path: `${domainPath(word)}/rename`, body: { name } });
  }

  /** Sets the target (null: the memory manager decides) or the limit of a domain's memory, in bytes. */
  setMemory(word: string, what: "target" | "max", bytes: number | null): Promise<DomainView> {
    return this.#ofDomain({ method: "PUT", path: `${domainPath(word)}/memory/${what}`, body: { bytes } });
  }

  /** The virtual CPUs of a domain. */
  vcpus(word: string): Promise<VcpusView> {
    return this.#client.ask<VcpusView>({ method: "GET", path: `${domainPath(word)}/vcpus` }, ["vcpus"]);
  }

  /** What a domain says, and goes on saying until it is gone. */
  console(word: string, signal: AbortSignal): Promise<ApiStream> {
    return this.#client.open({ method: "GET", path: `${domainPath(word)}/console?follow=1`, signal });
  }

  /** Types something to a domain. */
  async type(word: string, bytes: Buffer): Promise<void> {
    await this.#client.ask({ method: "POST", path: `${domainPath(word)}/console`, bytes });
  }

  /** What happens from now on. */
  events(signal: AbortSignal): Promise<ApiStream> {
    return this.#client.open({ method: "GET", path: "/v1/events", signal });
  }

  /** What domains are made from when they start again. */
  async definitions(): Promise<readonly DefinitionView[]> {
    const path = "/v1/definitions";
    return (await this.#client.ask<DefinitionsView>({ method: "GET", path }, ["definitions"])).definitions;
  }

  /** Replaces keys of it; null takes one away. */
  update(name: string, body: UpdateRequest): Promise<DefinitionView> {
    return this.#client.ask<DefinitionView>({ method: "PATCH", path: definitionPath(name), body }, ["name"]);
  }

  /** Forgets what a domain is made from; one that runs goes on. */
  async forget(name: string): Promise<void> {
    await this.#client.ask({ method: "DELETE", path: definitionPath(name) });
  }

  /** Memory that is set aside for domains. */
  claims(): Promise<ClaimsView> {
    return this.#client.ask<ClaimsView>({ method: "GET", path: "/v1/claims" }, ["claims"]);
  }

  /** Secret memory and its owners. */
  secrets(): Promise<SecretsView> {
    return this.#client.ask<SecretsView>({ method: "GET", path: "/v1/secrets" }, []);
  }

  /** Latest messages of the hypervisor and the daemon. */
  dmesg(): Promise<DmesgView> {
    return this.#client.ask<DmesgView>({ method: "GET", path: "/v1/dmesg" }, ["lines"]);
  }

  /** Recomputes the hypervisor's state from scratch and compares. */
  audit(): Promise<AuditView> {
    return this.#client.ask<AuditView>({ method: "POST", path: "/v1/audit", body: {} }, ["findings"]);
  }

  #ofDomain(request: ApiRequest): Promise<DomainView> {
    return this.#client.ask<DomainView>(request, ["domid", "name", "state", "memory"]);
  }
}

const domainPath = (word: string): string => `/v1/domains/${encodeURIComponent(word)}`;
const definitionPath = (name: string): string => `/v1/definitions/${encodeURIComponent(name)}`;

/** The daemon that was named, or where it is by default. Nothing is asked yet. Throws what `choosePlace` throws. */
export const connect = (flags: ClientFlags): Connection => new Connection(new ApiClient(choosePlace(flags), complain));
