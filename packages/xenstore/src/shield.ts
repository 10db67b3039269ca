import type { Connection } from "./connection.ts";

/** Commits that must fail because of others before those are made to wait. */
const CONFLICT_COUNT = 3;
/** How long they wait at most for one transaction. */
const SHIELD_MS = 100;

interface Shield {
  readonly domids: ReadonlySet<number>;
  readonly untilMs: number;
}

/**
 * Keeps clients from making another's transactions fail for ever: after three failures in a row the domains that caused
 * them are not served while the next transaction is open, for a tenth of a second at most. The control domain is never
 * made to wait.
 *
 * Source: XSA-206.
 */
export class Shields {
  readonly #active = new Map<Connection, Shield>();
  readonly #now: () => number;
  readonly #wakeAll: (domids: ReadonlySet<number>) => void;

  constructor(now: () => number, wakeAll: (domids: ReadonlySet<number>) => void) {
    this.#now = now;
    this.#wakeAll = wakeAll;
  }

  get count(): number {
    return this.#active.size;
  }

  /** A transaction of the connection begins. */
  raise(connection: Connection): void {
    if (connection.conflictCount < CONFLICT_COUNT || this.#active.has(connection)) return;
    const domids = new Set(connection.culprits);
    domids.delete(0);
    if (domids.size === 0) return;
    this.#active.set(connection, { domids, untilMs: this.#now() + SHIELD_MS });
    setTimeout(() => this.lower(connection), SHIELD_MS).unref();
  }

  /** It ended, or took too long. */
  lower(connection: Connection): void {
    const shield = this.#active.get(connection);
    if (shield === undefined) return;
    this.#active.delete(connection);
    this.#wakeAll(shield.domids);
  }

  /** Whether the connection has to wait for another's transaction. */
  holds(connection: Connection): boolean {
    if (this.#active.size === 0) return false;
    for (const [other, { domids, untilMs }] of this.#active) {
      if (other !== connection && domids.has(connection.caller.domid) && this.#now() < untilMs) return true;
    }
    return false;
  }
}
