/**
 * The service: one host, its domains, and the API over them. `xl daemon` is this in a process of its own; `embedService`
 * is it inside a program that has a host already.
 */
import { homedir } from "node:os";
import path from "node:path";
import { type Domain, Host, type HostOptions, type KeyRequest } from "@xenolith/host";
import { defaultDaemonSocket } from "../runtime-directory.ts";
import { DEGRADED_TEXT } from "../secret-options.ts";
import { Definitions } from "./definitions.ts";
import { EventLog } from "./event-log.ts";
import type { Guest } from "./guest.ts";
import { GuestActions } from "./guest-actions.ts";
import { Guests } from "./guests.ts";
import { type Fetch, listenAtPort, listenAtSocket, type Listener, type TcpOptions } from "./http-server.ts";
import { HypervisorNotes } from "./hypervisor-notes.ts";
import { LastingNodes } from "./lasting-nodes.ts";
import { managedMemory, type MemoryPort } from "./memory-port.ts";
import { ServiceMetrics } from "./metrics.ts";
import { createApp, type Route } from "./router.ts";
import { domainRoutes } from "./routes-domains.ts";
import { definitionRoutes, nodeRoutes, serviceRoutes, toolRoutes } from "./routes-service.ts";
import { type LogLevel, ServiceLog } from "./service-log.ts";
import type { ServiceParts } from "./service-parts.ts";
import { memoryStore, openStore, type Store } from "./store.ts";

/** How a service is run. Everything can be left out. */
export interface ServiceOptions {
  /** Unix socket of the API; `xl.sock` in the runtime directory by default. */
  readonly socketPath?: string;
  /** Where definitions are kept; {@link defaultStateDirectory} by default. */
  readonly stateDirectory?: string;
  /** Serves over TCP too. */
  readonly tcp?: TcpOptions;
  /** `info` by default. */
  readonly logLevel?: LogLevel;
  readonly host?: HostOptions;
  /** Nothing else runs in this process: its global `Request` and `Response` may be replaced by faster ones. */
  readonly ownsProcess?: boolean;
}

/** `/var/lib/xenolith` for root, a directory in the home of anybody else. */
export const defaultStateDirectory = (): string => {
  if (process.getuid?.() === 0) return "/var/lib/xenolith";
  const base = process.env["XDG_STATE_HOME"];
  return path.join(base === undefined || base === "" ? path.join(homedir(), ".local/state") : base, "xenolith");
};

/** One service, which answers until it is closed. */
export class Service implements AsyncDisposable {
  readonly #parts: ServiceParts;
  readonly #ends: readonly (() => Promise<void>)[];
  readonly #fetch: Fetch;
  readonly #listeners: Listener[] = [];
  #closing: Promise<void> | undefined;

  /** Only `openService` and `embedService` make these. */
  constructor(parts: ServiceParts, ends: readonly (() => Promise<void>)[]) {
    this.#parts = parts;
    this.#ends = ends;
    const app = createApp(
      routesOf(parts),
      (facts) => {
        parts.metrics.count(facts);
        parts.log.request(facts);
      },
      (error) => parts.log.fault("a request failed", error),
    );
    this.#fetch = (request) => app.fetch(request);
  }

  /** Where it is reached. */
  get places(): readonly string[] {
    return this.#listeners.map(({ place }) => place);
  }

  /** Answers a request without a socket: for tests, and for programs that have a server of their own. */
  async request(target: string, init?: RequestInit): Promise<Response> {
    return this.#fetch(new Request(new URL(target, "http://service"), init));
  }

  /** Serves at a Unix socket. Throws XenolithError `SERVICE_RUNNING`, `SYSTEM_CALL`. */
  async listen(socketPath: string, ownsProcess = false): Promise<void> {
    this.#listeners.push(await listenAtSocket(this.#fetch, socketPath, ownsProcess));
  }

  /** Serves over TCP. Throws XenolithError `CONFIG_INVALID`, `SYSTEM_CALL`. */
  async listenAtPort(options: TcpOptions): Promise<void> {
    this.#listeners.push(await listenAtPort(this.#fetch, options));
  }

  /** Shows a domain that the calling program made: it stays that program's to end. */
  adopt(domain: Domain): Guest {
    return this.#parts.guests.adopt(domain);
  }

  /** Puts the lasting nodes back into xenstore. For `openService`, before anybody can look. */
  async restoreNodes(): Promise<void> {
    await this.#parts.nodes.restore();
  }

  /** Starts the definitions that start by themselves. */
  async autostart(): Promise<void> {
    await this.#parts.guests.autostart();
  }

  /** Ends the API, then the domains that the service made, then the state. An embedding program's host stays. */
  close(): Promise<void> {
    this.#closing ??= this.#closeNow();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeNow(): Promise<void> {
    this.#parts.events.close();
    await Promise.all(this.#listeners.map((listener) => listener.close()));
    this.#parts.hypervisorNotes[Symbol.dispose]();
    await this.#parts.guests.close();
    this.#parts.nodes.close();
    this.#parts.metrics.close();
    for (const end of this.#ends) await end();
  }
}

const routesOf = (parts: ServiceParts): readonly Route[] => {
  const routes = [...domainRoutes(parts), ...definitionRoutes(parts), ...nodeRoutes(parts), ...serviceRoutes(parts)];
  return [...routes, ...toolRoutes(parts, routes)];
};

const assemble = (host: Host, store: Store, log: ServiceLog, memory: MemoryPort): ServiceParts => {
  const events = new EventLog();
  const definitions = new Definitions(store);
  const guests = new Guests({ host, definitions, memory, events, log });
  const actions = new GuestActions({ host, guests, definitions, memory, events });
  const views = {
    host,
    memory,
    startedMs: Date.now(),
    guestOf: (domid: number, generation: number) => guests.run(domid, generation),
    doesAutostart: (name: string) => store.get(name)?.config["autostart"] === true,
  };
  const metrics = new ServiceMetrics(views, () => events.readerCount);
  const problems = (): readonly string[] => (store.problem === undefined ? [] : [store.problem]);
  const nodes = new LastingNodes(store, host);
  const hypervisorNotes = new HypervisorNotes(host, log);
  return { host, guests, actions, definitions, nodes, events, log, hypervisorNotes, metrics, views, problems };
};

/** Guests decide how many keys are asked for: not how many lines there are. */
const KEY_LOG_MS = 1000;

/** What a builder of keys fails with is told in the log, unless somebody else is told already. */
const withKeyLog = (options: HostOptions = {}, log: ServiceLog): HostOptions => {
  let quietUntil = 0;
  const onRequestFailed = (error: unknown, { domain }: KeyRequest): void => {
    if (Date.now() < quietUntil) return;
    quietUntil = Date.now() + KEY_LOG_MS;
    log.fault(`a key of ${domain === undefined ? "the daemon" : `domain ${domain.domid}`} was not built`, error);
  };
  return options.keys === undefined ? options : { ...options, keys: { onRequestFailed, ...options.keys } };
};

/** Secrets in memory that the kernel reads are told in the log, loudly, unless somebody else is told already. */
const withSecretLog = (options: HostOptions, log: ServiceLog): HostOptions => {
  const onDegraded = (): void => log.write("error", DEGRADED_TEXT);
  return { ...options, secrets: { onDegraded, ...options.secrets } };
};

/**
 * Opens a service with a host and a state of its own, and serves it. Nothing is started yet: see `Service.autostart`.
 *
 * @throws XenolithError `SERVICE_RUNNING`, `STORE_FAILED`, `SYSTEM_CALL`, `CONFIG_INVALID`, and what `Host.open` throws.
 */
export const openService = async (options: ServiceOptions = {}): Promise<Service> => {
  const log = new ServiceLog(options.logLevel ?? "info");
  const store = openStore(options.stateDirectory ?? defaultStateDirectory());
  const host = await Host.open(withSecretLog(withKeyLog(options.host, log), log)).catch(async (error: unknown) => {
    await store.close();
    throw error;
  });
  const memory = managedMemory(host, (error) => log.fault("the memory manager failed to look at the host", error));
  const service = new Service(assemble(host, store, log, memory), [
    async () => memory[Symbol.asyncDispose](),
    () => host.close(),
    () => store.close(),
  ]);
  try {
    await service.restoreNodes();
    await service.listen(options.socketPath ?? defaultDaemonSocket(), options.ownsProcess);
    if (options.tcp !== undefined) await service.listenAtPort(options.tcp);
    return service;
  } catch (error) {
    await service.close();
    throw error;
  }
};

/**
 * Puts a service beside a host that the calling program has. Its definitions end with it, and closing it leaves the host
 * and the domains that the program made.
 */
export const embedService = (host: Host, options: Pick<ServiceOptions, "logLevel"> = {}): Service => {
  const log = new ServiceLog(options.logLevel ?? "silent");
  const memory = managedMemory(host, (error) => log.fault("the memory manager failed to look at the host", error));
  const parts = assemble(host, memoryStore(), log, memory);
  return new Service(parts, [async () => memory[Symbol.asyncDispose]()]);
};
