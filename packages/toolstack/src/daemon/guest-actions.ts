/**
 * What an operator does to a domain that runs: pause it, ask it to end, rename it, change its memory.
 */
import { setTimeout as delay } from "node:timers/promises";
import { SHUTDOWN_poweroff, SHUTDOWN_reboot, XenolithError } from "@xenolith/abi";
import { GATE_IN } from "@xenolith/core";
import type { Domain, Host } from "@xenolith/host";
import type { AuditView } from "./api-types.ts";
import type { Definitions } from "./definitions.ts";
import type { EventLog, EventFacts } from "./event-log.ts";
import type { Guest } from "./guest.ts";
import type { Guests } from "./guests.ts";
import { memoryAccount } from "./memory-account.ts";
import type { MemoryPort } from "./memory-port.ts";

/** How long a pause waits for a guest to come to rest. */
export const PAUSE_MS_MAX = 2000;
/** How long an audit waits for all of them. */
const REST_MS_MAX = 20_000;

/** What the actions work on. */
export interface ActionParts {
  readonly host: Host;
  readonly guests: Guests;
  readonly definitions: Definitions;
  readonly memory: MemoryPort;
  readonly events: EventLog;
}

/** The actions on the guests of one service. */
export class GuestActions {
  readonly #parts: ActionParts;

  constructor(parts: ActionParts) {
    this.#parts = parts;
  }

  /**
   * Pauses a guest; one that is paused stays so.
   *
   * @throws XenolithError `DOMAIN_STATE`, `TIMEOUT`: it computes, and pauses at its next hypercall.
   */
  async pause(guest: Guest): Promise<void> {
    if (guest.isPaused) return;
    guest.isPaused = true;
    this.#tell("domain-paused", guest);
    if (guest.isStarted) await guest.domain.pause({ timeoutMs: PAUSE_MS_MAX });
  }

  /** Lets a guest go on, or begin. Throws XenolithError `DOMAIN_STATE`. */
  async unpause(guest: Guest): Promise<void> {
    if (!guest.isStarted) return this.#parts.guests.start(guest);
    if (!guest.isPaused && guest.domain.state !== "shutdown") return;
    guest.domain.unpause();
    guest.isPaused = false;
    this.#tell("domain-unpaused", guest);
  }

  /**
   * Asks a guest to power off or reboot, through xenstore's `control/shutdown`; one that has no xenstore, and one that
   * is to be forced, is stopped. What follows is its `on_poweroff` or `on_reboot`.
   *
   * @throws XenolithError `DOMAIN_STATE`.
   */
  async end(guest: Guest, how: "poweroff" | "reboot", isForced: boolean): Promise<void> {
    if (guest.exit !== undefined)
      throw new XenolithError("DOMAIN_STATE", `domain ${guest.name} has ended already: ${guest.exit.reason}`);
    if (!isForced && (await this.#ask(guest, how))) return;
    await guest.domain.shutdown(how === "reboot" ? SHUTDOWN_reboot : SHUTDOWN_poweroff);
  }

  /**
   * Gives a guest another name, and its definition with it.
   *
   * @throws XenolithError `DOMAIN_EXISTS`, `CONFIG_INVALID`, `STORE_FAILED`.
   */
  async rename(guest: Guest, name: string): Promise<void> {
    const { guests, definitions } = this.#parts;
    if (name === guest.name) return;
    if (guests.isTaken(name) || definitions.has(name))
      throw new XenolithError("DOMAIN_EXISTS", `there is a domain or a definition "${name}" already`);
    if (guest.definition === undefined)
      throw new XenolithError("DOMAIN_STATE", `domain ${guest.name} has no definition: it keeps its name`);
    definitions.rename(guest.definition, name);
    guest.name = name;
    guest.definition = name;
    this.#tell("domain-renamed", guest);
    const store = await this.#parts.host.xenstore();
    await store.write(`/local/domain/${guest.domain.domid}/name`, name);
  }

  /** Sets a target by hand; null: automatic again. Throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`. */
  async setTarget(guest: Guest, bytes: number | null): Promise<void> {
    if (bytes !== null) requireWhole(bytes);
    await this.#parts.memory.setTarget(guest.domain, bytes ?? undefined);
    this.#tell("memory-target", guest, bytes === null ? {} : { bytes });
  }

  /** Sets the limit. Throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`. */
  async setMax(guest: Guest, bytes: number): Promise<void> {
    requireWhole(bytes);
    await this.#parts.memory.setMax(guest.domain, bytes);
    this.#tell("memory-max", guest, { bytes });
  }

  /**
   * Has the hypervisor's state recomputed and compared, one sentence for each thing that does not agree, and its memory
   * counted. All domains rest meanwhile; one that computes goes on and changes nothing.
   */
  async audit(): Promise<AuditView> {
    const { host } = this.#parts;
    const resting: Domain[] = [];
    try {
      await this.#rest(resting);
      return { findings: host.audit(), memory: memoryAccount(host) };
    } finally {
      for (const domain of resting) if (domain.state === "paused") domain.unpause();
    }
  }

  /**
   * Pauses all that runs, also what starts meanwhile, until no vCPU is inside the hypervisor, which one that has just been
   * ended may still be. Beside what operators paused; `resting` is to be let go afterwards.
   */
  async #rest(resting: Domain[]): Promise<void> {
    const { host } = this.#parts;
    const endMs = performance.now() + REST_MS_MAX;
    const running = (): Domain[] => host.domains.filter(({ state }) => state === "running");
    while (running().length > 0 || host.hypervisor.vcpus.gate.some((word) => (word & GATE_IN) !== 0)) {
      if (performance.now() > endMs)
        throw new XenolithError("TIMEOUT", `domains did not rest within ${REST_MS_MAX} ms`);
      await Promise.all(
        running().map(async (domain) => {
          if (await pauses(domain)) resting.push(domain);
        }),
      );
      await delay(1);
    }
  }

  /** Writes the request where the guest looks for it. Whether it can look. */
  async #ask({ domain, isPaused, isStarted }: Guest, how: "poweroff" | "reboot"): Promise<boolean> {
    if (domain.kind !== "xen" || isPaused || !isStarted) return false;
    const home = `/local/domain/${domain.domid}`;
    const store = await this.#parts.host.xenstore();
    if ((await store.readIfPresent(`${home}/store/ring-ref`)) === undefined) return false;
    await store.write(`${home}/control/shutdown`, how);
    return true;
  }

  #tell(type: EventFacts["type"], guest: Guest, more: Partial<EventFacts> = {}): void {
    this.#parts.events.tell({ type, domid: guest.domain.domid, name: guest.name, ...more });
  }
}

const requireWhole = (bytes: number): void => {
  if (!Number.isSafeInteger(bytes)) throw new XenolithError("INVALID_SIZE", `${bytes} is not a whole number of bytes`);
};

/** Pauses a domain. Whether that is to be taken back: one that computes is paused as soon as it makes a hypercall. */
const pauses = async (domain: Domain): Promise<boolean> => {
  try {
    await domain.pause({ timeoutMs: PAUSE_MS_MAX });
    return true;
  } catch (error) {
    if (!(error instanceof XenolithError)) throw error;
    return error.code === "TIMEOUT";
  }
};
