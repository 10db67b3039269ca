/**
 * Extents of secret memory: what a guest has made with secret_op, and what it lets others map. All of the life of an
 * extent is here as it is for frames (extent.ts, extent-map.ts, extent-revoke.ts): one maptrack row for each mapping, a
 * list of them, taking back by one switch. Different is: its owner maps it too; a mapping may be of a part; it can be
 * sealed; and there are no frames, so that nothing that the hypervisor does for anybody reaches its bytes.
 *
 * The memory itself is the control domain's: it names it by a handle, and keeps it until the extent is closed and its
 * last mapping is gone.
 */
import { EINVAL, ENOENT, ENOSPC, EPERM, ESRCH, GNTMAP_readonly } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import { switchRun } from "./address-space.ts";
import { extentName, extentRow } from "./extent.ts";
import { hookMapping } from "./extent-hook.ts";
import { EXTENT_FREE, EXTENT_OF_SECRETS, EXTENT_OPEN } from "./extent-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { P2M_HOLE, P2M_SECRET_RO, P2M_SECRET_RW } from "./p2m.ts";
import { colourBetween, SECRET_PAGES_MAX, secretFrame } from "./secret-frames.ts";

/** Where and how to map a part of a secret. */
export interface SecretTarget {
  readonly slot: number;
  readonly gfn: number;
  /** First page of the extent, and how many. */
  readonly page: number;
  readonly count: number;
  readonly isWritable: boolean;
}

/**
 * Makes an extent of `count` pages of secret memory, which the page table calls `handle`, for the domain in `slot`;
 * returns its name. -EINVAL: no such number of pages, -ESRCH: the domain is dying, -ENOSPC: there are as many extents as
 * there can be; half of them are for frames only.
 */
export const createSecretExtent = (hypervisor: Hypervisor, slot: number, count: number, handle: number): number => {
  const { extents, geometry } = hypervisor;
  if (!Number.isInteger(count) || count < 1 || count > SECRET_PAGES_MAX) return -EINVAL;
  if (!isAlive(hypervisor, slot)) return -ESRCH;
  const row = extents.state.indexOf(EXTENT_FREE);
  if (row < 0 || countSecrets(hypervisor) * 2 >= extents.rowCount) return -ENOSPC;
  extents.kind[row] = EXTENT_OF_SECRETS;
  extents.handle[row] = handle;
  extents.sealed[row] = 0;
  extents.granter[row] = slot;
  extents.gfn[row] = 0;
  extents.mfn[row] = secretFrame(geometry, row, 0, 0);
  extents.count[row] = count;
  extents.mappings[row] = 0;
  extents.first[row] = 0;
  extents.serial[row]! += 1;
  Atomics.store(extents.state, row, EXTENT_OPEN);
  return extentName(hypervisor, row);
};

/**
 * Maps a part of a secret where nothing stands; returns the mapping's name. For another domain than its owner, with write
 * access, the mapper is charged for as many pages: they take its place when it is revoked. -ENOENT: the extent is closed,
 * -EINVAL: pages or gfns that it has not, -EPERM: it is sealed and `isWritable`, or no room for the replacement, and
 * otherwise as `mapExtent`.
 */
export const mapSecret = (hypervisor: Hypervisor, extent: number, target: SecretTarget): number => {
  const { domains, extents, geometry, p2m } = hypervisor;
  const { slot, gfn, page, count, isWritable } = target;
  const row = secretExtentRow(hypervisor, extent);
  if (row < 0) return -ENOENT;
  const isPart = page >= 0 && count > 0 && page + count <= extents.count[row]!;
  if (!isPart || !p2m.contains(gfn, count)) return -EINVAL;
  if (!isAlive(hypervisor, slot) || !isAlive(hypervisor, extents.granter[row]!)) return -ESRCH;
  if (isWritable && extents.sealed[row] !== 0) return -EPERM;
  // Entries of secrets change on this thread only: no lock is needed to see them.
  const behind = gfn + count < domains.gfnEnd[slot]! ? p2m.get(slot, gfn + count) : P2M_HOLE;
  const colour = colourBetween(p2m.get(slot, gfn - 1), behind);
  return hookMapping(hypervisor, row, {
    slot,
    gfn,
    mfn: secretFrame(geometry, row, colour, page),
    count,
    type: isWritable ? P2M_SECRET_RW : P2M_SECRET_RO,
    isWritable,
    hasReplacement: isWritable && extents.granter[row] !== slot,
  });
};

/**
 * Nobody writes the secret any more: every mapping of it is made read-only, and no writable one is made. Nobody faults
 * meanwhile who only reads. 0, -ENOENT: the extent is closed, or the page table's errno: then it is not sealed, and
 * every mapping is as it was.
 */
export const sealExtent = (hypervisor: Hypervisor, extent: number): number => {
  const { extents, maptrack } = hypervisor;
  const row = secretExtentRow(hypervisor, extent);
  if (row < 0) return -ENOENT;
  for (let link = extents.first[row]!; link !== 0; link = maptrack.next[link - 1]!) {
    const result = protect(hypervisor, link - 1, P2M_SECRET_RO);
    if (result === 0) continue;
    for (let done = extents.first[row]!; done !== link; done = maptrack.next[done - 1]!) {
      // One that cannot be made writable again is read-only from now on: its owner has asked for that.
      if (protect(hypervisor, done - 1, P2M_SECRET_RW) !== 0) maptrack.flags[done - 1]! |= GNTMAP_readonly;
    }
    return result;
  }
  extents.sealed[row] = 1;
  return 0;
};

/** Makes a writable mapping read-only, or writable again. 0 or the page table's errno. */
const protect = (hypervisor: Hypervisor, row: number, type: number): number => {
  const { locks, maptrack } = hypervisor;
  if ((maptrack.flags[row]! & GNTMAP_readonly) !== 0) return 0;
  const slot = maptrack.ownerOf(row);
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const placement = { gfn: maptrack.gfn[row]! - 1, mfn: maptrack.mfn[row]!, count: maptrack.count[row]!, type };
  const result = switchRun(hypervisor, slot, { ...placement, urgent: true });
  locks.release(lock);
  return result;
};

/** Row of an extent of secret memory that can be mapped, or -1. */
const secretExtentRow = (hypervisor: Hypervisor, extent: number): number => {
  const { extents } = hypervisor;
  const row = extentRow(hypervisor, extent);
  const isThere = row >= 0 && extents.state[row] === EXTENT_OPEN && extents.kind[row] === EXTENT_OF_SECRETS;
  return isThere ? row : -1;
};

const countSecrets = ({ extents }: Hypervisor): number => {
  let count = 0;
  for (let row = 0; row < extents.rowCount; row += 1) {
    if (extents.state[row] !== EXTENT_FREE && extents.kind[row] === EXTENT_OF_SECRETS) count += 1;
  }
  return count;
};
