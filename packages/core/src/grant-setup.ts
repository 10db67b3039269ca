/**
 * The grant table operations that are not about a grant: how large a table is, its version, where its frames stand,
 * exchange of two references. Tables have version 1, and no page is ever transferred: both are answered so.
 * Source: xen/include/public/grant_table.h.
 */
import * as abi from "@xenolith/abi";
import { passGate } from "./block.ts";
import type { Cpu } from "./cpu.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { lockGranter, unlockGranter } from "./grant-acquire.ts";
import { growGrantTable } from "./grant-grow.ts";
import { resolveDomain } from "./policy.ts";

const { EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, ESRCH } = abi;
const { GNTST_okay, GNTST_general_error, GNTST_bad_domain, GNTST_bad_gntref, GNTST_permission_denied } = abi;

/** The only version there is. */
const VERSION = 1;
/** The one that others have besides. */
const VERSION_OTHER = 2;
/** Entries done between two looks at whether the caller should pause. */
const SLICE_ENTRIES = 64;

/** GNTTABOP_setup_table: lets the table grow and says at which gfns its frames stand; all ones: at none. */
export const setupTable = (cpu: Cpu, array: number, count: number): number => {
  const { gnttab_setup_table: layout } = abi;
  const { memory } = cpu;
  if (count !== 1) return -EINVAL;
  if (!memory.fetch(array, layout.sizeBytes)) return -EFAULT;
  const frameCount = layout.nr_frames.get(memory.scratch, 0);
  const list = layout.frame_list.get(memory.scratch, 0);
  const slot = resolveDomain(cpu, layout.dom.get(memory.scratch, 0), "TARGET");
  const status = slot < 0 ? statusOf(slot) : setUp(cpu, slot, frameCount, list);
  return storeStatus(cpu, array + layout.status.offset, status);
};

/** GNTTABOP_query_size: how large the table is, and how large it may become. */
export const querySize = (cpu: Cpu, array: number, count: number): number => {
  const { gnttab_query_size: layout } = abi;
  const { memory, hypervisor } = cpu;
  if (count !== 1) return -EINVAL;
  if (!memory.fetch(array, layout.sizeBytes)) return -EFAULT;
  const slot = resolveDomain(cpu, layout.dom.get(memory.scratch, 0), "TARGET");
  if (slot < 0) return storeStatus(cpu, array + layout.status.offset, statusOf(slot));
  const { grants } = hypervisor;
  layout.nr_frames.set(memory.scratch, 0, Atomics.load(grants.frameCount, slot));
  layout.max_nr_frames.set(memory.scratch, 0, grants.frameMax[slot]!);
  layout.status.set(memory.scratch, 0, GNTST_okay);
  return memory.store(array, layout.sizeBytes) ? 0 : -EFAULT;
};

/** GNTTABOP_set_version: 0 for the version that the table has. It is written back whatever was asked for. */
export const setVersion = (cpu: Cpu, array: number): number => {
  const wanted = cpu.memory.readU32(array);
  if (wanted < 0) return -EFAULT;
  if (!cpu.memory.writeU32(array, VERSION)) return -EFAULT;
  if (wanted === VERSION_OTHER) return -ENOSYS;
  return wanted === VERSION ? 0 : -EINVAL;
};

/** GNTTABOP_get_version. */
export const getVersion = (cpu: Cpu, array: number): number => {
  const { gnttab_get_version: layout } = abi;
  const { memory } = cpu;
  if (!memory.fetch(array, layout.sizeBytes)) return -EFAULT;
  const slot = resolveDomain(cpu, layout.dom.get(memory.scratch, 0), "TARGET");
  if (slot < 0) return slot;
  return memory.writeU32(array + layout.version.offset, VERSION) ? 0 : -EFAULT;
};

/** GNTTABOP_get_status_frames: a table of version 1 has none, so no number of them but 0 can be had. */
export const getStatusFrames = (cpu: Cpu, array: number, count: number): number => {
  const { gnttab_get_status_frames: layout } = abi;
  const { memory } = cpu;
  if (count !== 1) return -EINVAL;
  if (!memory.fetch(array, layout.sizeBytes)) return -EFAULT;
  const frameCount = layout.nr_frames.get(memory.scratch, 0);
  const slot = resolveDomain(cpu, layout.dom.get(memory.scratch, 0), "TARGET");
  const status = slot < 0 ? statusOf(slot) : frameCount > 0 ? GNTST_general_error : GNTST_okay;
  return storeStatus(cpu, array + layout.status.offset, status);
};

/** GNTTABOP_swap_grant_ref: each entry exchanges two references of the caller's table that nobody uses. */
export const swapGrantRefs = (cpu: Cpu, array: number, count: number): number => {
  const { gnttab_swap_grant_ref: layout } = abi;
  const { memory } = cpu;
  for (let index = 0; index < count; index += 1) {
    if (index > 0 && index % SLICE_ENTRIES === 0) passGate(cpu);
    const at = array + index * layout.sizeBytes;
    if (!memory.fetch(at, layout.sizeBytes)) return -EFAULT;
    const first = layout.ref_a.get(memory.scratch, 0);
    const second = layout.ref_b.get(memory.scratch, 0);
    const status = swap(cpu.hypervisor, cpu.slot, first, second);
    if (storeStatus(cpu, at + layout.status.offset, status) !== 0) return -EFAULT;
  }
  return 0;
};

/** GNTTABOP_transfer: no page changes hands by a grant. */
export const transfer = (): number => -EOPNOTSUPP;

const setUp = (cpu: Cpu, slot: number, frameCount: number, list: number): number => {
  const { frames, grants, locks } = cpu.hypervisor;
  const lock = locks.id("grantTable", slot);
  locks.acquire(lock);
  const grown = growGrantTable(cpu.hypervisor, slot, frameCount);
  locks.release(lock);
  if (grown !== 0) return GNTST_general_error;
  for (let index = 0; index < frameCount; index += 1) {
    const link = grants.sharedFrame[slot * grants.framesMax + index]!;
    const gfn = link === 0 ? -1 : frames.gfn[link - 1]! - 1;
    if (!cpu.memory.writeU32(list + index * 4, gfn >>> 0)) return abi.GNTST_bad_virt_addr;
  }
  return GNTST_okay;
};

/** The two references are compared with the table before they are indices. */
const swap = (hypervisor: Hypervisor, slot: number, first: number, second: number): number => {
  const { grants } = hypervisor;
  lockGranter(hypervisor, slot);
  const end = grants.refCount(slot);
  let status: number = GNTST_okay;
  if (first >= end || second >= end) status = GNTST_bad_gntref;
  else if (first !== second) status = swapUnused(hypervisor, slot, first, second);
  unlockGranter(hypervisor, slot);
  return status;
};

/** What is to be done when the owner lets go of a page moves with its reference. Under `lockGranter`: no copy goes on. */
const swapUnused = (hypervisor: Hypervisor, slot: number, first: number, second: number): number => {
  const { directMap, grants } = hypervisor;
  const rows = [grants.row(slot, first), grants.row(slot, second)] as const;
  if (grants.pin[rows[0]] !== 0 || grants.pin[rows[1]] !== 0) return abi.GNTST_eagain;
  const addresses = [grants.entryAddress(slot, first), grants.entryAddress(slot, second)] as const;
  for (const word of [4, 0]) {
    const kept = directMap.loadU32(addresses[0] + word);
    directMap.atomicStoreU32(addresses[0] + word, directMap.loadU32(addresses[1] + word));
    directMap.atomicStoreU32(addresses[1] + word, kept);
  }
  const notify = grants.notify[rows[0]]!;
  grants.notify[rows[0]] = grants.notify[rows[1]]!;
  grants.notify[rows[1]] = notify;
  return GNTST_okay;
};

/** The status that stands for an errno of `resolveDomain`. */
const statusOf = (errno: number): number => (errno === -ESRCH ? GNTST_bad_domain : GNTST_permission_denied);

const storeStatus = (cpu: Cpu, address: number, status: number): number =>
  cpu.memory.writeU16(address, status & 0xffff) ? 0 : -EFAULT;
