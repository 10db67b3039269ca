/**
 * Mappings of extents: their names, their place in the extent's list, and the one way in which what stands there is
 * switched. See extent-map.ts.
 */
import assert from "node:assert/strict";
import { detachSpace, switchRun } from "./address-space.ts";
import { crashDomain } from "./domain-ops.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import { ZERO_FRAME } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { MAPPING_FLAG_EXTENT, MAPPING_LIVE, MAPPING_SEVERED } from "./maptrack-table.ts";
import { P2M_EXTENT_RW, P2M_HOLE } from "./p2m.ts";

/** A mapping's name is its slot, its handle and the low bits of the row's serial. */
const HANDLE_SPAN = 2 ** 20;
const SLOT_SPAN = 2 ** 12;
const SERIAL_SPAN = 2 ** 20;

/** What a mapping of an extent is now. */
export type ExtentMappingState = "live" | "severed" | "gone";

/** What became of a mapping. */
export const extentMappingState = (hypervisor: Hypervisor, mapping: number): ExtentMappingState => {
  const row = mappingRow(hypervisor, mapping);
  if (row < 0) return "gone";
  return hypervisor.maptrack.state[row] === MAPPING_SEVERED ? "severed" : "live";
};

/** Row of the mapping of that name, or -1: it is gone. */
export const mappingRow = (hypervisor: Hypervisor, mapping: number): number => {
  const { domains, maptrack } = hypervisor;
  const slot = mappingSlot(mapping);
  if (!(mapping >= 0) || slot >= domains.slotCount) return -1;
  const row = maptrack.row(slot, mappingHandle(mapping));
  if (row < 0 || (maptrack.flags[row]! & MAPPING_FLAG_EXTENT) === 0) return -1;
  const state = Atomics.load(maptrack.state, row);
  const isThere = state === MAPPING_LIVE || state === MAPPING_SEVERED;
  return isThere && mappingName(hypervisor, slot, mappingHandle(mapping)) === mapping ? row : -1;
};

/** Handle of the mapping of that name. */
export const mappingHandle = (mapping: number): number => mapping % HANDLE_SPAN;

/** Slot of the domain that has the mapping of that name. */
export const mappingSlot = (mapping: number): number => Math.floor(mapping / HANDLE_SPAN) % SLOT_SPAN;

/** Name of the mapping that the domain in `slot` has as `handle`. */
export const mappingName = ({ maptrack }: Hypervisor, slot: number, handle: number): number =>
  ((maptrack.serial[maptrack.row(slot, handle)]! % SERIAL_SPAN) * SLOT_SPAN + slot) * HANDLE_SPAN + handle;

/** Takes a row off the list of its extent. */
export const unlinkMapping = (hypervisor: Hypervisor, row: number): void => {
  const { extents, locks, maptrack } = hypervisor;
  const extent = maptrack.ref[row]!;
  const lock = locks.id("grantTable", extents.granter[extent]);
  locks.acquire(lock);
  let before = -1;
  let link = extents.first[extent]!;
  while (link !== row + 1) {
    assert(link !== 0);
    before = link - 1;
    link = maptrack.next[before]!;
  }
  if (before < 0) extents.first[extent] = maptrack.next[row]!;
  else maptrack.next[before] = maptrack.next[row]!;
  maptrack.next[row] = 0;
  extents.mappings[extent]! -= 1;
  locks.release(lock);
};

/** Puts a row on the list of its extent. */
export const linkMapping = (hypervisor: Hypervisor, row: number): void => {
  const { extents, locks, maptrack } = hypervisor;
  const extent = maptrack.ref[row]!;
  const lock = locks.id("grantTable", extents.granter[extent]);
  locks.acquire(lock);
  maptrack.next[row] = extents.first[extent]!;
  extents.first[extent] = row + 1;
  extents.mappings[extent]! += 1;
  locks.release(lock);
};

/**
 * Puts something else where the mapping in `row` of the domain in `slot` stands: P2M_HOLE, P2M_ZERO, or its replacement
 * (P2M_EXTENT_RW). When the page table refuses, although nothing more is needed, the domain is crashed and its whole
 * address space taken away. 0, or the errno of a page table that refuses even that.
 */
export const switchMapping = (hypervisor: Hypervisor, slot: number, row: number, type: number): number => {
  const result = switchOnce(hypervisor, slot, row, type, true);
  if (result === 0 || slot === DOM0_SLOT) return result;
  crashDomain(hypervisor, slot, "the host has no mapping left for what was taken back from it");
  const detached = detachSpace(hypervisor, slot);
  return detached === 0 ? switchOnce(hypervisor, slot, row, type, true) : detached;
};

/**
 * Makes holes where the mapping in `row` stands, within what the domain may have: -ENOSPC, or the page table's errno, and
 * nothing has changed.
 */
export const switchWithin = (hypervisor: Hypervisor, slot: number, row: number): number =>
  switchOnce(hypervisor, slot, row, P2M_HOLE, false);

const switchOnce = (hypervisor: Hypervisor, slot: number, row: number, type: number, urgent: boolean): number => {
  const { locks, maptrack } = hypervisor;
  const lock = locks.id("p2m", slot);
  const mfn = type === P2M_EXTENT_RW ? maptrack.local[row]! - 1 : ZERO_FRAME;
  locks.acquire(lock);
  const gfn = maptrack.gfn[row]! - 1;
  const result = switchRun(hypervisor, slot, { gfn, mfn, count: maptrack.count[row]!, type, urgent });
  locks.release(lock);
  return result;
};
