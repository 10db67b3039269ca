/**
 * A small world for memory tests: a hypervisor over plain buffers, domains with address spaces that the checking page
 * table keeps, and guests that make real hypercalls with arguments in their own memory.
 */
import assert from "node:assert/strict";
import * as abi from "@xenolith/abi";
import { attachSpace } from "../src/address-space.ts";
import { auditMemory } from "../src/audit-memory.ts";
import type { Cpu } from "../src/cpu.ts";
import { createTestHypervisor } from "../src/fake-platform.ts";
import type { TestHypervisor } from "../src/fake-platform.ts";
import type { Geometry } from "../src/geometry.ts";
import { createCpu, createDomain, hypercall, initialise, setMaxPages, unpauseDomain } from "../src/index.ts";
import { populateRun } from "../src/memory-populate.ts";
import { isGuestWritable, P2M_HOLE } from "../src/p2m.ts";

/** Pages at the top of every guest that hold its hypercall arguments: one struct page and seven of lists. */
export const SYSTEM_PAGES = 8;
export const PAGE = 4096;

/** A guest, or dom0, that makes memory_op hypercalls. */
export interface Guest {
  readonly cpu: Cpu;
  readonly slot: number;
  readonly domid: number;
  /** Fake host address of gfn 0. */
  readonly base: number;
  /** First byte of the page for structs; the lists follow it. */
  readonly argument: number;
  readonly list: number;
}

export interface World extends TestHypervisor {
  readonly dom0: Guest;
  readonly guests: Guest[];
}

/** Address of the guest's struct page. */
const argumentAddress = (geometry: Geometry): number => (geometry.gfnCount - SYSTEM_PAGES) * PAGE;

const enter = (world: TestHypervisor, cpu: Cpu): Guest => {
  const { hypervisor } = world;
  const base = 2 ** 40 + cpu.slot * 2 ** 33;
  assert.equal(attachSpace(hypervisor, cpu.slot, base), 0);
  const argument = argumentAddress(hypervisor.geometry);
  const outcome = { count: 0, blockedGfn: -1, error: 0 };
  populateRun(hypervisor, cpu.slot, argument / PAGE, SYSTEM_PAGES, outcome);
  assert.equal(outcome.count, SYSTEM_PAGES);
  return { cpu, slot: cpu.slot, domid: cpu.domid, base, argument, list: argument + PAGE };
};

/** Builds a world of the given geometry, with dom0 only. */
export const createWorld = (geometry: Partial<Geometry> = {}): World => {
  const test = createTestHypervisor(geometry);
  const dom0 = enter(test, initialise(test.hypervisor));
  return { ...test, dom0, guests: [dom0] };
};

/** Adds a running domain that may own `pages` frames besides those of its arguments. */
export const addGuest = (world: World, pages: number, options: { vmaBudget?: number } = {}): Guest => {
  const { hypervisor } = world;
  const domid = createDomain(hypervisor, { vcpus: 2, ...options });
  assert.ok(domid > 0, `createDomain: ${domid}`);
  const slot = hypervisor.domains.slotOf(domid);
  assert.equal(setMaxPages(hypervisor, slot, pages + SYSTEM_PAGES), 0);
  assert.equal(unpauseDomain(hypervisor, slot), 0);
  const guest = enter(world, createCpu(hypervisor, slot, 0));
  world.guests.push(guest);
  return guest;
};

/** Makes memory_op as `guest`. */
export const memoryOp = (guest: Guest, command: number, argument: number = guest.argument): number =>
  hypercall(guest.cpu, abi.__HYPERVISOR_memory_op, command, argument, 0, 0, 0);

/** Writes a struct into the guest's argument page, by a function that fills a view of it. */
export const writeArgument = (guest: Guest, sizeBytes: number, fill: (view: DataView) => void): void => {
  const bytes = new Uint8Array(sizeBytes);
  fill(new DataView(bytes.buffer));
  assert.equal(guest.cpu.memory.copyToGuest(guest.argument, bytes), 0);
};

/** The struct page's first `sizeBytes` bytes. */
export const readArgument = (guest: Guest, sizeBytes: number): DataView => {
  const bytes = new Uint8Array(sizeBytes);
  assert.equal(guest.cpu.memory.copyFromGuest(guest.argument, bytes), 0);
  return new DataView(bytes.buffer);
};

/** Writes a list of u32 into the guest's list pages, `at` bytes in; returns its address. */
export const writeList = (guest: Guest, values: readonly number[], at = 0): number => {
  assert.equal(guest.cpu.memory.copyToGuest(guest.list + at, new Uint8Array(Uint32Array.from(values).buffer)), 0);
  return guest.list + at;
};

/** A reservation as a test writes it down. */
export interface Extents {
  readonly order?: number;
  readonly flags?: number;
  readonly domid?: number;
  /** Address of the list, instead of writing one. */
  readonly list?: number;
  readonly count?: number;
}

/** Writes a reservation at `at` of the argument page. */
export const fillReservation = (
  view: DataView,
  at: number,
  gfns: { list: number; count: number },
  extents: Extents,
): void => {
  abi.xen_memory_reservation.extent_start.set(view, at, gfns.list);
  abi.xen_memory_reservation.nr_extents.set(view, at, gfns.count);
  abi.xen_memory_reservation.extent_order.set(view, at, extents.order ?? 0);
  abi.xen_memory_reservation.mem_flags.set(view, at, extents.flags ?? 0);
  abi.xen_memory_reservation.domid.set(view, at, extents.domid ?? abi.DOMID_SELF);
};

/** Makes one of the reservation calls (or claim_pages) for the extents that begin at `gfns`. */
export const reserve = (guest: Guest, command: number, gfns: readonly number[], extents: Extents = {}): number => {
  const list = extents.list ?? writeList(guest, gfns);
  const count = extents.count ?? gfns.length;
  writeArgument(guest, abi.xen_memory_reservation.sizeBytes, (view) => {
    fillReservation(view, 0, { list, count }, extents);
  });
  return memoryOp(guest, command);
};

export const populate = (guest: Guest, gfns: readonly number[], extents: Extents = {}): number =>
  reserve(guest, abi.XENMEM_populate_physmap, gfns, extents);

export const decrease = (guest: Guest, gfns: readonly number[], extents: Extents = {}): number =>
  reserve(guest, abi.XENMEM_decrease_reservation, gfns, extents);

/** The gfns `first` ... `first + count - 1`. */
export const range = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, index) => first + index);

/** Frames that the guest owns besides those of its arguments. */
export const ownedPages = (world: World, guest: Guest): number =>
  world.hypervisor.domains.totPages[guest.slot]! - SYSTEM_PAGES;

/** Fails unless the auditor is content, p2m and page table agree, VMAs are as counted and free frames are zero. */
export const settle = (world: World): void => {
  const { hypervisor, mmu } = world;
  assert.deepEqual(auditMemory(hypervisor), []);
  assert.equal(hypervisor.locks.heldCount, 0);
  for (const guest of world.guests) {
    if (hypervisor.domains.spaceBase[guest.slot] !== guest.base) continue;
    for (let gfn = 0; gfn < hypervisor.p2m.gfnCount; gfn += 1) {
      const entry = hypervisor.p2m.get(guest.slot, gfn);
      const isHole = entry === P2M_HOLE;
      if (mmu.frameAt(guest.base, gfn) !== (isHole ? -1 : entry >>> 4)) assert.fail(`page table differs at gfn ${gfn}`);
      if (mmu.writableAt(guest.base, gfn) !== isGuestWritable(entry)) assert.fail(`rights differ at gfn ${gfn}`);
    }
    assert.equal(mmu.vmaCount(guest.base), hypervisor.domains.vmaCount[guest.slot]! + 1);
  }
  assertFreeIsZero(world);
};

const assertFreeIsZero = (world: World): void => {
  const { frames } = world.hypervisor;
  const banks = world.storage.banks.map((bank) => new BigUint64Array(bank));
  const words = PAGE / 8;
  for (let mfn = 0; mfn < frames.count; mfn += 1) {
    if (frames.owner[mfn] !== 0) continue;
    const bank = banks[Math.floor(mfn / frames.framesPerBank)]!;
    const at = (mfn % frames.framesPerBank) * words;
    for (let word = at; word < at + words; word += 1)
      if (bank[word] !== 0n) assert.fail(`free frame ${mfn} is not zero`);
  }
};

/** XENMEM_add_to_physmap of a page of `space`; its result. */
export const addPage = (guest: Guest, space: number, idx: number, gpfn: number): number => {
  writeArgument(guest, abi.xen_add_to_physmap.sizeBytes, (view) => {
    abi.xen_add_to_physmap.domid.set(view, 0, abi.DOMID_SELF);
    abi.xen_add_to_physmap.space.set(view, 0, space);
    abi.xen_add_to_physmap.idx.set(view, 0, idx);
    abi.xen_add_to_physmap.gpfn.set(view, 0, gpfn);
  });
  return memoryOp(guest, abi.XENMEM_add_to_physmap);
};

/** XENMEM_remove_from_physmap of `gpfn`; its result. */
export const removePage = (guest: Guest, gpfn: number): number => {
  writeArgument(guest, abi.xen_remove_from_physmap.sizeBytes, (view) => {
    abi.xen_remove_from_physmap.domid.set(view, 0, abi.DOMID_SELF);
    abi.xen_remove_from_physmap.gpfn.set(view, 0, gpfn);
  });
  return memoryOp(guest, abi.XENMEM_remove_from_physmap);
};
