/**
 * Tools of the grant tests: a machine whose domains, dom0 and its DMA view have address spaces, entries written as a
 * granter writes them, and the grant operations as guests make them. Every operation is followed by the auditor and by
 * a comparison of each page table with its p2m.
 */
import assert from "node:assert/strict";
import * as abi from "@xenolith/abi";
import { attachSpace } from "../src/address-space.ts";
import { dmaSlot } from "../src/domain-table.ts";
import { beginDestroy, continueDestroy, reapStage } from "../src/domain-reap.ts";
import type { Geometry } from "../src/geometry.ts";
import { isGuestWritable, isSecret, P2M_HOLE } from "../src/p2m.ts";
import { shownFor } from "./extent-kit.ts";
import { Machine, PARKED, poke } from "./machine.ts";
import type { Guest } from "./machine.ts";

/** The page (gfn 7) in which guests keep their arguments. */
export const ARGS = 0x7000;
/** gfns from here on are holes at first. */
export const HOLE = 64;
export const HOST = abi.GNTMAP_host_map;
export const DEVICE = abi.GNTMAP_device_map;
export const READ_ONLY = abi.GNTMAP_readonly;
export const RW = abi.GTF_permit_access;
export const RO = abi.GTF_permit_access | abi.GTF_readonly;
export const REVOKABLE = abi.GTF_permit_access | abi.GTF_revokable;
export const REVOKABLE_RO = REVOKABLE | abi.GTF_readonly;
/** All ones in place of an lgfn. */
export const PROVIDED = 0xffff_ffff;

/** A mapping as a test asks for it. */
export interface Wish {
  readonly ref?: number;
  readonly gfn?: number;
  readonly flags?: number;
  readonly dom?: number;
  readonly hostAddress?: number;
  readonly deviceAddress?: number;
  readonly lgfn?: number;
}

/** What came of it. */
export interface Mapped {
  readonly result: number;
  readonly status: number;
  readonly handle: number;
  readonly deviceAddress: number;
}

export class GrantMachine extends Machine {
  constructor(geometry: Partial<Geometry> = {}) {
    super(geometry);
    const view = dmaSlot(this.hypervisor.domains);
    assert.equal(attachSpace(this.hypervisor, 0, 2 ** 33), 0);
    assert.equal(attachSpace(this.hypervisor, view, 2 ** 33 * (view + 1)), 0);
  }

  /** Writes an entry as a granter does: domid and frame first, flags last. */
  grant(granter: Guest, ref: number, to: Guest | number, gfn: number, flags = RW): void {
    const { directMap, grants } = this.hypervisor;
    const address = grants.entryAddress(granter.slot, ref);
    const domid = typeof to === "number" ? to : to.domid;
    directMap.storeU32(address + 4, gfn);
    directMap.atomicStoreU32(address, ((domid << 16) | flags) >>> 0);
  }

  /** Flags of a shared entry. */
  flags(granter: Guest, ref: number): number {
    const { directMap, grants } = this.hypervisor;
    return directMap.atomicLoadU32(grants.entryAddress(granter.slot, ref)) & 0xffff;
  }

  /** Whether READING and WRITING are set, as "rw", "r" or "". */
  use(granter: Guest, ref: number): string {
    const flags = this.flags(granter, ref);
    return ((flags & abi.GTF_reading) === 0 ? "" : "r") + ((flags & abi.GTF_writing) === 0 ? "" : "w");
  }

  /** Ends access as a granter does; false: somebody uses the page. */
  endAccess(granter: Guest, ref: number): boolean {
    const { directMap, grants } = this.hypervisor;
    const address = grants.entryAddress(granter.slot, ref);
    const word = directMap.atomicLoadU32(address);
    if ((word & (abi.GTF_reading | abi.GTF_writing)) !== 0) return false;
    return directMap.cas(address, word, word & 0xffff_0000) === word;
  }

  /** Takes the permission away, whoever uses the page: the first half of a revoke. */
  denyAccess(granter: Guest, ref: number): void {
    const { directMap, grants } = this.hypervisor;
    directMap.andU32(grants.entryAddress(granter.slot, ref), ~abi.GTF_type_mask);
  }

  op(guest: Guest, command: number, address = ARGS, count = 1): number {
    return this.call(guest, abi.__HYPERVISOR_grant_table_op, command, address, count);
  }

  /** Writes the list of wishes at `address` and makes one call for all of them. */
  mapAll(mapper: Guest, granter: Guest | number, wishes: readonly Wish[], address = ARGS): Mapped[] {
    const size = abi.gnttab_map_grant_ref.sizeBytes;
    poke(
      mapper,
      address,
      this.#list(size, wishes, (view, at, wish) => fillMap(view, at, granter, wish)),
    );
    const result = this.op(mapper, abi.GNTTABOP_map_grant_ref, address, wishes.length);
    return wishes.map((_, index) => ({ result, ...this.#readMap(mapper, address + index * size) }));
  }

  map(mapper: Guest, granter: Guest | number, wish: Wish = {}): Mapped {
    return this.mapAll(mapper, granter, [wish])[0]!;
  }

  mapRevokable(mapper: Guest, granter: Guest | number, wish: Wish = {}): Mapped {
    const size = abi.gnttab_map_revokable.sizeBytes;
    const bytes = this.#list(size, [wish], (view, at) => {
      fillMap(view, at, granter, wish);
      abi.gnttab_map_revokable.lgfn.set(view, at, wish.lgfn ?? PROVIDED);
    });
    poke(mapper, ARGS, bytes);
    const result = this.op(mapper, abi.GNTTABOP_map_revokable);
    return { result, ...this.#readMap(mapper, ARGS) };
  }

  /** Unmaps; each wish names addresses and its handle. Returns the statuses. */
  unmapAll(mapper: Guest, list: readonly Unwish[], command: number = abi.GNTTABOP_unmap_grant_ref): number[] {
    const { gnttab_unmap_grant_ref: layout } = abi;
    const bytes = this.#list(layout.sizeBytes, list, (view, at, wish) => {
      layout.host_addr.set(view, at, wish.host ?? 0);
      layout.dev_bus_addr.set(view, at, wish.device ?? 0);
      layout.handle.set(view, at, wish.handle);
      layout.status.set(view, at, 0x1ee);
    });
    poke(mapper, ARGS, bytes);
    assert.equal(this.op(mapper, command, ARGS, list.length), 0);
    return list.map((_, index) => this.#s16(mapper, ARGS + index * layout.sizeBytes + layout.status.offset));
  }

  unmap(mapper: Guest, handle: number, gfn: number, device = 0): number {
    return this.unmapAll(mapper, [{ handle, host: gfn * 4096, device }])[0]!;
  }

  revoke(granter: Guest, ref: number): number {
    const { gnttab_revoke: layout } = abi;
    poke(
      granter,
      ARGS,
      this.#list(layout.sizeBytes, [ref], (view, at) => layout.ref.set(view, at, ref)),
    );
    assert.equal(this.op(granter, abi.GNTTABOP_revoke), 0);
    return this.#s16(granter, ARGS + layout.status.offset);
  }

  notify(guest: Guest, wish: { target: number; action: number; offset?: number; port?: number }): number {
    const { gnttab_unmap_notify: layout } = abi;
    const bytes = this.#list(layout.sizeBytes, [wish], (view, at) => {
      layout.target.set(view, at, wish.target);
      layout.action.set(view, at, wish.action);
      layout.offset.set(view, at, wish.offset ?? 0);
      layout.port.set(view, at, wish.port ?? 0);
    });
    poke(guest, ARGS, bytes);
    assert.equal(this.op(guest, abi.GNTTABOP_unmap_notify), 0);
    return this.#s16(guest, ARGS + layout.status.offset);
  }

  /** The frame that stands at `gfn` in the guest's page table, or -1. */
  frameAt(guest: Guest | number, gfn: number): number {
    return this.parts.mmu.frameAt(this.base(guest), gfn);
  }

  /** A byte as the guest's own load sees it; -1: it would trap. */
  load(guest: Guest | number, address: number): number {
    return this.parts.mmu.read(this.base(guest), address);
  }

  /** A store of the guest's own; false: it would trap. */
  store(guest: Guest | number, address: number, value: number): boolean {
    return this.parts.mmu.write(this.base(guest), address, value);
  }

  base(guest: Guest | number): number {
    return 2 ** 33 * ((typeof guest === "number" ? guest : guest.slot) + 1);
  }

  /** Frame of the guest's RAM at `gfn`. */
  frame(guest: Guest, gfn: number): number {
    return this.hypervisor.p2m.get(guest.slot, gfn) >>> 4;
  }

  refs(mfn: number): number {
    return this.hypervisor.frames.refs[mfn]!;
  }

  /** Ends a domain as far as it can be ended now. */
  destroy(guest: Guest, budget?: number): void {
    const { hypervisor } = this;
    assert.equal(beginDestroy(hypervisor, guest.slot), 0);
    for (let round = 0; round < 4000; round += 1) {
      continueDestroy(hypervisor, guest.slot, budget);
      if (budget === undefined || round % 16 === 0) this.check();
      const stage = reapStage(hypervisor, guest.slot);
      if (stage === undefined || stage === "zombie") break;
    }
    // What remains are waits for others.
    for (let round = 0; round < 5; round += 1) continueDestroy(hypervisor, guest.slot, budget);
    this.check();
  }

  override check(): void {
    super.check();
    const { domains, p2m } = this.hypervisor;
    for (let slot = 0; slot < domains.slotCount; slot += 1) {
      const base = domains.spaceBase[slot]!;
      for (let gfn = 0; base !== 0 && gfn < p2m.gfnCount; gfn += 1) {
        const entry = p2m.get(slot, gfn);
        const expected = isSecret(entry) ? shownFor(this.parts, entry) : entry === P2M_HOLE ? -1 : entry >>> 4;
        if (this.parts.mmu.frameAt(base, gfn) !== expected)
          assert.fail(`slot ${slot}: page table differs at gfn ${gfn}`);
        if (this.parts.mmu.writableAt(base, gfn) !== isGuestWritable(entry)) {
          assert.fail(`slot ${slot}: rights differ at gfn ${gfn}`);
        }
      }
      const charged = domains.vmaCount[slot]! + 1;
      if (base !== 0) assert.ok(this.parts.mmu.vmaCount(base) <= charged, `slot ${slot}: more mappings than charged`);
    }
  }

  #list<T>(size: number, wishes: readonly T[], fill: (view: DataView, at: number, wish: T) => void): Uint8Array {
    const bytes = new Uint8Array(size * wishes.length);
    const view = new DataView(bytes.buffer);
    for (const [index, wish] of wishes.entries()) fill(view, index * size, wish);
    return bytes;
  }

  #s16(guest: Guest, address: number): number {
    const value = guest.cpu.memory.readU16(address);
    return value > 0x7fff ? value - 0x1_0000 : value;
  }

  #readMap(guest: Guest, address: number): Omit<Mapped, "result"> {
    const { gnttab_map_grant_ref: layout } = abi;
    const bytes = new Uint8Array(layout.sizeBytes);
    guest.cpu.memory.copyFromGuest(address, bytes);
    const view = new DataView(bytes.buffer);
    return {
      status: layout.status.get(view, 0),
      handle: layout.handle.get(view, 0),
      deviceAddress: layout.dev_bus_addr.get(view, 0),
    };
  }
}

/** What to unmap. */
export interface Unwish {
  readonly handle: number;
  readonly host?: number;
  readonly device?: number;
}

const fillMap = (view: DataView, at: number, granter: Guest | number, wish: Wish): void => {
  const { gnttab_map_grant_ref: layout } = abi;
  layout.host_addr.set(view, at, wish.hostAddress ?? (wish.gfn ?? HOLE) * 4096);
  layout.flags.set(view, at, wish.flags ?? HOST);
  layout.ref.set(view, at, wish.ref ?? 8);
  layout.dom.set(view, at, wish.dom ?? (typeof granter === "number" ? granter : granter.domid));
  layout.status.set(view, at, 0x1ee);
  layout.handle.set(view, at, 0xeeee_eeee);
  layout.dev_bus_addr.set(view, at, wish.deviceAddress ?? 0);
};

/** A machine with a granter and a mapper; the granter's page at gfn 1 holds 0xa1. */
export const pair = (geometry: Partial<Geometry> = {}): { machine: GrantMachine; granter: Guest; mapper: Guest } => {
  const machine = new GrantMachine(geometry);
  const granter = machine.guest();
  const mapper = machine.guest();
  for (let gfn = 0; gfn < 7; gfn += 1) {
    poke(granter, gfn * 4096, Uint8Array.of(0xa0 + gfn));
    poke(mapper, gfn * 4096, Uint8Array.of(0xb0 + gfn));
  }
  return { machine, granter, mapper };
};

export { PARKED };
