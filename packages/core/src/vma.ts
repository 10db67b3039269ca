/**
 * Counting mappings (VMAs). The kernel keeps one for each run of neighbouring pages that come from consecutive places
 * of one file with one protection, and one for each run of absent pages. Their number is limited for the whole process
 * (`vm.max_map_count`), and at the limit even taking a page away fails. So each domain has a budget, all domains
 * together have a limit, and a reserve above it is kept for what must not fail: taking pages away from a guest that
 * did not ask for it.
 *
 * `domains.vmaCount` is the number of places in the address space where two neighbours do not merge: one less than the
 * mappings that the kernel keeps for it. It changes before the page table does, under the slot's p2m lock.
 */
import { TOTAL_VMAS } from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isNextSecret } from "./secret-frames.ts";
import {
  isGuestWritable,
  isSecret,
  P2M_EXTENT_RO,
  P2M_EXTENT_RW,
  P2M_HOLE,
  P2M_LOCAL_RO,
  P2M_LOCAL_RW,
  P2M_REVOKABLE_RO,
  P2M_REVOKABLE_RW,
  P2M_SECRET_RO,
  P2M_SECRET_RW,
  P2M_ZERO,
} from "./p2m.ts";

/** Mappings that all domains use, as counted in `domains.vmaCount`. */
export const vmaTotal = (hypervisor: Hypervisor): number => Atomics.load(hypervisor.frames.totals, TOTAL_VMAS);

/** Types of pages that may be switched to another page at any time, one by one. */
const LONE_TYPES = (1 << P2M_REVOKABLE_RW) | (1 << P2M_REVOKABLE_RO) | (1 << P2M_LOCAL_RW) | (1 << P2M_LOCAL_RO);
/** Types of pages that may be switched together with the others of their run only. */
const SECRET_TYPES = (1 << P2M_SECRET_RW) | (1 << P2M_SECRET_RO);
const RUN_TYPES = (1 << P2M_EXTENT_RW) | (1 << P2M_EXTENT_RO) | (1 << P2M_ZERO) | SECRET_TYPES;

/**
 * Whether two neighbouring gfns with these p2m entries are charged as one mapping. A page that may be revoked is charged
 * as a mapping of its own, whatever its neighbours are: so to revoke it never needs a mapping more than is charged for.
 */
export const merges = (hypervisor: Hypervisor, entry: number, next: number): boolean => {
  if (entry === P2M_HOLE || next === P2M_HOLE) return entry === next;
  const types = (1 << (entry & 15)) | (1 << (next & 15));
  if ((types & LONE_TYPES) !== 0) return false;
  if ((types & RUN_TYPES) !== 0 && (entry & 15) !== (next & 15)) return false;
  // With the colour, that is: one mapping.
  if ((types & SECRET_TYPES) !== 0) return next >>> 4 === (entry >>> 4) + 1;
  return kernelMerges(hypervisor, entry, next);
};

/** Whether the kernel keeps one mapping for two neighbouring gfns with these p2m entries. */
export const kernelMerges = (hypervisor: Hypervisor, entry: number, next: number): boolean => {
  if (entry === P2M_HOLE || next === P2M_HOLE) return entry === next;
  if ((entry & 15) === P2M_ZERO || (next & 15) === P2M_ZERO) return (entry & 15) === (next & 15);
  const isSame = isGuestWritable(entry) === isGuestWritable(next);
  if (isSecret(entry) || isSecret(next)) return isSame && isNextSecret(entry, next);
  const mfn = next >>> 4;
  if (mfn !== (entry >>> 4) + 1 || (mfn & (hypervisor.geometry.framesPerBank - 1)) === 0) return false;
  return isSame;
};

/** Places in the gfns `first` - 1 ... `last` where two neighbours do not merge. Ends of the address space are none. */
export const countBoundaries = (hypervisor: Hypervisor, slot: number, first: number, last: number): number => {
  const { entries, gfnCount } = hypervisor.p2m;
  const inBankBits = (hypervisor.geometry.framesPerBank - 1) << 4;
  const base = slot * gfnCount;
  const end = base + Math.min(last, gfnCount - 1);
  let count = 0;
  let before = entries[base + Math.max(first, 1) - 1]!;
  for (let at = base + Math.max(first, 1); at <= end; at += 1) {
    const entry = entries[at]!;
    // The next frame of the bank, of the same type: no need to ask.
    const isNext = entry - before === 16 && (entry & inBankBits) !== 0 && ((LONE_TYPES >>> (entry & 15)) & 1) === 0;
    if (!isNext && (entry | before) !== 0 && !merges(hypervisor, before, entry)) count += 1;
    before = entry;
  }
  return count;
};

/**
 * How many mappings more there are when `count` gfns from `gfn` become one run, `first` ... `last` (or all holes: 0).
 * `isOneRun`: they are one run now, which saves looking at each of them.
 */
export const vmaDelta = (
  hypervisor: Hypervisor,
  slot: number,
  range: { readonly gfn: number; readonly count: number; readonly first: number; readonly last: number },
  isOneRun = false,
): number => {
  const { p2m } = hypervisor;
  const { gfn, count, first, last } = range;
  const end = gfn + count;
  const left = gfn > 0 && !merges(hypervisor, p2m.get(slot, gfn - 1), first);
  const right = end < p2m.gfnCount && !merges(hypervisor, last, p2m.get(slot, end));
  const before = isOneRun
    ? countBoundaries(hypervisor, slot, gfn, gfn) +
      (end < p2m.gfnCount ? countBoundaries(hypervisor, slot, end, end) : 0)
    : countBoundaries(hypervisor, slot, gfn, end);
  return Number(left) + Number(right) - before;
};

/**
 * Charges `delta` mappings to the domain in `slot`. Refuses what exceeds its budget or the limit of all; when `urgent`,
 * only what exceeds limit and reserve, and nothing for a domain without an address space: behind its count is no mapping
 * of the kernel's. A negative `delta` always succeeds.
 */
export const chargeVmas = (hypervisor: Hypervisor, slot: number, delta: number, urgent: boolean): boolean => {
  const { domains, frames, geometry, words } = hypervisor;
  const reserve = domains.spaceBase[slot] === 0 ? Infinity : geometry.vmaReserve;
  const limit = urgent ? geometry.vmaLimit + reserve : geometry.vmaLimit;
  if (delta > 0 && !urgent && domains.vmaCount[slot]! + delta > domains.vmaBudget[slot]!) return false;
  const before = words.sub(frames.totalsStart + TOTAL_VMAS * 4, -delta);
  if (delta > 0 && before + delta > limit) {
    Atomics.sub(frames.totals, TOTAL_VMAS, delta);
    return false;
  }
  domains.vmaCount[slot]! += delta;
  return true;
};
