/**
 * Tools of the tests of grant_table_op: entries as a granter writes them, operations as a guest makes them. Every call
 * audits the machine afterwards.
 */
import assert from "node:assert/strict";
import * as abi from "@xenolith/abi";
import { hookRun } from "../src/address-space.ts";
import { P2M_RAM_RO } from "../src/p2m.ts";
import { Machine, peek, poke } from "./machine.ts";
import type { Guest } from "./machine.ts";

export const PAGE = 4096;
/** Where operations stand in their caller's memory: the last two of its pages. */
export const OPERATIONS = 6 * PAGE;

/** A machine with a granter and the domain that it grants to. */
export const pair = (): { machine: Machine; granter: Guest; caller: Guest } => {
  const machine = new Machine();
  return { machine, granter: machine.guest(), caller: machine.guest() };
};

/** An entry as its granter writes it; by default a writable grant. */
export interface Entry {
  readonly to: number;
  readonly gfn: number;
  readonly flags?: number;
}

/** Writes entry `ref` of the granter's table. */
export const grant = (machine: Machine, granter: Guest, ref: number, entry: Entry): void => {
  const { grants, directMap } = machine.hypervisor;
  const address = grants.entryAddress(granter.slot, ref);
  directMap.storeU32(address + 4, entry.gfn);
  directMap.storeU32(address, ((entry.to << 16) | (entry.flags ?? abi.GTF_permit_access)) >>> 0);
};

/** The flags that the granter reads in entry `ref`. */
export const flagsOf = (machine: Machine, granter: Guest, ref: number): number => {
  const { grants, directMap } = machine.hypervisor;
  return directMap.loadU32(grants.entryAddress(granter.slot, ref)) & 0xffff;
};

/** A field of a structure, by the handle of its layout. */
export interface Field {
  get(view: DataView, at: number): number;
  set(view: DataView, at: number, value: number): void;
}

/** Makes one grant_table_op on `bytes` at OPERATIONS; what it left there is in the answer's view. */
export const grantOp = (
  machine: Machine,
  guest: Guest,
  command: number,
  bytes: Uint8Array,
  count = 1,
): { result: number; view: DataView } => {
  poke(guest, OPERATIONS, bytes);
  const result = machine.call(guest, abi.__HYPERVISOR_grant_table_op, command, OPERATIONS, count);
  return { result, view: new DataView(peek(guest, OPERATIONS, bytes.length).buffer) };
};

/** A structure of `sizeBytes` bytes with these fields set. */
export const structure = (sizeBytes: number, ...fields: readonly (readonly [Field, number])[]): Uint8Array => {
  const bytes = new Uint8Array(sizeBytes);
  for (const [field, value] of fields) field.set(new DataView(bytes.buffer), 0, value);
  return bytes;
};

/** One end of a copy. */
export interface End {
  /** A reference; or else a frame of the caller's. */
  readonly ref?: number;
  readonly gfn?: number;
  /** By default the caller itself, as DOMID_SELF. */
  readonly domid?: number;
  readonly offset?: number;
}

/** A copy as a test writes it down. */
export interface Copy {
  readonly from: End;
  readonly to: End;
  readonly length?: number;
}

/** What is in the status field before an operation is made. */
export const UNTOUCHED = -0x1112;

export const encodeCopies = (copies: readonly Copy[]): Uint8Array => {
  const { gnttab_copy: layout } = abi;
  const bytes = new Uint8Array(copies.length * layout.sizeBytes);
  const view = new DataView(bytes.buffer);
  for (const [index, { from, to, length = 64 }] of copies.entries()) {
    const at = index * layout.sizeBytes;
    for (const [side, end] of [
      [layout.source, from],
      [layout.dest, to],
    ] as const) {
      side.u.ref.set(view, at, end.ref ?? end.gfn ?? 0);
      side.domid.set(view, at, end.domid ?? abi.DOMID_SELF);
      side.offset.set(view, at, end.offset ?? 0);
    }
    layout.len.set(view, at, length);
    const flags =
      (from.ref === undefined ? 0 : abi.GNTCOPY_source_gref) | (to.ref === undefined ? 0 : abi.GNTCOPY_dest_gref);
    layout.flags.set(view, at, flags);
    layout.status.set(view, at, UNTOUCHED);
  }
  return bytes;
};

/** Makes the copies in one call that has to succeed; returns their statuses. */
export const copies = (machine: Machine, caller: Guest, list: readonly Copy[]): number[] => {
  const { gnttab_copy: layout } = abi;
  const bytes = encodeCopies(list);
  const { result, view } = grantOp(machine, caller, abi.GNTTABOP_copy, bytes, list.length);
  assert.equal(result, 0);
  return list.map((_, index) => layout.status.get(view, index * layout.sizeBytes));
};

/** Makes one copy; returns its status. */
export const copy = (machine: Machine, caller: Guest, one: Copy): number => copies(machine, caller, [one])[0]!;

/** Maps entry `ref` of the granter at `gfn` of `mapper`, which becomes a hole first; returns its handle. */
export const mapEntry = (
  machine: Machine,
  mapper: Guest,
  about: { readonly granter: Guest; readonly ref: number; readonly gfn: number; readonly flags: number },
): number => {
  const { gnttab_map_grant_ref: layout } = abi;
  const bytes = structure(
    layout.sizeBytes,
    [layout.host_addr, about.gfn * PAGE],
    [layout.flags, about.flags],
    [layout.ref, about.ref],
    [layout.dom, about.granter.domid],
  );
  const { result, view } = grantOp(machine, mapper, abi.GNTTABOP_map_grant_ref, bytes);
  assert.equal(result, 0);
  assert.equal(layout.status.get(view, 0), abi.GNTST_okay);
  return layout.handle.get(view, 0);
};

/** Takes the mapping at `gfn` away again. */
export const unmapEntry = (machine: Machine, mapper: Guest, handle: number, gfn: number): void => {
  const { gnttab_unmap_grant_ref: layout } = abi;
  const bytes = structure(layout.sizeBytes, [layout.host_addr, gfn * PAGE], [layout.handle, handle]);
  const { result, view } = grantOp(machine, mapper, abi.GNTTABOP_unmap_grant_ref, bytes);
  assert.equal(result, 0);
  assert.equal(layout.status.get(view, 0), abi.GNTST_okay);
};

/** Fills `length` bytes with a pattern that `seed` tells from others, and returns it. */
export const fill = (guest: Guest, address: number, seed: number, length = PAGE): Uint8Array => {
  const bytes = Uint8Array.from({ length }, (_, index) => (index * 7 + seed * 31 + (index >> 8)) & 0xff);
  poke(guest, address, bytes);
  return bytes;
};

/** The reference of `granted`. */
export const REF = 9;

/** A granter that gives its frame 2 to the caller as REF, and the contents of both sides' frames. */
export const granted = (flags: number = abi.GTF_permit_access) => {
  const world = pair();
  const theirs = fill(world.granter, 2 * PAGE, 1);
  const own = fill(world.caller, 3 * PAGE, 2);
  grant(world.machine, world.granter, REF, { to: world.caller.domid, gfn: 2, flags });
  const { domid } = world.granter;
  const from = (offset = 0): Copy["from"] => ({ ref: REF, domid, offset });
  return { ...world, theirs, own, remote: from };
};

/** Lets the guest only read its RAM at `gfn`. */
export const makeReadOnly = (machine: Machine, guest: Guest, gfn: number): void => {
  const { hypervisor } = machine;
  const lock = hypervisor.locks.id("p2m", guest.slot);
  hypervisor.locks.acquire(lock);
  const frame = hypervisor.p2m.get(guest.slot, gfn) >>> 4;
  assert.equal(hookRun(hypervisor, guest.slot, gfn, frame, 1, P2M_RAM_RO), 0);
  hypervisor.locks.release(lock);
};
