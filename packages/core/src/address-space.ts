/**
 * Address spaces: the only code that changes a p2m, and with it the guest's page table. Each operation does both or
 * neither, in at most one system call, and is charged for the mappings that it costs before it is made.
 *
 * The page table is changed first and the p2m after it, under the slot's p2m lock; readers of the p2m hold that lock, or
 * are waited for when an entry was taken away (gate.ts).
 * While no address space is attached (`spaceBase` 0) only the p2m changes; attaching replays it.
 */
import { ENOSPC } from "@xenolith/abi";
import assert from "node:assert/strict";
import { awaitReaders, GATE_READ } from "./gate.ts";
import type { Hypervisor } from "./hypervisor.ts";
import {
  isGuestWritable,
  isSecret,
  P2M_FOREIGN,
  P2M_GRANT_RW,
  P2M_HOLE,
  P2M_RAM,
  P2M_RAM_RO,
  P2M_REVOKABLE_RW,
  P2M_SPECIAL,
  P2M_ZERO,
  p2mEntry,
  p2mType,
} from "./p2m.ts";
import { secretPage, secretRow } from "./secret-frames.ts";
import { chargeVmas, merges, vmaDelta } from "./vma.ts";

/** From the p2m entry of a frame to that of the next one. */
const ENTRY_STEP = 1 << 4;
/** Types whose frame has one gfn at a time, kept in the frame table. */
const HOME_TYPES = (1 << P2M_RAM) | (1 << P2M_RAM_RO) | (1 << P2M_SPECIAL);
/** Types that count as writable mappings of another domain's frame. */
const BORROWED_WRITABLE_TYPES = (1 << P2M_GRANT_RW) | (1 << P2M_FOREIGN) | (1 << P2M_REVOKABLE_RW);

/** Entries that are written one by one. */
const SHORT_RUN = 16;

/** What is to stand where. */
interface Placement {
  readonly gfn: number;
  /** First frame; of no meaning for holes and zeros. */
  readonly mfn: number;
  readonly count: number;
  readonly type: number;
  /** It may use the reserve of mappings. */
  readonly urgent: boolean;
  /** Its p2m entries, where they are known already: copying them is faster than making them. */
  readonly entries?: Uint32Array | undefined;
}

/**
 * Hooks frames `mfn` ... `mfn + count - 1` (of one bank) at `gfn` ..., in place of what stood there: the caller takes
 * care of the frames that this displaces. Under the slot's p2m lock. 0, -ENOSPC: too many mappings, or the page table's
 * errno; then nothing has changed.
 */
export const hookRun = (
  hypervisor: Hypervisor,
  slot: number,
  gfn: number,
  mfn: number,
  count: number,
  type: number,
): number => place(hypervisor, slot, { gfn, mfn, count, type, urgent: false }, false);

/** As `hookRun`, to put back what an operation that failed had taken away: may use the reserve of mappings. */
export const rehookRun = (
  hypervisor: Hypervisor,
  slot: number,
  gfn: number,
  mfn: number,
  count: number,
  type: number,
): number => place(hypervisor, slot, { gfn, mfn, count, type, urgent: true }, false);

/**
 * Makes `count` gfns from `gfn` holes; the caller takes care of the frames that stood there. `urgent` may use the
 * reserve of mappings: for what must not fail because a guest spent its budget. Under the slot's p2m lock. 0, -ENOSPC,
 * or the page table's errno; then nothing has changed.
 */
export const unhookRun = (hypervisor: Hypervisor, slot: number, gfn: number, count: number, urgent = false): number =>
  place(hypervisor, slot, { gfn, mfn: 0, count, type: P2M_HOLE, urgent }, false);

/**
 * As `hookRun`, or `unhookRun` (type P2M_HOLE), or lets it read as zeros (P2M_ZERO), for a range that is known to be one
 * run of holes, of zeros, or of one extent: takes no time for looking at each entry. Under the slot's p2m lock.
 */
export const switchRun = (hypervisor: Hypervisor, slot: number, placement: Placement): number =>
  place(hypervisor, slot, placement, true);

/**
 * Gives the domain in `slot` an address space: gfn 0 is at host address `base`, and all of it is inaccessible so far.
 * Hooks what the p2m holds already. 0, or the page table's errno; then nothing is attached.
 */
export const attachSpace = (hypervisor: Hypervisor, slot: number, base: number): number => {
  const { domains, locks } = hypervisor;
  assert(base > 0);
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  assert(domains.spaceBase[slot] === 0);
  const result = replay(hypervisor, slot, base);
  if (result === 0) domains.spaceBase[slot] = base;
  locks.release(lock);
  return result;
};

/**
 * Takes the address space away: from now on the guest reaches no frame, and changes of the p2m make no system call.
 * The p2m stays as it is. 0, or the page table's errno; then it is still attached.
 */
export const detachSpace = (hypervisor: Hypervisor, slot: number): number => {
  const { locks } = hypervisor;
  const lock = locks.id("p2m", slot);
  locks.acquire(lock);
  const result = detachHeld(hypervisor, slot);
  locks.release(lock);
  return result;
};

/** As `detachSpace`, under the slot's p2m lock. */
export const detachHeld = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, platform } = hypervisor;
  const base = domains.spaceBase[slot]!;
  const end = domains.gfnEnd[slot]!;
  const result = base === 0 || end === 0 ? 0 : platform.mmu.unmap(base, 0, end);
  if (result === 0) domains.spaceBase[slot] = 0;
  return result;
};

/** `isOneRun`: nothing that stands there is in the frame table, or a mapping of its own (see `switchRun`). */
const place = (hypervisor: Hypervisor, slot: number, placement: Placement, isOneRun: boolean): number => {
  const { domains, locks, p2m } = hypervisor;
  const { gfn, mfn, count, type, urgent } = placement;
  assert(locks.holds(locks.id("p2m", slot)));
  assert(p2m.contains(gfn, count));
  const first = type === P2M_HOLE ? P2M_HOLE : p2mEntry(mfn, type);
  const last = type === P2M_HOLE || type === P2M_ZERO ? first : p2mEntry(mfn + count - 1, type);
  const isOne = isOneRun || gfn >= domains.gfnEnd[slot]!;
  const delta = vmaDelta(hypervisor, slot, { gfn, count, first, last }, isOne);
  if (!chargeVmas(hypervisor, slot, delta, urgent)) return -ENOSPC;
  const result = changePages(hypervisor, slot, placement, first);
  if (result !== 0) {
    chargeVmas(hypervisor, slot, -delta, true);
    return result;
  }
  const isDisplacing = isOne ? p2m.get(slot, gfn) !== P2M_HOLE : forgetRun(hypervisor, slot, gfn, count);
  recordRun(hypervisor, slot, placement, first);
  if (isDisplacing) awaitReadersOf(hypervisor, slot);
  return 0;
};

/** No vCPU of the domain reads a frame any more whose entry was changed before. */
const awaitReadersOf = ({ domains, vcpus, platform, words }: Hypervisor, slot: number): void => {
  const first = vcpus.index(slot, 0);
  for (let index = first; index < first + domains.vcpuCount[slot]!; index += 1) {
    // Changes nothing, but as one of those that change the word: see there.
    const gate = words.and(vcpus.gateStart + index * 4, -1);
    if ((gate & GATE_READ) !== 0) awaitReaders(vcpus.gate, index, 1, platform);
  }
};

/** Changes the page table, if there is one. */
const changePages = (hypervisor: Hypervisor, slot: number, placement: Placement, first: number): number => {
  const { gfn, count, type } = placement;
  const base = hypervisor.domains.spaceBase[slot]!;
  if (base === 0) return 0;
  if (type === P2M_HOLE) return hypervisor.platform.mmu.unmap(base, gfn, count);
  const there = hypervisor.p2m.get(slot, gfn);
  // To map secret memory again would ask for locked memory first, and the limit may be reached.
  return isSecret(first) && there >>> 4 === first >>> 4 && isSecret(there)
    ? hypervisor.platform.mmu.protect(base, gfn, count, isGuestWritable(first))
    : showRun(hypervisor, base, gfn, first, count);
};

/** Lets the guest see a run that is no hole and whose first p2m entry is `entry`. */
const showRun = (hypervisor: Hypervisor, base: number, gfn: number, entry: number, count: number): number => {
  const { extents, geometry, platform } = hypervisor;
  const mfn = entry >>> 4;
  if (p2mType(entry) === P2M_ZERO) return platform.mmu.zero(base, gfn, count);
  if (!isSecret(entry)) return platform.mmu.map(base, gfn, mfn, count, isGuestWritable(entry));
  const handle = extents.handle[secretRow(geometry, mfn)]!;
  return platform.mmu.mapSecret(base, gfn, handle, secretPage(mfn), count, isGuestWritable(entry));
};

/** Maps every run of the p2m. On failure makes all of it inaccessible again. */
const replay = (hypervisor: Hypervisor, slot: number, base: number): number => {
  const { domains, p2m, platform } = hypervisor;
  const end = domains.gfnEnd[slot]!;
  let gfn = 0;
  while (gfn < end) {
    const entry = p2m.get(slot, gfn);
    const count = runLength(hypervisor, slot, gfn, end);
    if (entry !== P2M_HOLE) {
      const result = showRun(hypervisor, base, gfn, entry, count);
      if (result !== 0) {
        if (gfn > 0) platform.mmu.unmap(base, 0, gfn);
        return result;
      }
    }
    gfn += count;
  }
  return 0;
};

/** Number of gfns from `gfn`, below `end`, that are one mapping. */
const runLength = (hypervisor: Hypervisor, slot: number, gfn: number, end: number): number => {
  const { p2m } = hypervisor;
  let last = gfn;
  while (last + 1 < end && merges(hypervisor, p2m.get(slot, last), p2m.get(slot, last + 1))) last += 1;
  return last + 1 - gfn;
};

/**
 * Takes the entries of a run out of the frame table; returns whether there was one. The entries themselves are
 * overwritten by the caller.
 */
const forgetRun = (hypervisor: Hypervisor, slot: number, gfn: number, count: number): boolean => {
  const { frames, p2m, words } = hypervisor;
  const { entries } = p2m;
  const first = p2m.at(slot, gfn);
  const writable = frames.writableStart;
  let found = false;
  for (let index = 0; index < count; index += 1) {
    const entry = entries[first + index]!;
    if (entry === P2M_HOLE) continue;
    found = true;
    const mfn = entry >>> 4;
    if (((HOME_TYPES >>> (entry & 15)) & 1) !== 0) {
      if (frames.gfn[mfn] === gfn + index + 1) frames.gfn[mfn] = 0;
    } else if (((BORROWED_WRITABLE_TYPES >>> (entry & 15)) & 1) !== 0) words.sub(writable + mfn * 4, 1);
  }
  return found;
};

const recordRun = (hypervisor: Hypervisor, slot: number, placement: Placement, first: number): void => {
  const { domains, frames, p2m, words } = hypervisor;
  const { gfn, mfn, count, type } = placement;
  const { entries } = p2m;
  const at = p2m.at(slot, gfn);
  // A call of the engine costs more than a short loop.
  if ((type === P2M_HOLE || type === P2M_ZERO) && count > SHORT_RUN) entries.fill(first, at, at + count);
  else if (type === P2M_HOLE || type === P2M_ZERO) {
    for (let index = at; index < at + count; index += 1) entries[index] = first;
  } else if (placement.entries !== undefined) entries.set(placement.entries, at);
  else countUp(entries, at, count, first);
  if (((HOME_TYPES >>> type) & 1) !== 0) {
    for (let index = 0; index < count; index += 1) frames.gfn[mfn + index] = gfn + index + 1;
  }
  if (((BORROWED_WRITABLE_TYPES >>> type) & 1) !== 0) {
    assert(words.addRun(frames.writableStart + mfn * 4, count, 1, 1) === count);
  }
  if (type !== P2M_HOLE && gfn + count > domains.gfnEnd[slot]!) domains.gfnEnd[slot] = gfn + count;
};

/** Writes the p2m entries of consecutive frames, `first` and those that follow it. */
export const countUp = (entries: Uint32Array, at: number, count: number, first: number): void => {
  let entry = first | 0;
  for (let index = at; index < at + count; index += 1) {
    entries[index] = entry;
    entry = (entry + ENTRY_STEP) | 0;
  }
};
