/**
 * What the end of a domain sets off: its `on_...` action, restarts that wait longer and longer in a loop of crashes, and
 * how many domains are kept to be looked at.
 */
import { XenolithError } from "@xenolith/abi";
import type { DomainExit } from "@xenolith/host";
import type { Guest } from "./guest.ts";
import type { GuestsParts, Inheritance } from "./guests.ts";
import { actionFor, countRestart, RENAMED_COUNT_MAX, restartDelayMs } from "./restart-policy.ts";

/** What it asks of the table of guests. */
export interface GuestTable {
  /** Starts a definition's domain. */
  start(name: string, inheritance: Inheritance): Promise<void>;
  /** Destroys a domain; its definition stays. */
  destroy(guest: Guest): Promise<void>;
  list(): readonly Guest[];
  isClosed(): boolean;
}

/** A restart that waits. */
interface Waiting {
  readonly atMs: number;
  readonly timer: NodeJS.Timeout;
  readonly inheritance: Inheritance;
}

/** Follows guests to their ends. */
export class GuestEnds {
  readonly #parts: GuestsParts;
  readonly #table: GuestTable;
  readonly #waiting = new Map<string, Waiting>();
  /** Names whose domain is being destroyed to be started again: nobody else may take them. */
  readonly #reserved = new Set<string>();
  /** Renamed ones by their definition, oldest first. */
  readonly #renamed = new Map<string, Guest[]>();

  constructor(parts: GuestsParts, table: GuestTable) {
    this.#parts = parts;
    this.#table = table;
  }

  /** Acts on what becomes of a guest. */
  follow(guest: Guest): void {
    guest.domain.events.on("exit", (exit) => {
      this.#ended(guest, exit).catch((error: unknown) =>
        this.#parts.log.fault(`end of domain ${guest.domain.domid}`, error),
      );
    });
    guest.domain.events.on("suspend", () => this.#tell("domain-suspended", guest));
  }

  /** Starts a definition's domain now; when that fails, again later. Never rejects. */
  async start(name: string, inheritance: Inheritance): Promise<void> {
    this.#waiting.delete(name);
    try {
      await this.#table.start(name, inheritance);
    } catch (error) {
      if (this.#table.isClosed()) return;
      const reason = error instanceof Error ? error.message : String(error);
      this.#parts.log.write("error", `domain ${name} cannot be started: ${reason}`, { name, err: error });
      this.#parts.events.tell({ type: "domain-failed", name, reason });
      // What cannot be mended by waiting is not tried again.
      if (isLasting(error)) return;
      this.#wait(name, { ...inheritance, loopCount: inheritance.loopCount + 1 });
    }
  }

  /** Whether a domain of this name waits for its restart. */
  isWaiting(name: string): boolean {
    return this.#waiting.has(name) || this.#reserved.has(name);
  }

  /** When it will be started. */
  restartAtMs(name: string): number | undefined {
    return this.#waiting.get(name)?.atMs;
  }

  /** Gives up a restart. Whether there was one. */
  cancel(name: string): boolean {
    const waiting = this.#waiting.get(name);
    if (waiting === undefined) return false;
    clearTimeout(waiting.timer);
    waiting.inheritance.console.close();
    return this.#waiting.delete(name);
  }

  /** Gives up all restarts. */
  close(): void {
    for (const name of this.#waiting.keys()) this.cancel(name);
  }

  async #ended(guest: Guest, exit: DomainExit): Promise<void> {
    guest.exit = exit;
    const { domid } = guest.domain;
    this.#parts.events.tell({ type: "domain-ended", domid, name: guest.name, reason: exit.reason });
    const level = exit.crashed ? "warn" : "info";
    const place = exit.where === undefined ? "" : ` at ${exit.where}`;
    this.#parts.log.write(level, `domain ${domid} (${guest.name}) ended: ${exit.reason}${place}`, { domid });
    const action = this.#actionOf(guest, exit);
    if (action === "destroy") await this.#drop(guest);
    else if (action !== "nothing" && action !== "preserve") await this.#restart(guest, action === "rename-restart");
  }

  #actionOf(guest: Guest, exit: DomainExit): ReturnType<typeof actionFor> | "nothing" {
    if (guest.isLeaving || guest.config === undefined) return "nothing";
    // A control domain of another program destroyed it: it is gone, whatever its configuration says.
    return exit.reason === "destroyed" ? "destroy" : actionFor(guest.config, exit);
  }

  async #drop(guest: Guest): Promise<void> {
    await this.#table.destroy(guest);
    guest.console.close();
    if (guest.definition !== undefined) this.#parts.definitions.dropTransient(guest.definition);
  }

  async #restart(guest: Guest, isKept: boolean): Promise<void> {
    const name = guest.definition;
    const ranMs = Date.now() - guest.createdMs;
    const inheritance = {
      console: guest.console,
      restarts: guest.restarts + 1,
      loopCount: countRestart(guest.loopCount, ranMs),
    };
    if (name === undefined) return this.#table.destroy(guest);
    this.#reserved.add(name);
    try {
      if (isKept) this.#setAside(guest, name);
      else await this.#table.destroy(guest);
    } finally {
      this.#reserved.delete(name);
    }
    if (guest.isLeaving || this.#table.isClosed()) return;
    this.#tell("domain-restarted", guest);
    this.#wait(name, inheritance);
  }

  /** Keeps an ended domain under another name; the oldest of too many goes. */
  #setAside(guest: Guest, definition: string): void {
    guest.name = `${definition}-${guest.domain.generation}`;
    guest.definition = undefined;
    this.#tell("domain-renamed", guest);
    const alive = new Set(this.#table.list());
    const kept = [...(this.#renamed.get(definition) ?? []).filter((each) => alive.has(each)), guest];
    const excess = kept.splice(0, Math.max(0, kept.length - RENAMED_COUNT_MAX));
    this.#renamed.set(definition, kept);
    for (const old of excess) {
      old.isLeaving = true;
      this.#table.destroy(old).catch((error: unknown) => this.#parts.log.fault(`end of domain ${old.name}`, error));
    }
  }

  #wait(name: string, inheritance: Inheritance): void {
    clearTimeout(this.#waiting.get(name)?.timer);
    const waitMs = restartDelayMs(inheritance.loopCount);
    const timer = setTimeout(() => void this.start(name, inheritance), waitMs);
    this.#waiting.set(name, { atMs: Date.now() + waitMs, timer, inheritance });
  }

  #tell(type: "domain-renamed" | "domain-restarted" | "domain-suspended", guest: Guest): void {
    this.#parts.events.tell({ type, domid: guest.domain.domid, name: guest.name });
  }
}

/** Refusals that stay as they are until somebody changes a definition or a file. */
const isLasting = (error: unknown): boolean =>
  error instanceof XenolithError &&
  ["CONFIG_INVALID", "DEFINITION_NOT_FOUND", "MODULE_INVALID", "MODULE_UNSUPPORTED", "IMPORT_UNKNOWN"].includes(
    error.code,
  );
