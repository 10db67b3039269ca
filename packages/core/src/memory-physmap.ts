/**
 * Changes of single pages in a domain's physmap: which page stands at a gfn, without allocating. A page that has a gfn
 * moves: it leaves a hole behind. The RAM that stood at the new gfn is freed, a special page there is just unhooked.
 * Source: xen/include/public/memory.h, XENMEM_add_to_physmap and XENMEM_remove_from_physmap.
 */
import {
  EACCES,
  EINVAL,
  ENOENT,
  ENOSYS,
  EPERM,
  ESRCH,
  XENMAPSPACE_dev_mmio,
  XENMAPSPACE_gmfn,
  XENMAPSPACE_grant_table,
  XENMAPSPACE_shared_info,
} from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import { hookRun, rehookRun, unhookRun } from "./address-space.ts";
import { keepUnhooked, putFrame } from "./frame-reference.ts";
import { grantFrame } from "./grant-grow.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isRam, P2M_FOREIGN, P2M_HOLE, P2M_RAM, P2M_SPECIAL, p2mType } from "./p2m.ts";
import { RamRuns } from "./ram-runs.ts";

const replaced = new RamRuns();

/**
 * Hooks the page `index` of `space` at `gfn` of the domain in `slot`. 0 or -EINVAL: bad gfn or index, or something is
 * there that only its own operation may remove, -EACCES: not plain RAM, -EPERM: devices, -ENOSYS: unknown space,
 * -ESRCH: the domain is dying, -ENOSPC, -ENOMEM: the page table cannot take it, or there is no memory for the grant
 * table to grow. On failure no physmap has changed.
 */
export const addToPhysmap = (
  hypervisor: Hypervisor,
  slot: number,
  space: number,
  index: number,
  gfn: number,
): number => {
  const { locks, p2m } = hypervisor;
  if (space === XENMAPSPACE_dev_mmio) return -EPERM;
  const hook = spaces[space];
  if (hook === undefined) return -ENOSYS;
  if (!p2m.contains(gfn)) return -EINVAL;
  // Its end takes the p2m apart once every vCPU was outside the hypervisor since it began: nothing may be hooked later.
  if (!isAlive(hypervisor, slot)) return -ESRCH;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const result = hook(hypervisor, slot, index, gfn);
  noteSharedInfo(hypervisor, slot);
  locks.release(lock);
  if (result === 0) replaced.free(hypervisor, slot);
  return result;
};

/**
 * Makes `gfn` a hole. Its RAM is not freed: it stays owned, and counted, until the domain dies. A frame of another
 * domain's that the domain acquired (memory-resource.ts) is let go. 0, -ENOENT: it is a hole
 * or no gfn, -EINVAL: only its own operation may remove what is there, -ENOSPC, -ENOMEM as above.
 */
export const removeFromPhysmap = (hypervisor: Hypervisor, slot: number, gfn: number): number => {
  const { locks, p2m } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const entry = p2m.get(slot, gfn);
  const isForeign = p2mType(entry) === P2M_FOREIGN;
  const isRemovable = isRam(entry) || p2mType(entry) === P2M_SPECIAL || isForeign;
  let result = entry === P2M_HOLE ? -ENOENT : -EINVAL;
  if (isRemovable) result = unhookRun(hypervisor, slot, gfn, 1);
  if (result === 0 && isRam(entry)) keepUnhooked(hypervisor, slot, entry >>> 4);
  noteSharedInfo(hypervisor, slot);
  locks.release(lock);
  if (result === 0 && isForeign) putFrame(hypervisor, entry >>> 4);
  return result;
};

/** Under the p2m lock. */
const hookSharedInfo = (hypervisor: Hypervisor, slot: number, index: number, gfn: number): number => {
  const { domains, frames } = hypervisor;
  const mfn = domains.sharedInfo[slot]! - 1;
  if (index !== 0 || mfn < 0) return -EINVAL;
  return movePage(hypervisor, slot, { mfn, from: frames.gfn[mfn]! - 1, to: gfn, type: P2M_SPECIAL });
};

/**
 * Lets the table grow as far as that. A frame of a table has one gfn, as shared_info has; there are no status frames, so
 * an index with the bit that asks for one is beyond the end. Under the p2m lock, outside of the table's.
 */
const hookGrantFrame = (hypervisor: Hypervisor, slot: number, index: number, gfn: number): number => {
  const mfn = grantFrame(hypervisor, slot, index);
  if (mfn < 0) return mfn;
  return movePage(hypervisor, slot, { mfn, from: hypervisor.frames.gfn[mfn]! - 1, to: gfn, type: P2M_SPECIAL });
};

/** Under the p2m lock. */
const moveRam = (hypervisor: Hypervisor, slot: number, from: number, to: number): number => {
  const entry = hypervisor.p2m.get(slot, from);
  if (entry === P2M_HOLE) return -EINVAL;
  if (p2mType(entry) !== P2M_RAM) return -EACCES;
  return movePage(hypervisor, slot, { mfn: entry >>> 4, from, to, type: P2M_RAM });
};

/**
 * Hooks a page at `to` instead of at `from` (-1: nowhere), and collects the RAM that this displaces in `replaced`. Two
 * steps; when the second fails, the first is undone. Under the p2m lock.
 */
const movePage = (
  hypervisor: Hypervisor,
  slot: number,
  page: { readonly mfn: number; readonly from: number; readonly to: number; readonly type: number },
): number => {
  const { p2m } = hypervisor;
  const { mfn, from, to, type } = page;
  const there = p2m.get(slot, to);
  const isReplaceable = there === P2M_HOLE || isRam(there) || p2mType(there) === P2M_SPECIAL;
  if (!isReplaceable) return -EINVAL;
  replaced.collect(hypervisor, slot, to, from === to ? 0 : 1);
  if (from === to) return 0;
  const unhooked = from < 0 ? 0 : unhookRun(hypervisor, slot, from, 1, true);
  if (unhooked !== 0) return unhooked;
  const hooked = hookRun(hypervisor, slot, to, mfn, 1, type);
  if (hooked === 0) {
    replaced.drop(hypervisor);
    return 0;
  }
  const isLost = from >= 0 && rehookRun(hypervisor, slot, from, mfn, 1, type) !== 0;
  if (isLost && type === P2M_RAM) keepUnhooked(hypervisor, slot, mfn);
  return hooked;
};

/** What hooks a page of each space. Under the p2m lock. */
const spaces: Readonly<Record<number, typeof hookSharedInfo>> = {
  [XENMAPSPACE_shared_info]: hookSharedInfo,
  [XENMAPSPACE_grant_table]: hookGrantFrame,
  [XENMAPSPACE_gmfn]: moveRam,
};

/** Brings `sharedInfoGfn` in line with where the frame is hooked now. Under the p2m lock. */
const noteSharedInfo = (hypervisor: Hypervisor, slot: number): void => {
  const { domains, frames } = hypervisor;
  const mfn = domains.sharedInfo[slot]! - 1;
  domains.sharedInfoGfn[slot] = mfn < 0 ? 0 : frames.gfn[mfn]!;
};
