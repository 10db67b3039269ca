import type { Connection } from "./connection.ts";

/** Commits that must fail because of others before those are made to wait. */
const CONFLICT_COUNT = 3;
/** How long they wait at most for one transaction of the control domain, and of a guest. */
const CONTROL_SHIELD_MS = 100;
const GUEST_SHIELD_MS = 10;

interface Shield {
  readonly domids: ReadonlySet<number>;
  readonly untilMs: number;
}

/**
 * Keeps clients from making another's transactions fail for ever: after three failures in a row the domains that caused
 * them are not served while the next transaction is open, for a tenth of a second at most. It takes three more failures
 * until they wait again, so nobody can be kept from being served this way. The control domain never waits.
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
    connection.conflictCount = 0;
    connection.culprits.clear();
    domids.delete(0);
    if (domids.size === 0) return;
    const shieldMs = connection.caller.privileged ? CONTROL_SHIELD_MS : GUEST_SHIELD_MS;
    this.#active.set(connection, { domids, untilMs: this.#now() + shieldMs });
    setTimeout(() => this.lower(connection), shieldMs).unref();
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
