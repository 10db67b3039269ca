/**
 * The domains of the service: creation from a definition, finding, destruction. What their end sets off is in
 * `guest-ends.ts`.
 */
import { setTimeout as delay } from "node:timers/promises";
import { XenolithError } from "@xenolith/abi";
import type { Domain, Host } from "@xenolith/host";
import { domainOptionsOf } from "../config/index.ts";
import { ConsoleLog } from "./console-log.ts";
import { type CheckedDefinition, checkConfig, type Definitions } from "./definitions.ts";
import type { EventLog } from "./event-log.ts";
import { giveKeys } from "./given-keys.ts";
import { Guest } from "./guest.ts";
import { GuestEnds } from "./guest-ends.ts";
import type { MemoryPort } from "./memory-port.ts";
import type { ServiceLog } from "./service-log.ts";

/** What the guests live on. */
export interface GuestsParts {
  readonly host: Host;
  readonly definitions: Definitions;
  readonly memory: MemoryPort;
  readonly events: EventLog;
  readonly log: ServiceLog;
}

/** What a domain is made from: either a configuration or the name of a definition. */
export interface Creation {
  readonly config?: Readonly<Record<string, unknown>>;
  readonly definition?: string;
  /** Do not let it run yet. */
  readonly paused?: boolean;
}

/** What a run takes over from the one before it. */
export interface Inheritance {
  readonly console: ConsoleLog;
  readonly restarts: number;
  readonly loopCount: number;
}

/** All domains of one service. */
export class Guests {
  readonly #parts: GuestsParts;
  readonly #guests = new Map<string, Guest>();
  /** Names of domains that are being made. */
  readonly #building = new Set<string>();
  readonly #ends: GuestEnds;
  #isClosed = false;

  constructor(parts: GuestsParts) {
    this.#parts = parts;
    this.#ends = new GuestEnds(parts, {
      start: (name, inheritance) => this.#startAgain(name, inheritance),
      destroy: (guest) => this.#destroyNow(guest),
      list: () => this.list(),
      isClosed: () => this.#isClosed,
    });
  }

  /** All, oldest first. */
  list(): readonly Guest[] {
    return [...this.#guests.values()];
  }

  /** The guest of this domid or name. Throws XenolithError `DOMAIN_NOT_FOUND`. */
  find(word: string): Guest {
    const guest = /^\d+$/.test(word)
      ? this.list().find(({ domain }) => domain.domid === Number(word))
      : this.named(word);
    if (guest === undefined) throw new XenolithError("DOMAIN_NOT_FOUND", `there is no domain "${word}"`);
    return guest;
  }

  /** The guest of this name. */
  named(name: string): Guest | undefined {
    return this.list().find((guest) => guest.name === name);
  }

  /** The guest that is this run of a domain. */
  run(domid: number, generation: number): Guest | undefined {
    return this.#guests.get(keyOf(domid, generation));
  }

  /** Whether a domain of this name exists, is being made, or waits for its restart. */
  isTaken(name: string): boolean {
    return this.named(name) !== undefined || this.#building.has(name) || this.#ends.isWaiting(name);
  }

  /** When the domain of this definition will be started again, if it waits for that. */
  restartAtMs(name: string): number | undefined {
    return this.#ends.restartAtMs(name);
  }

  /**
   * Makes a domain from a configuration, which is kept as a definition, or from a definition that there is.
   *
   * @throws XenolithError `REQUEST_INVALID`, `CONFIG_INVALID`, `DEFINITION_NOT_FOUND`, `DOMAIN_EXISTS`, `STORE_FAILED`, and
   * what `Host.createDomain` throws.
   */
  async create({ config, definition, paused }: Creation): Promise<Guest> {
    if (config !== undefined && definition === undefined) return this.#createFrom(config, paused === true);
    if (definition === undefined || config !== undefined)
      throw new XenolithError("REQUEST_INVALID", "a domain is made from either config or definition: give one of them");
    this.#requireFree(definition);
    return this.#make(this.#parts.definitions.checked(definition), undefined, paused === true);
  }

  async #createFrom(config: NonNullable<Creation["config"]>, isPaused: boolean): Promise<Guest> {
    const { definitions } = this.#parts;
    const { name } = checkConfig(config);
    this.#requireFree(name);
    const before = definitions.has(name) ? definitions.get(name) : undefined;
    const made = definitions.put(config, { isTransient: true });
    try {
      return await this.#make(made, undefined, isPaused);
    } catch (error) {
      // Nothing was acknowledged: what came with this request goes with it.
      definitions.restore(made.definition, before);
      throw error;
    }
  }

  /** Takes in a domain that another program made and looks after. */
  adopt(domain: Domain): Guest {
    const facts = { domain, name: domain.name, config: undefined, restarts: 0, loopCount: 0, isStarted: true };
    return this.#enter(new Guest({ ...facts, console: new ConsoleLog() }, Date.now()));
  }

  /** Starts all definitions that start by themselves, one after the other; a failure is told and tried again later. */
  async autostart(): Promise<void> {
    for (const { name, config } of this.#parts.definitions.list()) {
      if (config["autostart"] !== true || this.isTaken(name) || this.#isClosed) continue;
      await this.#ends.start(name, { console: new ConsoleLog(), restarts: 0, loopCount: 0 });
    }
  }

  /**
   * Destroys a domain, or gives up its restart, and forgets its definition if that was to go with it.
   *
   * @throws XenolithError `STORE_FAILED`: the domain is gone, its definition is not.
   */
  async destroy(guest: Guest): Promise<void> {
    guest.isLeaving = true;
    await this.#destroyNow(guest);
    const { definition } = guest;
    // One that was set aside has no definition, and its console is that of the domain that came after it.
    if (definition === undefined) return;
    guest.console.close();
    this.#parts.definitions.dropTransient(definition);
  }

  /** Gives up the restart of a domain that waits for it. Whether it did wait. */
  cancelRestart(name: string): boolean {
    if (!this.#ends.cancel(name)) return false;
    this.#parts.definitions.dropTransient(name);
    return true;
  }

  /** Lets nothing start any more, and destroys everything that the service made. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#ends.close();
    for (const guest of this.list()) guest.isLeaving = true;
    const ours = this.list().filter(({ config }) => config !== undefined);
    await Promise.all(ours.map((guest) => this.#destroyNow(guest)));
  }

  #requireFree(name: string): void {
    if (this.#isClosed) throw new XenolithError("HOST_CLOSED", "the service is ending");
    if (this.isTaken(name)) throw new XenolithError("DOMAIN_EXISTS", `there is a domain "${name}" already`);
  }

  async #startAgain(name: string, inheritance: Inheritance): Promise<void> {
    this.#requireFree(name);
    await this.#make(this.#parts.definitions.checked(name), inheritance, false);
  }

  async #make(checked: CheckedDefinition, before: Inheritance | undefined, isPaused: boolean): Promise<Guest> {
    const { name } = checked.config;
    this.#building.add(name);
    try {
      const guest = this.#enter(await this.#build(checked, before));
      this.#parts.events.tell({ type: "domain-created", domid: guest.domain.domid, name });
      this.#parts.log.write("info", `domain ${guest.domain.domid} (${name}) created`, {
        domid: guest.domain.domid,
        name,
      });
      if (isPaused) guest.isPaused = true;
      else await this.start(guest);
      return guest;
    } finally {
      this.#building.delete(name);
    }
  }

  /**
   * Lets a guest run for the first time. A crash while a reactor is initialised is an end like any other: its `on_crash`
   * follows. One that is paused before it is ready has been started all the same.
   *
   * @throws XenolithError `DOMAIN_STATE`.
   */
  async start(guest: Guest): Promise<void> {
    guest.isStarted = true;
    guest.isPaused = false;
    this.#parts.events.tell({ type: "domain-unpaused", domid: guest.domain.domid, name: guest.name });
    try {
      await Promise.race([guest.domain.start(), guest.paused()]);
    } catch (error) {
      if (!(error instanceof XenolithError && error.code === "DOMAIN_CRASHED")) throw error;
    }
  }

  async #build({ config }: CheckedDefinition, before: Inheritance | undefined): Promise<Guest> {
    const { host, memory } = this.#parts;
    const options = domainOptionsOf(config, (name) => this.named(name)?.domain);
    // Before others are asked to make room: what cannot be loaded needs none.
    const image = await host.loadImage(config.kernel, { preemptible: config.preemptible });
    using place = await memory.admit(config);
    const domain = await host.createDomain({
      ...options,
      image,
      stdio: { stdin: "pipe", stdout: "pipe", stderr: "pipe" },
      memoryClaimBytes: place.claimBytes,
    });
    try {
      await memory.manage(domain, config);
      await giveKeys(host, domain, config.keys);
    } catch (error) {
      await domain.destroy();
      throw error;
    }
    const inherited = before ?? { console: new ConsoleLog(), restarts: 0, loopCount: 0 };
    const guest = new Guest({ domain, name: config.name, config, isStarted: false, ...inherited }, Date.now());
    connectConsole(guest, (error) => this.#parts.log.fault(`console of domain ${domain.domid}`, error));
    return guest;
  }

  #enter(guest: Guest): Guest {
    const { domain } = guest;
    const key = keyOf(domain.domid, domain.generation);
    this.#guests.set(key, guest);
    domain.events.on("destroyed", () => this.#left(key, guest));
    this.#ends.follow(guest);
    return guest;
  }

  #left(key: string, guest: Guest): void {
    this.#guests.delete(key);
    this.#parts.events.tell({ type: "domain-destroyed", domid: guest.domain.domid, name: guest.name });
    this.#parts.log.write("info", `domain ${guest.domain.domid} (${guest.name}) destroyed`, {
      domid: guest.domain.domid,
      name: guest.name,
    });
  }

  async #destroyNow(guest: Guest): Promise<void> {
    await guest.domain.destroy();
    // The table is emptied by an event in a turn of its own; whoever asked must not find the domain any more.
    const key = keyOf(guest.domain.domid, guest.domain.generation);
    while (this.#guests.has(key)) await delay(0);
  }
}

const keyOf = (domid: number, generation: number): string => `${domid}.${generation}`;

/** Everything that the guest prints goes to its console, and what is typed there to it. */
const connectConsole = ({ domain, console }: Guest, onFault: (error: unknown) => void): void => {
  const encoder = new TextEncoder();
  const printed = async (): Promise<void> => {
    for await (const text of domain.console) console.print(encoder.encode(text));
  };
  const wrote = async (output: AsyncIterable<Uint8Array>): Promise<void> => {
    for await (const bytes of output) console.print(bytes);
  };
  for (const ended of [printed(), wrote(domain.stdout), wrote(domain.stderr)]) ended.catch(onFault);
  console.connect((bytes) => (domain.kind === "xen" ? domain.console.write(bytes) : domain.stdin.write(bytes)));
};
