/**
 * Compares what the hypervisor believes about address spaces with what the kernel says (/proc/self/maps).
 */
import {
  type Hypervisor,
  isGuestWritable,
  kernelMerges,
  dmaSlot,
  DOM0_SLOT,
  P2M_HOLE,
  P2M_ZERO,
  p2mType,
} from "@xenolith/core";
import { type Mapping, mappingsIn } from "@xenolith/sys";
import { SPACE_BYTES } from "./machine.ts";

/** Findings about the control domain and the domains in `slots`, one sentence each; empty when the kernel agrees. */
export const auditSpaces = (hypervisor: Hypervisor, slots: Iterable<number>): string[] => {
  const { domains } = hypervisor;
  const findings: string[] = [];
  const soft = new Set([DOM0_SLOT, dmaSlot(domains)]);
  for (const slot of [...soft, ...slots]) {
    const base = domains.spaceBase[slot]!;
    if (base === 0) continue;
    const isSoft = soft.has(slot);
    const found = countMappings(mappingsIn(base, base + SPACE_BYTES), isSoft);
    const known = countRuns(hypervisor, slot, isSoft ? softMerges : kernelMerges);
    const name = slot === dmaSlot(domains) ? "the DMA view" : `domain ${domains.domid[slot]}`;
    if (found !== known) findings.push(`${name}: ${known} mappings are known, the kernel has ${found}`);
    const charged = domains.vmaCount[slot]! + 1;
    if (charged < known) findings.push(`${name}: ${charged} mappings are charged for, it has ${known}`);
  }
  return findings;
};

/** Whether the pages of two p2m entries are one mapping. */
type Merges = (hypervisor: Hypervisor, entry: number, next: number) => boolean;

/** Runs of one mapping each in the address space of `slot`. */
const countRuns = (hypervisor: Hypervisor, slot: number, merges: Merges): number => {
  const { domains, p2m } = hypervisor;
  const { entries, gfnCount } = p2m;
  const first = p2m.at(slot, 0);
  const end = first + Math.min(domains.gfnEnd[slot]! + 1, gfnCount);
  let count = 1;
  for (let at = first + 1; at < end; at += 1) {
    const entry = entries[at]!;
    const before = entries[at - 1]!;
    if ((entry | before) !== 0 && !merges(hypervisor, before, entry)) count += 1;
  }
  return count;
};

/** As kernelMerges where nothing faults: holes and zeros are the same, and what is read-only is a private copy. */
const softMerges: Merges = (hypervisor, entry, next) => {
  const isEmpty = isNothing(entry);
  if (isEmpty || isNothing(next)) return isEmpty === isNothing(next);
  return isGuestWritable(entry) === isGuestWritable(next) && kernelMerges(hypervisor, entry, next);
};

const isNothing = (entry: number): boolean => entry === P2M_HOLE || p2mType(entry) === P2M_ZERO;

/**
 * Mappings, counting neighbours as one that differ in nothing. The kernel may keep such neighbours apart when something
 * was written to one of them as long as it was private memory, which only happens where nothing faults.
 */
const countMappings = (mappings: readonly Mapping[], isSoft: boolean): number => {
  let count = 0;
  for (const [index, mapping] of mappings.entries()) {
    const before = mappings[index - 1];
    if (before === undefined || !isSoft || !continues(before, mapping)) count += 1;
  }
  return count;
};

const continues = (before: Mapping, next: Mapping): boolean =>
  before.endAddress === next.startAddress &&
  before.protection === next.protection &&
  before.shared === next.shared &&
  before.inode === next.inode &&
  before.device === next.device &&
  (next.inode === 0 || before.offsetBytes + before.endAddress - before.startAddress === next.offsetBytes);
