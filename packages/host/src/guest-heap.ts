/**
 * `memory.size` and `memory.grow` of a guest, as the hypervisor sees them: RAM in pages of 64 KiB from address 0. Growth
 * populates frames under the domain's max_pages, all of them or none; it is refused when the guest has put something of
 * its own where the new pages would stand, and where the policy denies it populate_physmap.
 */
import { __HYPERVISOR_memory_op, DOMID_SELF, XENMEM_populate_physmap } from "@xenolith/abi";
import {
  authorise,
  type Cpu,
  depopulateRun,
  type Hypervisor,
  P2M_HOLE,
  type Populated,
  populateRun,
  resolveDomain,
} from "@xenolith/core";
import type { HostTable } from "./host-table.ts";

/** Frames of one WebAssembly page. */
export const FRAMES_PER_PAGE = 16;

const outcome: Populated = { count: 0, blockedGfn: -1, error: 0 };

/** Grows the memory by `pages`; returns the size before, or -1. Inside the gate, with no lock held. */
export const growHeap = (cpu: Cpu, hostTable: HostTable, tag: number, pages: number): number => {
  const { memoryPages, memoryPagesMax } = hostTable;
  const { slot } = cpu;
  if (pages > 0 && !mayPopulate(cpu)) return -1;
  lockHeap(hostTable, slot, tag);
  const before = memoryPages[slot]!;
  const isGrown =
    before + pages <= memoryPagesMax[slot]! &&
    populateHoles(cpu.hypervisor, slot, before * FRAMES_PER_PAGE, pages * FRAMES_PER_PAGE) === 0;
  if (isGrown) Atomics.store(memoryPages, slot, before + pages);
  unlockHeap(hostTable, slot);
  return isGrown ? before : -1;
};

/** Whether the policy lets the caller populate its own memory. */
const mayPopulate = (cpu: Cpu): boolean =>
  authorise(cpu, __HYPERVISOR_memory_op, XENMEM_populate_physmap) === 0 &&
  resolveDomain(cpu, DOMID_SELF, "TARGET") >= 0;

/**
 * Populates `count` gfns from `gfn` that are holes now, all or none. Returns 0, a negative errno, or 1 when something
 * stands there.
 */
export const populateHoles = (hypervisor: Hypervisor, slot: number, gfn: number, count: number): number => {
  const { p2m } = hypervisor;
  const first = p2m.at(slot, gfn);
  for (let at = first; at < first + count; at += 1) if (p2m.entries[at] !== P2M_HOLE) return 1;
  populateRun(hypervisor, slot, gfn, count, outcome);
  if (outcome.count === count) return 0;
  const { error } = outcome;
  if (outcome.count > 0) depopulateRun(hypervisor, slot, gfn, outcome.count);
  return error === 0 ? 1 : error;
};

/** Frees the lock of a vCPU thread that no longer exists. */
export const recoverHeap = (hostTable: HostTable, slot: number, tag: number): void => {
  if (Atomics.compareExchange(hostTable.growLock, slot, tag, 0) === tag) Atomics.notify(hostTable.growLock, slot);
};

const lockHeap = (hostTable: HostTable, slot: number, tag: number): void => {
  for (;;) {
    const holder = Atomics.compareExchange(hostTable.growLock, slot, 0, tag);
    if (holder === 0) return;
    Atomics.wait(hostTable.growLock, slot, holder);
  }
};

const unlockHeap = (hostTable: HostTable, slot: number): void => {
  Atomics.store(hostTable.growLock, slot, 0);
  Atomics.notify(hostTable.growLock, slot);
};
