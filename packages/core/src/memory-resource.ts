/**
 * XENMEM_acquire_resource: a toolstack or device model gets at frames that the hypervisor keeps for another domain, here
 * those of its grant table. They are hooked at gfns of the caller that are holes, all or none of them, each with a
 * reference of its own, until the caller removes them from its physmap or ends.
 * Source: xen/include/public/memory.h.
 */
import {
  EFAULT,
  EINVAL,
  EOPNOTSUPP,
  EPERM,
  ESRCH,
  xen_mem_acquire_resource as layout,
  XENMEM_resource_grant_table,
  XENMEM_resource_grant_table_id_shared,
} from "@xenolith/abi";
import { unhookRun } from "./address-space.ts";
import type { Cpu } from "./cpu.ts";
import { ExtentList } from "./extent-list.ts";
import { putFrame } from "./frame-reference.ts";
import { grantFrame } from "./grant-grow.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { hookForeign } from "./memory-foreign.ts";
import { P2M_FOREIGN } from "./p2m.ts";
import { resolveDomain } from "./policy.ts";

/** Where the frames are to stand. No operation that uses it lets its thread do anything else meanwhile. */
const gfns = new ExtentList();

/**
 * XENMEM_acquire_resource. Without a list, and 0 frames asked for, it writes how many there can be. 0, -EINVAL: padding,
 * a frame that the table cannot have, a gfn that is none or is taken, -EPERM: oneself, or not one's own to look at,
 * -ESRCH, -EOPNOTSUPP: a resource that does not exist here, -EFAULT, or why the page table or the table cannot grow.
 */
export const acquireResource = (cpu: Cpu, argument: number): number => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(argument, layout.sizeBytes)) return -EFAULT;
  const { scratch } = memory;
  if (layout.pad.get(scratch, 0) !== 0) return -EINVAL;
  const slot = resolveDomain(cpu, layout.domid.get(scratch, 0), "DM_PRIV");
  if (slot === -ESRCH) return slot;
  if (slot < 0 || slot === cpu.slot) return -EPERM;
  if (layout.type.get(scratch, 0) !== XENMEM_resource_grant_table) return -EOPNOTSUPP;
  if (layout.id.get(scratch, 0) !== XENMEM_resource_grant_table_id_shared) return -EINVAL;
  const count = layout.nr_frames.get(scratch, 0);
  const list = layout.frame_list.get(scratch, 0);
  const most = hypervisor.grants.frameMax[slot]!;
  if (list === 0) {
    if (count !== 0) return -EINVAL;
    return memory.writeU32(argument + layout.nr_frames.offset, most) ? 0 : -EFAULT;
  }
  const first = layout.frame.get(scratch, 0);
  if (!(first + count <= most)) return -EINVAL;
  return acquireFrames(cpu, slot, { first, count, list });
};

const acquireFrames = (
  cpu: Cpu,
  slot: number,
  wanted: { readonly first: number; readonly count: number; readonly list: number },
): number => {
  const { hypervisor, memory } = cpu;
  const taken: number[] = [];
  let result = gfns.open(memory, wanted.list, wanted.count) ? 0 : -EFAULT;
  for (let index = 0; index < wanted.count && result === 0; index += 1) {
    const gfn = gfns.next();
    result = gfn < 0 ? gfn : hookForeign(hypervisor, cpu.slot, gfn, grantFrame(hypervisor, slot, wanted.first + index));
    if (result === 0) taken.push(gfn);
  }
  if (result !== 0) for (const gfn of taken) dropForeign(hypervisor, cpu.slot, gfn);
  return result;
};

const dropForeign = (hypervisor: Hypervisor, slot: number, gfn: number): void => {
  const { locks, p2m } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const entry = p2m.get(slot, gfn);
  const isGone = (entry & 15) !== P2M_FOREIGN || unhookRun(hypervisor, slot, gfn, 1, true) !== 0;
  locks.release(lock);
  if (!isGone) putFrame(hypervisor, entry >>> 4);
};
