/**
 * The memory operations that report or bound: reservations, highest frames, claims, populate-on-demand targets.
 */
import { EFAULT, EINVAL, EPERM, xen_memory_reservation, xen_pod_target } from "@xenolith/abi";
import { setClaim } from "./accounting.ts";
import type { Cpu } from "./cpu.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { countDenied, isDom0sOwn, resolveDomain } from "./policy.ts";

/** Results are positive 32-bit numbers. */
const RESULT_MAX = 0x7fff_ffff;

/** XENMEM_maximum_ram_page: the highest machine frame. */
export const maximumRamPage = (cpu: Cpu): number => cpu.hypervisor.geometry.machineFrames - 1;

/** XENMEM_current_reservation: frames that the domain owns. */
export const currentReservation = (cpu: Cpu, argument: number): number => {
  const slot = targetOf(cpu, argument);
  return slot < 0 ? slot : reservationOf(cpu.hypervisor, slot);
};

/** Frames that the domain in `slot` owns, as a result. */
export const reservationOf = (hypervisor: Hypervisor, slot: number): number =>
  Math.min(RESULT_MAX, hypervisor.domains.totPages[slot]!);

/** XENMEM_maximum_reservation: frames that it may own. */
export const maximumReservation = (cpu: Cpu, argument: number): number => {
  const slot = targetOf(cpu, argument);
  return slot < 0 ? slot : Math.min(RESULT_MAX, cpu.hypervisor.domains.maxPages[slot]!);
};

/** XENMEM_maximum_gpfn: the highest gfn that ever held a page; 0 when none did. */
export const maximumGpfn = (cpu: Cpu, argument: number): number => {
  const slot = targetOf(cpu, argument);
  return slot < 0 ? slot : Math.max(0, cpu.hypervisor.domains.gfnEnd[slot]! - 1);
};

/** XENMEM_claim_pages: sets memory aside for a domain, which is named by its number. */
export const claimPages = (cpu: Cpu, argument: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(argument, xen_memory_reservation.sizeBytes)) return -EFAULT;
  const view = memory.scratch;
  const isPlain =
    xen_memory_reservation.extent_start.get(view, 0) === 0 &&
    xen_memory_reservation.extent_order.get(view, 0) === 0 &&
    xen_memory_reservation.mem_flags.get(view, 0) === 0;
  const pages = xen_memory_reservation.nr_extents.get(view, 0);
  const slot = hypervisor.domains.slotOf(xen_memory_reservation.domid.get(view, 0));
  if (resolveDomain(cpu, cpu.domid, "PRIV") < 0) return -EPERM;
  if (!isPlain) return -EINVAL;
  if (isDom0sOwn(cpu, slot)) return countDenied(cpu);
  return slot < 0 ? -EINVAL : setClaim(hypervisor, slot, pages);
};

/** XENMEM_set_pod_target: nothing is populated on demand here, so the target only has to be possible. */
export const setPodTarget = (cpu: Cpu, argument: number): number => podTarget(cpu, argument, true);

/** XENMEM_get_pod_target. */
export const getPodTarget = (cpu: Cpu, argument: number): number => podTarget(cpu, argument, false);

const podTarget = (cpu: Cpu, argument: number, isSet: boolean): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(argument, xen_pod_target.sizeBytes)) return -EFAULT;
  const view = memory.scratch;
  const slot = resolveDomain(cpu, xen_pod_target.domid.get(view, 0), "PRIV");
  if (slot < 0) return slot;
  const target = xen_pod_target.target_pages.get(view, 0);
  if (isSet && !(target <= hypervisor.domains.maxPages[slot]!)) return -EINVAL;
  xen_pod_target.tot_pages.set(view, 0, hypervisor.domains.totPages[slot]!);
  xen_pod_target.pod_cache_pages.set(view, 0, 0);
  xen_pod_target.pod_entries.set(view, 0, 0);
  return memory.store(argument, xen_pod_target.sizeBytes) ? 0 : -EFAULT;
};

/** Slot of the domain whose id stands at `argument`, if the caller may ask about it. */
const targetOf = (cpu: Cpu, argument: number): number => {
  const domid = cpu.memory.readU16(argument);
  return domid < 0 ? -EFAULT : resolveDomain(cpu, domid, "TARGET");
};
