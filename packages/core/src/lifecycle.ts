/**
 * The life of a domain as a table. `nextState` is pure; `moveDomain` is the only code that changes a row's state.
 *
 *                     ┌────────── unpause ─────────┐
 *     free ─ reserve ─► building ─ created ─► paused ◄─ pause ─► running
 *                          │                    │  ▲               │
 *                          │                    └─ shutdown ─► shutdown (resume, resumePaused lead back)
 *                          └──────── destroy, from any of the four ───► dying ─ reaped ─► dead ─ released ─► free
 *
 * A dead domain is a zombie: nothing of it runs and it owns no memory of its own, but frames, mappings or a device
 * model still name it, so neither its slot nor its domid may be used again.
 */
import type { DomainTable, DomainState } from "./domain-table.ts";
import { DOMAIN_STATES } from "./domain-table.ts";

/** What can happen to a domain. */
export const DOMAIN_EVENTS = [
  "reserve",
  "created",
  "unpause",
  "pause",
  "shutdown",
  "resume",
  "resumePaused",
  "destroy",
  "reaped",
  "released",
] as const;
/** One thing that happens to a domain. */
export type DomainEvent = (typeof DOMAIN_EVENTS)[number];

const moves: Readonly<Record<DomainState, Partial<Record<DomainEvent, DomainState>>>> = {
  free: { reserve: "building" },
  building: { created: "paused", destroy: "dying" },
  paused: { unpause: "running", shutdown: "shutdown", destroy: "dying" },
  running: { pause: "paused", shutdown: "shutdown", destroy: "dying" },
  shutdown: { resume: "running", resumePaused: "paused", destroy: "dying" },
  dying: { reaped: "dead" },
  dead: { released: "free" },
};

/** The state after `event`, or undefined when that move is not legal. */
export const nextState = (state: DomainState, event: DomainEvent): DomainState | undefined => moves[state][event];

/**
 * Moves the domain in `slot`; false when the move is not legal from the state it is in. Atomic, and needs no lock:
 * a vCPU that shuts down may race with a control domain that pauses or destroys.
 */
export const moveDomain = (domains: DomainTable, slot: number, event: DomainEvent): boolean => {
  for (;;) {
    const before = Atomics.load(domains.state, slot);
    const next = moves[DOMAIN_STATES[before]!][event];
    if (next === undefined) return false;
    if (Atomics.compareExchange(domains.state, slot, before, DOMAIN_STATES.indexOf(next)) === before) return true;
  }
};
