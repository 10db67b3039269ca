/**
 * The memory auditor: recomputes from the p2ms and the frame table what the counters, lists and inverse maps should be,
 * and says where they differ. Runs while nothing else does.
 */
import { outstandingClaims } from "./accounting.ts";
import { countExtents } from "./audit-extents.ts";
import { countForeign } from "./audit-grant-tables.ts";
import { countGrants } from "./audit-grants.ts";
import { freeFrameCount } from "./buddy.ts";
import {
  FRAME_EXCHANGED,
  FRAME_FREE_HEAD,
  FRAME_ORDER_COUNT,
  FRAME_RELEASED,
  FRAME_UNHOOKED,
  HYPERVISOR_OWNER,
  TOTAL_ORDERS,
} from "./frame-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { isRam, P2M_HOLE, P2M_SPECIAL, p2mType } from "./p2m.ts";
import { countBoundaries, vmaTotal } from "./vma.ts";

/** What the auditor has counted. */
interface Recount {
  readonly hypervisor: Hypervisor;
  readonly findings: string[];
  /** Per slot: frames owned, as the frame table says. */
  readonly owned: Uint32Array;
  /** Per frame: 1 while it is part of a free block. */
  readonly free: Uint8Array;
  /** Per frame: 1 while it is on a list of unhooked frames. */
  readonly unhooked: Uint8Array;
  /** Per frame: references whose holders are known. */
  readonly references: Uint32Array;
  /** Per frame: 1 while it is hooked nowhere because it waits to replace what may be revoked. */
  readonly kept: Uint8Array;
}

/**
 * Every disagreement about machine memory, as a sentence each; empty when all is well. `held` names the frames that host
 * code holds references to, once for each.
 */
export const auditMemory = (hypervisor: Hypervisor, held: Iterable<number> = []): string[] => {
  const { frames, domains } = hypervisor;
  const recount: Recount = {
    hypervisor,
    findings: [],
    owned: new Uint32Array(domains.slotCount),
    free: new Uint8Array(frames.count),
    unhooked: new Uint8Array(frames.count),
    references: new Uint32Array(frames.count),
    kept: new Uint8Array(frames.count),
  };
  auditFreeLists(recount);
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    auditP2m(recount, slot);
    auditUnhooked(recount, slot);
    countRegistered(recount, slot);
  }
  countExtents(hypervisor, recount.references, recount.kept);
  countGrants(hypervisor, recount.references);
  countForeign(hypervisor, recount.references);
  for (const mfn of held) recount.references[mfn]! += 1;
  for (let mfn = 0; mfn < frames.count; mfn += 1) auditFrame(recount, mfn);
  auditTotals(recount);
  return recount.findings;
};

const auditFreeLists = (recount: Recount): void => {
  const { frames } = recount.hypervisor;
  let total = 0;
  for (let order = 0; order < FRAME_ORDER_COUNT; order += 1) {
    const head = frames.freeHead[order]!;
    const isMarked = ((frames.totals[TOTAL_ORDERS]! >>> order) & 1) !== 0;
    if (isMarked !== (head !== 0)) recount.findings.push(`free list of order ${order}: its bit is ${isMarked}`);
    let prev = 0;
    for (let link = head; link !== 0; link = frames.next[link - 1]!) {
      if (!auditFreeBlock(recount, link - 1, order, prev)) break;
      total += 2 ** order;
      prev = link;
    }
  }
  if (total !== freeFrameCount(recount.hypervisor)) {
    recount.findings.push(`free frames: ${total} on the lists, ${freeFrameCount(recount.hypervisor)} counted`);
  }
};

/** False: the list cannot be followed any further. */
const auditFreeBlock = (recount: Recount, mfn: number, order: number, prev: number): boolean => {
  const { frames } = recount.hypervisor;
  const size = 2 ** order;
  const isWhole =
    mfn + size <= frames.count && (mfn % frames.framesPerBank) % size === 0 && size <= frames.framesPerBank;
  const isHead = frames.flags[mfn] === FRAME_FREE_HEAD && frames.order[mfn] === order && frames.prev[mfn] === prev;
  if (!isWhole || !isHead) {
    recount.findings.push(`free block ${mfn} of order ${order}: misplaced, or not the head of one`);
    return false;
  }
  for (let frame = mfn; frame < mfn + size; frame += 1) {
    if (recount.free[frame] === 1) recount.findings.push(`frame ${frame}: free twice`);
    recount.free[frame] = 1;
  }
  const buddy = mfn ^ size;
  const isSplit = size < frames.framesPerBank && buddy < frames.count && frames.flags[buddy] === FRAME_FREE_HEAD;
  if (isSplit && frames.order[buddy] === order) recount.findings.push(`free blocks ${mfn} and ${buddy}: not merged`);
  return true;
};

const auditP2m = (recount: Recount, slot: number): void => {
  const { domains, frames, p2m } = recount.hypervisor;
  const end = domains.gfnEnd[slot]!;
  for (let gfn = 0; gfn < end; gfn += 1) {
    const entry = p2m.get(slot, gfn);
    const mfn = entry >>> 4;
    const owner = p2mType(entry) === P2M_SPECIAL ? HYPERVISOR_OWNER : slot + 1;
    const isHome = isRam(entry) || p2mType(entry) === P2M_SPECIAL;
    if (!isHome) continue;
    const where = `slot ${slot} gfn ${gfn}`;
    if (frames.owner[mfn] !== owner) recount.findings.push(`${where}: frame ${mfn} is owned by ${frames.owner[mfn]}`);
    if (frames.gfn[mfn] !== gfn + 1) recount.findings.push(`${where}: frame ${mfn} says gfn ${frames.gfn[mfn]! - 1}`);
  }
  const vmas = end === 0 ? 0 : countBoundaries(recount.hypervisor, slot, 1, end);
  if (vmas !== domains.vmaCount[slot]) {
    recount.findings.push(`slot ${slot}: ${vmas} mapping boundaries, ${domains.vmaCount[slot]} counted`);
  }
};

const auditUnhooked = (recount: Recount, slot: number): void => {
  const { domains, frames } = recount.hypervisor;
  let prev = 0;
  for (let link = domains.unhooked[slot]!; link !== 0; link = frames.next[link - 1]!) {
    const mfn = link - 1;
    if (recount.unhooked[mfn] === 1 || frames.owner[mfn] !== slot + 1 || frames.prev[mfn] !== prev) {
      recount.findings.push(`slot ${slot}: list of unhooked frames is broken at frame ${mfn}`);
      return;
    }
    recount.unhooked[mfn] = 1;
    prev = link;
  }
};

/** A registered vcpu_info and a registered page of pirq flags hold a reference on their frames. */
const countRegistered = (recount: Recount, slot: number): void => {
  const { domains, pirqs, vcpus } = recount.hypervisor;
  const held = [pirqs.eoiFrame[slot]!];
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) held.push(vcpus.infoFrame[vcpus.index(slot, vcpu)]!);
  for (const link of held) if (link !== 0) recount.references[link - 1]! += 1;
};

const auditFrame = (recount: Recount, mfn: number): void => {
  const { frames } = recount.hypervisor;
  const owner = frames.owner[mfn]!;
  const flags = frames.flags[mfn]!;
  if (recount.free[mfn] === 1) {
    const isClean = owner === 0 && frames.refs[mfn] === 0 && frames.writable[mfn] === 0 && frames.gfn[mfn] === 0;
    if (!isClean || (flags & ~FRAME_FREE_HEAD) !== 0) recount.findings.push(`frame ${mfn}: free, but not blank`);
    return;
  }
  if (owner === 0) recount.findings.push(`frame ${mfn}: neither free nor owned`);
  if ((flags & (FRAME_FREE_HEAD | FRAME_EXCHANGED)) !== 0) recount.findings.push(`frame ${mfn}: flags ${flags}`);
  const isReleased = (flags & FRAME_RELEASED) !== 0;
  const references = recount.references[mfn]! + (isReleased ? 0 : 1);
  if (frames.refs[mfn] !== references || references === 0) {
    recount.findings.push(`frame ${mfn}: ${frames.refs[mfn]} references, ${references} known`);
  }
  if (owner === 0 || owner === HYPERVISOR_OWNER) return;
  recount.owned[owner - 1]! += 1;
  auditOwnedFrame(recount, mfn, owner - 1);
};

/** A domain's frame is hooked where it says, or on the list of unhooked ones. */
const auditOwnedFrame = (recount: Recount, mfn: number, slot: number): void => {
  const { frames, p2m } = recount.hypervisor;
  const home = frames.gfn[mfn]! - 1;
  const isListed = recount.unhooked[mfn] === 1;
  const isFlagged = (frames.flags[mfn]! & FRAME_UNHOOKED) !== 0;
  const isAway = isListed || recount.kept[mfn] === 1;
  if (isListed !== isFlagged || isAway === home >= 0) {
    recount.findings.push(`frame ${mfn}: at gfn ${home}, listed as unhooked ${isListed}, flagged so ${isFlagged}`);
  }
  if (home < 0) return;
  const entry = p2m.get(slot, home);
  if (entry === P2M_HOLE || entry >>> 4 !== mfn) recount.findings.push(`frame ${mfn}: not at its gfn ${home}`);
};

const auditTotals = (recount: Recount): void => {
  const { domains } = recount.hypervisor;
  let claims = 0;
  let vmas = 0;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    const total = domains.totPages[slot]!;
    if (total !== recount.owned[slot]) {
      recount.findings.push(`slot ${slot}: owns ${recount.owned[slot]} frames, ${total} counted`);
    }
    if (total > domains.peakPages[slot]!) recount.findings.push(`slot ${slot}: peak below the ${total} frames owned`);
    if (total > 0 && domains.references[slot] === 0) recount.findings.push(`slot ${slot}: frames, but no reference`);
    claims += domains.claim[slot]!;
    vmas += domains.vmaCount[slot]!;
  }
  if (claims !== outstandingClaims(recount.hypervisor)) {
    recount.findings.push(`claims: ${claims} held, ${outstandingClaims(recount.hypervisor)} counted`);
  }
  if (vmas !== vmaTotal(recount.hypervisor)) {
    recount.findings.push(`mapping boundaries: ${vmas} in all, ${vmaTotal(recount.hypervisor)} counted`);
  }
};
