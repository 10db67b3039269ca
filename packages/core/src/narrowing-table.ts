/**
 * What the operator's policy takes from domains: for every operation of the table (operations.ts) at most one step up from
 * the class that the table wants. It can only take: there is no value that gives.
 *
 *     column      type    holds                                                      written by
 *     isNarrowed  u32     per domain: 1 when any of its cells is not 0               create, control domain
 *     cells       u8×512  per domain: NARROW_* of each operation                     create, control domain
 *     everyone    u8×512  what is taken from every domain but dom0 at its creation   control domain, at opening
 *     domids      u32     per rule for one number: domid + 1, or 0                   control domain, at opening
 *     byDomid     u8×512  per rule for one number: what is taken from that domain    control domain, at opening
 *
 * A cell is one byte, read without a lock. Dom0 is never narrowed: it is the program that loads the policy.
 */
import assert from "node:assert/strict";
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** As the table says. */
export const NARROW_NOTHING = 0;
/** TARGET becomes DM_PRIV, HOOK and TEXT become XS_PRIV. */
export const NARROW_MIDDLE = 1;
/** Privileged domains only. */
export const NARROW_PRIVILEGED = 2;
/** Nobody, not even a privileged domain. */
export const NARROW_DENIED = 3;

/** Operations that a row has room for. */
export const OPERATION_COUNT_MAX = 512;
/** Domids that can have a row of their own. */
export const DOMID_RULES_MAX = 64;

/** A cell for each operation, in the order of `operations`. */
export type Narrowing = Uint8Array;

/** Rights that domains do not have. */
export class NarrowingTable {
  readonly isNarrowed: Uint32Array;
  readonly #cells: Uint8Array;
  readonly #everyone: Uint8Array;
  readonly #domids: Uint32Array;
  readonly #byDomid: Uint8Array;

  constructor(arena: ColumnArena, geometry: Geometry) {
    this.isNarrowed = arena.u32(geometry.domainCountMax);
    this.#cells = arena.u8(geometry.domainCountMax * OPERATION_COUNT_MAX);
    this.#everyone = arena.u8(OPERATION_COUNT_MAX);
    this.#domids = arena.u32(DOMID_RULES_MAX);
    this.#byDomid = arena.u8(DOMID_RULES_MAX * OPERATION_COUNT_MAX);
  }

  /** What is taken from the domain in `slot` of the operation with this index. */
  of(slot: number, operation: number): number {
    return this.#cells[slot * OPERATION_COUNT_MAX + operation]!;
  }

  /** Sets what domains lose that are created from now on: all of them, and those with certain numbers. */
  setDefaults(everyone: Narrowing, byDomid: ReadonlyMap<number, Narrowing>): void {
    assert(byDomid.size <= DOMID_RULES_MAX);
    this.#everyone.fill(0);
    this.#everyone.set(everyone);
    this.#domids.fill(0);
    this.#byDomid.fill(0);
    for (const [index, [domid, cells]] of [...byDomid].entries()) {
      this.#byDomid.set(cells, index * OPERATION_COUNT_MAX);
      this.#domids[index] = domid + 1;
    }
  }

  /** Begins the row of a new domain. `domid` undefined: it is dom0, and loses nothing. */
  begin(slot: number, domid: number | undefined, own: Narrowing | undefined): void {
    const cells = new Uint8Array(OPERATION_COUNT_MAX);
    if (domid !== undefined) {
      raise(cells, this.#everyone);
      const rule = this.#domids.indexOf(domid + 1);
      if (rule >= 0) raise(cells, this.#byDomid.subarray(rule * OPERATION_COUNT_MAX, (rule + 1) * OPERATION_COUNT_MAX));
      if (own !== undefined) raise(cells, own);
    }
    this.#cells.set(cells, slot * OPERATION_COUNT_MAX);
    Atomics.store(this.isNarrowed, slot, cells.some((cell) => cell !== NARROW_NOTHING) ? 1 : 0);
  }
}

/** The stricter of both counts. */
const raise = (cells: Uint8Array, other: Uint8Array): void => {
  for (const [index, cell] of other.entries()) if (cell > cells[index]!) cells[index] = cell;
};
