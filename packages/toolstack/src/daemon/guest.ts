/**
 * One domain under the service: the host's `Domain`, and what only the service knows of it. Figures are not here: they
 * are asked of the hypervisor when somebody wants them.
 */
import { XenolithError } from "@xenolith/abi";
import type { Domain, DomainExit } from "@xenolith/host";
import type { DomainConfig } from "../config/index.ts";
import type { ConsoleLog } from "./console-log.ts";

/** What a guest begins with. */
export interface GuestFacts {
  readonly domain: Domain;
  readonly name: string;
  /** Undefined for a domain that another program made. */
  readonly config: DomainConfig | undefined;
  readonly console: ConsoleLog;
  /** Restarts so far, and those since the last run that lasted. */
  readonly restarts: number;
  readonly loopCount: number;
  readonly isStarted: boolean;
}

/** One domain and its circumstances. */
export class Guest {
  readonly domain: Domain;
  readonly config: DomainConfig | undefined;
  readonly console: ConsoleLog;
  readonly restarts: number;
  readonly loopCount: number;
  readonly createdMs: number;
  name: string;
  /** Name of its definition; undefined once it has none. */
  definition: string | undefined;
  exit: DomainExit | undefined;
  isStarted: boolean;
  /** It is being destroyed on request: what its end would set off is left out. */
  isLeaving = false;
  #changeCount = 0;
  #isPaused = false;
  #whenPaused: (() => void)[] = [];

  constructor(facts: GuestFacts, createdMs: number) {
    this.domain = facts.domain;
    this.name = facts.name;
    this.config = facts.config;
    this.definition = facts.config === undefined ? undefined : facts.name;
    this.console = facts.console;
    this.restarts = facts.restarts;
    this.loopCount = facts.loopCount;
    this.isStarted = facts.isStarted;
    this.createdMs = createdMs;
  }

  /** The operator paused it. */
  get isPaused(): boolean {
    return this.#isPaused;
  }

  set isPaused(isPaused: boolean) {
    this.#isPaused = isPaused;
    if (isPaused) for (const tell of this.#whenPaused.splice(0)) tell();
  }

  /** Settles when an operator pauses it the next time. */
  paused(): Promise<void> {
    return new Promise((resolve) => this.#whenPaused.push(resolve));
  }

  /** Changes with every change that an operator asks for; never the same for two runs. */
  get revision(): string {
    return `${this.domain.generation}.${this.#changeCount}`;
  }

  /**
   * Begins a change by an operator who saw `expected`. Compares and counts in one step, so of two operators who saw the
   * same one wins.
   *
   * @throws XenolithError `CONFLICT`.
   */
  beginChange(expected: string | undefined): void {
    requireRevision(`domain ${this.name}`, this.revision, expected);
    this.#changeCount += 1;
  }
}

/** Throws XenolithError `CONFLICT` unless `expected` is absent or what is there. */
export const requireRevision = (what: string, actual: string, expected: string | undefined): void => {
  if (expected === undefined || expected === actual) return;
  throw new XenolithError("CONFLICT", `${what} is at revision ${actual}, the request is about ${expected}`);
};
