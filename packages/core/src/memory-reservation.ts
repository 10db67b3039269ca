/**
 * increase_reservation, decrease_reservation and populate_physmap. All three return how many extents were completed, and
 * nothing else: every error before the first one is a 0. Neighbouring extents are done as one run.
 * Source: xen/include/public/memory.h, struct xen_memory_reservation.
 */
import { xen_memory_reservation, XENMEMF_exact_node_request } from "@xenolith/abi";
import { allocateDomainBlock, roomFor } from "./accounting.ts";
import { passGate } from "./block.ts";
import type { Cpu } from "./cpu.ts";
import { crashDomain } from "./domain-ops.ts";
import { ExtentList } from "./extent-list.ts";
import { keepUnhooked, releaseFrame, takeUnhooked } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { depopulateRun, populateRun, SLICE_FRAMES_MAX } from "./memory-populate.ts";
import type { Populated } from "./memory-populate.ts";
import { perCaller } from "./per-caller.ts";
import { isPrivileged, resolveDomain } from "./policy.ts";

/** Largest order that an ordinary domain may ask for: 2 MiB. */
export const ORDER_MAX = 9;
/** Largest order that a privileged domain may ask for: 1 GiB. */
export const ORDER_MAX_PRIVILEGED = 18;
/** Runs of extents done between two looks at whether the caller should pause. */
const SLICE_RUNS = 64;
/** Most extents of one call. */
const EXTENTS_MAX = 1 << 26;

const ADDRESS_BITS_MASK = 0xff;
const NODE_SHIFT = 8;
const NODE_MASK = 0xff;
/** The machine is one node; it is called 0, written as 1. */
const NODE_ONLY = 1;

/** A reservation as read from the guest, checked. Overwritten by the caller's next one. */
interface Reservation {
  slot: number;
  list: number;
  count: number;
  order: number;
  readonly extents: ExtentList;
}

const requestOf = perCaller<Reservation>(() => ({ slot: 0, list: 0, count: 0, order: 0, extents: new ExtentList() }));
const outcome: Populated = { count: 0, blockedGfn: -1, error: 0 };

/** Does one run of neighbouring extents; returns how many were completed. */
type RunOperation = (hypervisor: Hypervisor, request: Reservation, gfn: number, count: number) => number;

/** XENMEM_populate_physmap: zeroed RAM at the gfns listed. Over anything but RAM or a hole it crashes the domain. */
export const populatePhysmap = (cpu: Cpu, argument: number): number => {
  const request = requestOf(cpu);
  return readReservation(cpu, request, argument, true) ? forEachRun(cpu, request, populateExtents) : 0;
};

/** XENMEM_decrease_reservation: frees the frames at the gfns listed. Stops at the first that is not RAM. */
export const decreaseReservation = (cpu: Cpu, argument: number): number => {
  const request = requestOf(cpu);
  return readReservation(cpu, request, argument, false) ? forEachRun(cpu, request, decreaseExtents) : 0;
};

/**
 * XENMEM_increase_reservation: frames without a gfn. Writes the first mfn of each extent to the list, if there is one.
 */
export const increaseReservation = (cpu: Cpu, argument: number): number => {
  const request = requestOf(cpu);
  if (!readReservation(cpu, request, argument, true)) return 0;
  const { slot, list, count, order } = request;
  for (let done = 0; done < count; done += 1) {
    const mfn = allocateDomainBlock(cpu.hypervisor, slot, order);
    if (mfn < 0) return done;
    for (let frame = mfn; frame < mfn + 2 ** order; frame += 1) keepUnhooked(cpu.hypervisor, slot, frame);
    if (list !== 0 && !cpu.memory.writeU32(list + done * 4, mfn)) {
      giveUp(cpu.hypervisor, slot, mfn, 2 ** order);
      return done;
    }
    if (done % SLICE_RUNS === SLICE_RUNS - 1) letOthersGo(cpu, request);
  }
  return count;
};

/** Largest extent order that the caller may use. */
export const orderMax = (cpu: Cpu): number =>
  isPrivileged(cpu.hypervisor, cpu.slot) ? ORDER_MAX_PRIVILEGED : ORDER_MAX;

/** Whether frames can be had as `flags` wants them: anywhere on node 0, not on demand. */
export const areFlagsPossible = (hypervisor: Hypervisor, flags: number): boolean => {
  const addressBits = flags & ADDRESS_BITS_MASK;
  const node = (flags >>> NODE_SHIFT) & NODE_MASK;
  const rest = flags >>> 16;
  const reachable = addressBits === 0 || 2 ** addressBits >= hypervisor.geometry.machineFrames * 4096;
  const restPossible = (rest & ~(XENMEMF_exact_node_request >>> 16)) === 0;
  return reachable && restPossible && (node === 0 || node === NODE_ONLY);
};

/** Reads the argument into `request`. False: it cannot be read, names no domain the caller may act on, or asks too much. */
const readReservation = (cpu: Cpu, request: Reservation, argument: number, isAllocation: boolean): boolean => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(argument, xen_memory_reservation.sizeBytes)) return false;
  const view = memory.scratch;
  request.list = xen_memory_reservation.extent_start.get(view, 0);
  request.count = xen_memory_reservation.nr_extents.get(view, 0);
  request.order = xen_memory_reservation.extent_order.get(view, 0);
  const flags = xen_memory_reservation.mem_flags.get(view, 0);
  request.slot = resolveDomain(cpu, xen_memory_reservation.domid.get(view, 0), "TARGET");
  if (request.slot < 0 || request.order > orderMax(cpu) || request.count > EXTENTS_MAX) return false;
  return !isAllocation || areFlagsPossible(hypervisor, flags);
};

/**
 * A list may be long: between runs nothing is half done, so the caller may pause or stop here. Not while it works on
 * another domain, which could be gone when it goes on.
 */
const letOthersGo = (cpu: Cpu, request: Reservation): void => {
  if (request.slot === cpu.slot) passGate(cpu);
};

/** Reads the list once, joins neighbouring extents and does each run. Returns the number of extents completed. */
const forEachRun = (cpu: Cpu, request: Reservation, operation: RunOperation): number => {
  const { list, count, order, extents } = request;
  if (!extents.open(cpu.memory, list, count)) return 0;
  const size = 2 ** order;
  const runMax = Math.max(1, SLICE_FRAMES_MAX / size);
  let completed = 0;
  let runs = 0;
  let first = -1;
  let length = 0;
  for (let index = 0; index < count; index += 1) {
    const gfn = extents.next();
    const isNext = length > 0 && length < runMax && gfn === first + length * size;
    if (length > 0 && !isNext) {
      const done = operation(cpu.hypervisor, request, first, length);
      completed += done;
      if (done < length) return completed;
      length = 0;
      runs += 1;
      if (runs % SLICE_RUNS === 0) letOthersGo(cpu, request);
    }
    if (gfn < 0) return completed;
    if (length === 0) first = gfn;
    length += 1;
  }
  return length === 0 ? completed : completed + operation(cpu.hypervisor, request, first, length);
};

const populateExtents: RunOperation = (hypervisor, request, gfn, count) => {
  const { slot, order } = request;
  const size = 2 ** order;
  // An extent that cannot fit must not touch the pages that it would replace.
  const fitting = order === 0 ? count : Math.min(count, Math.floor(roomFor(hypervisor, slot) / size));
  populateRun(hypervisor, slot, gfn, fitting * size, outcome);
  const placed = outcome.count;
  const partial = placed % size;
  if (partial > 0) depopulateRun(hypervisor, slot, gfn + placed - partial, partial);
  if (outcome.blockedGfn >= 0) {
    crashDomain(hypervisor, slot, `populate_physmap over a page that is not its own RAM, gfn ${outcome.blockedGfn}`);
  }
  return (placed - partial) / size;
};

const decreaseExtents: RunOperation = (hypervisor, request, gfn, count) => {
  const size = 2 ** request.order;
  return Math.floor(depopulateRun(hypervisor, request.slot, gfn, count * size) / size);
};

/** Frees frames that were allocated without a gfn. */
const giveUp = (hypervisor: Hypervisor, slot: number, mfn: number, count: number): void => {
  for (let frame = mfn; frame < mfn + count; frame += 1) {
    takeUnhooked(hypervisor, slot, frame);
    releaseFrame(hypervisor, slot, frame);
  }
};
