/**
 * The hypercalls of memory-physmap.ts: XENMEM_add_to_physmap, XENMEM_add_to_physmap_batch, XENMEM_remove_from_physmap.
 */
import {
  EFAULT,
  EINVAL,
  ENOSYS,
  EOPNOTSUPP,
  xen_add_to_physmap,
  xen_add_to_physmap_batch,
  xen_remove_from_physmap,
  XENMAPSPACE_gmfn,
  XENMAPSPACE_gmfn_foreign,
  XENMAPSPACE_gmfn_range,
} from "@xenolith/abi";
import { passGate } from "./block.ts";
import type { Cpu } from "./cpu.ts";
import { ExtentList } from "./extent-list.ts";
import { mapForeign } from "./memory-foreign.ts";
import { addToPhysmap, removeFromPhysmap } from "./memory-physmap.ts";
import { perCaller } from "./per-caller.ts";
import { resolveDomain } from "./policy.ts";

/** Pages done between two looks at whether the caller should pause. */
const SLICE_PAGES = 64;

/** In place of the slot of another domain. No errno: those are smaller. */
const OWN_PAGES = -0x1_0000;

const listsOf = perCaller(() => ({ indexes: new ExtentList(), gfns: new ExtentList() }));

/** XENMEM_add_to_physmap: one page, or `size` pages of XENMAPSPACE_gmfn_range up to the first that fails. */
export const addToPhysmapOp = (cpu: Cpu, argument: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(argument, xen_add_to_physmap.sizeBytes)) return -EFAULT;
  const view = memory.scratch;
  const size = xen_add_to_physmap.size.get(view, 0);
  const space = xen_add_to_physmap.space.get(view, 0);
  const index = xen_add_to_physmap.idx.get(view, 0);
  const gfn = xen_add_to_physmap.gpfn.get(view, 0);
  const slot = resolveDomain(cpu, xen_add_to_physmap.domid.get(view, 0), "TARGET");
  if (slot < 0) return slot;
  if (space === XENMAPSPACE_gmfn_foreign) return -ENOSYS;
  if (space !== XENMAPSPACE_gmfn_range) return addToPhysmap(hypervisor, slot, space, index, gfn);
  for (let page = 0; page < size; page += 1) {
    const result = addToPhysmap(hypervisor, slot, XENMAPSPACE_gmfn, index + page, gfn + page);
    if (result !== 0) return result;
    if (page % SLICE_PAGES === SLICE_PAGES - 1) letOthersGo(cpu, slot);
  }
  return 0;
};

/** XENMEM_add_to_physmap_batch: pages named in two lists, the result of each in a third. */
export const addToPhysmapBatchOp = (cpu: Cpu, argument: number): number => {
  const { memory, hypervisor } = cpu;
  const { indexes, gfns } = listsOf(cpu);
  if (!memory.fetch(argument, xen_add_to_physmap_batch.sizeBytes)) return -EFAULT;
  const view = memory.scratch;
  const space = xen_add_to_physmap_batch.space.get(view, 0);
  const size = xen_add_to_physmap_batch.size.get(view, 0);
  const foreign = xen_add_to_physmap_batch.u.foreign_domid.get(view, 0);
  const errors = xen_add_to_physmap_batch.errs.get(view, 0);
  const areInside =
    indexes.open(memory, xen_add_to_physmap_batch.idxs.get(view, 0), size) &&
    gfns.open(memory, xen_add_to_physmap_batch.gpfns.get(view, 0), size);
  const slot = resolveDomain(cpu, xen_add_to_physmap_batch.domid.get(view, 0), "TARGET");
  if (slot < 0) return slot;
  if (space === XENMAPSPACE_gmfn_range) return -EOPNOTSUPP;
  let owner = foreignOf(cpu, slot, space, foreign);
  if (owner < 0 && owner !== OWN_PAGES) return owner;
  if (!areInside || !memory.accessible(errors, size * 4, true)) return -EFAULT;
  for (let item = 0; item < size; item += 1) {
    const index = indexes.next();
    const gfn = gfns.next();
    if (index < 0 || gfn < 0) return -EFAULT;
    const result =
      owner === OWN_PAGES
        ? addToPhysmap(hypervisor, slot, space, index, gfn)
        : mapForeign(hypervisor, slot, { foreign: owner, index, gfn });
    if (!memory.writeU32(errors + item * 4, result >>> 0)) return -EFAULT;
    if (item % SLICE_PAGES !== SLICE_PAGES - 1) continue;
    letOthersGo(cpu, slot);
    // Whoever the number names now, the right to its pages is looked at anew.
    owner = foreignOf(cpu, slot, space, foreign);
    if (owner < 0 && owner !== OWN_PAGES) return owner;
  }
  return 0;
};

/** XENMEM_remove_from_physmap. */
export const removeFromPhysmapOp = (cpu: Cpu, argument: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(argument, xen_remove_from_physmap.sizeBytes)) return -EFAULT;
  const gfn = xen_remove_from_physmap.gpfn.get(memory.scratch, 0);
  const slot = resolveDomain(cpu, xen_remove_from_physmap.domid.get(memory.scratch, 0), "TARGET");
  return slot < 0 ? slot : removeFromPhysmap(hypervisor, slot, gfn);
};

/** Between two pages the caller may pause or stop; not while it works on another domain, which could be gone then. */
const letOthersGo = (cpu: Cpu, slot: number): void => {
  if (slot === cpu.slot) passGate(cpu);
};

/** Slot of the domain whose pages the batch hooks, or OWN_PAGES: they are the domain's own. An errno: there are no rights to it. */
const foreignOf = (cpu: Cpu, slot: number, space: number, domid: number): number => {
  if (space !== XENMAPSPACE_gmfn_foreign) return OWN_PAGES;
  const foreign = resolveDomain(cpu, domid, "DM_PRIV");
  return foreign === slot ? -EINVAL : foreign;
};
