/**
 * The end of a domain, in slices that any number of other duties may come between. The control domain's thread calls
 * `continueDestroy` again and again (or `reapDomains` for all that are ending) while the host stops the threads:
 *
 *     stage    what it does                                     goes on when
 *     detach   takes the address space away                     the page table obeyed
 *     quiesce  waits; then takes its extents back, and away     the domain has no thread, and every vCPU of every domain
 *              the extents of others' that it has mapped        was outside the hypervisor once since it is dying
 *     grants   ends its mappings, revokes what it granted, a    nothing of others' is mapped, nothing of its revokably
 *              slice at a time
 *     events   closes its ports, a slice at a time              all are closed
 *     memory   gives its frames back, a slice at a time         none is left but those that others hold
 *     grace    waits                                            every vCPU was outside once since the last port closed
 *     special  frees shared_info, its grant table, and what it   at once; the domain is dead now
 *              held of others
 *     zombie   waits                                            no frame of it and no reference to its row is left
 *     retire   its domid names nobody any more; waits           every vCPU was outside once since then
 *     free     gives the memory of its tables back to the host, then slot and domid
 *
 * The waits make everything else simple: an operation that found the domain alive has ended before its memory is taken,
 * and a sender that read a port of it has ended before the page it would write to is somebody else's.
 */
import { EINVAL, ESRCH } from "@xenolith/abi";
import assert from "node:assert/strict";
import { dropDomain, setClaim } from "./accounting.ts";
import { detachSpace } from "./address-space.ts";
import { ATTENTION_CONSOLE, ATTENTION_REQUEST } from "./attention.ts";
import { freeFrames } from "./buddy.ts";
import { releaseSlot } from "./domain-create.ts";
import { announce, requestVcpus } from "./domain-ops.ts";
import { DOM0_SLOT, DOMID_RETIRED } from "./domain-table.ts";
import { releaseEvents } from "./event-lifetime.ts";
import { closeAllPorts } from "./event-reset.ts";
import { reapExtents } from "./extent-revoke.ts";
import { GATE_IN, GATE_STOP } from "./gate.ts";
import { freeGrantTable } from "./grant-grow.ts";
import { reapGrants } from "./grant-reap.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { moveDomain } from "./lifecycle.ts";
import { thawAllOf } from "./memory-limits.ts";
import { relinquishMemory } from "./memory-populate.ts";
import { returnVirqs } from "./virq.ts";

/** Stages in their order; the index is what `DomainTable.reapStage` holds. */
export const REAP_STAGES = [
  "detach",
  "quiesce",
  "grants",
  "events",
  "memory",
  "grace",
  "special",
  "zombie",
  "retire",
] as const;
/** One stage. */
export type ReapStage = (typeof REAP_STAGES)[number];

/** Work units (ports, frames) of one slice unless the caller says otherwise. */
export const REAP_SLICE = 4096;

const GRACE_EPOCH = 2;
/** Looks at all gates in one call: enough for a busy vCPU to make two hypercalls meanwhile. */
const GRACE_LOOKS = 32;

/**
 * Begins the end of the domain in `slot`: it runs no more, opens and owns nothing new. Calling it again is harmless.
 * -EINVAL: dom0, -ESRCH: there is no domain. The rest is `continueDestroy`'s.
 */
export const beginDestroy = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, locks } = hypervisor;
  if (slot === DOM0_SLOT) return -EINVAL;
  const lock = locks.id("domain", slot);
  locks.acquire(lock);
  const isFirst = moveDomain(domains, slot, "destroy");
  const result = domains.stateOf(slot) === "free" ? -ESRCH : 0;
  if (isFirst) {
    domains.reapStage[slot] = REAP_STAGES.indexOf("detach");
    requestVcpus(hypervisor, slot, GATE_STOP);
    setClaim(hypervisor, slot, 0);
    returnVirqs(hypervisor, slot);
    startGrace(hypervisor, slot);
  }
  locks.release(lock);
  if (isFirst) hypervisor.attention.raise(ATTENTION_REQUEST);
  return result;
};

/** What the end of the domain in `slot` waits for or works on; undefined: it is not ending. */
export const reapStage = (hypervisor: Hypervisor, slot: number): ReapStage | undefined => {
  const state = hypervisor.domains.stateOf(slot);
  return state === "dying" || state === "dead" ? REAP_STAGES[hypervisor.domains.reapStage[slot]!] : undefined;
};

/**
 * Works on the end of the domain in `slot`, at most `budget` ports or frames; returns whether the domain is dead: all
 * that it had is given back. The row itself goes when nothing names it any more (`reapDomains` sees to that). For the
 * control domain's thread, outside of every vCPU's gate but dom0's.
 */
export const continueDestroy = (hypervisor: Hypervisor, slot: number, budget = REAP_SLICE): boolean => {
  assert(hypervisor.locks.heldCount === 0);
  let stage = reapStage(hypervisor, slot);
  while (stage !== undefined && stages[stage](hypervisor, slot, budget)) stage = reapStage(hypervisor, slot);
  return hypervisor.domains.stateOf(slot) !== "dying";
};

/** Works on the end of every domain that is ending, `budget` for each; returns how many are still there. */
export const reapDomains = (hypervisor: Hypervisor, budget = REAP_SLICE): number => {
  let count = 0;
  for (let slot = DOM0_SLOT + 1; slot < hypervisor.domains.slotCount; slot += 1) {
    if (reapStage(hypervisor, slot) === undefined) continue;
    continueDestroy(hypervisor, slot, budget);
    if (reapStage(hypervisor, slot) !== undefined) count += 1;
  }
  return count;
};

/** Does the work of one stage; true when the next one has begun. */
type StageWork = (hypervisor: Hypervisor, slot: number, budget: number) => boolean;

const advance = (hypervisor: Hypervisor, slot: number): boolean => {
  hypervisor.domains.reapStage[slot]! += 1;
  return true;
};

const stages: Readonly<Record<ReapStage, StageWork>> = {
  detach: (hypervisor, slot) => detachSpace(hypervisor, slot) === 0 && advance(hypervisor, slot),
  quiesce: (hypervisor, slot) =>
    !hasThread(hypervisor, slot) &&
    graceOver(hypervisor, slot) &&
    reapExtents(hypervisor, slot) &&
    advance(hypervisor, slot),
  grants: (hypervisor, slot, budget) => reapGrants(hypervisor, slot, budget) && advance(hypervisor, slot),
  events: (hypervisor, slot, budget) => closeAllPorts(hypervisor, slot, budget) && advance(hypervisor, slot),
  memory: (hypervisor, slot, budget) => {
    if (!relinquishMemory(hypervisor, slot, budget)) return false;
    startGrace(hypervisor, slot);
    return advance(hypervisor, slot);
  },
  grace: (hypervisor, slot) => graceOver(hypervisor, slot) && advance(hypervisor, slot),
  special: (hypervisor, slot) => {
    freeSpecial(hypervisor, slot);
    const moved = moveDomain(hypervisor.domains, slot, "reaped");
    assert(moved);
    announce(hypervisor);
    return advance(hypervisor, slot);
  },
  zombie: (hypervisor, slot) => {
    const { domains } = hypervisor;
    if (domains.totPages[slot] !== 0 || Atomics.load(domains.references, slot) !== 0) return false;
    Atomics.store(domains.slotByDomid, domains.domid[slot]!, DOMID_RETIRED);
    startGrace(hypervisor, slot);
    return advance(hypervisor, slot);
  },
  retire: (hypervisor, slot) => {
    const { attention, locks } = hypervisor;
    if (!graceOver(hypervisor, slot)) {
      // Whoever destroyed the domain may have given up waiting for its last frame long ago.
      attention.raise(ATTENTION_REQUEST);
      return false;
    }
    discardTables(hypervisor, slot);
    const lock = locks.id("domainList");
    locks.acquire(lock);
    releaseSlot(hypervisor, slot);
    locks.release(lock);
    return true;
  },
};

/** Gives the memory of the tables of `slot`, which name nothing any more and which nobody reads, back to the host. */
const discardTables = ({ grants, p2m, platform }: Hypervisor, slot: number): void => {
  const rows = [p2m.rowsOf(slot), ...grants.rowsOf(slot)];
  for (const { buffer, byteOffset, byteLength } of rows) platform.discardTable?.(buffer, byteOffset, byteLength);
};

/** Whether a thread still runs one of the domain's vCPUs; the host clears the tag when it has ended it. */
const hasThread = (hypervisor: Hypervisor, slot: number): boolean => {
  const { domains, vcpus } = hypervisor;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    if (Atomics.load(vcpus.tag, vcpus.index(slot, vcpu)) !== 0) return true;
  }
  return false;
};

/** Begins a grace period for the domain in `slot`. */
const startGrace = (hypervisor: Hypervisor, slot: number): void => {
  const { domains } = hypervisor;
  domains.graceEpoch[slot] = Atomics.add(domains.serial, GRACE_EPOCH, 1) + 1;
};

/**
 * Whether every vCPU was outside the hypervisor since the domain's grace period began. Dom0 needs no looking at: it runs
 * on the thread that asks. A vCPU that blocks is outside. One that makes hypercalls all the time is hardly ever met
 * outside, but its entries are counted; so it is looked at a few times before the caller has to come again.
 */
const graceOver = (hypervisor: Hypervisor, slot: number): boolean => {
  for (let look = 0; look < GRACE_LOOKS; look += 1) if (lookAtGates(hypervisor, slot)) return true;
  return false;
};

const lookAtGates = (hypervisor: Hypervisor, slot: number): boolean => {
  const { domains, vcpus } = hypervisor;
  const epoch = Atomics.load(domains.serial, GRACE_EPOCH);
  const wanted = domains.graceEpoch[slot]!;
  let isOver = true;
  for (let other = DOM0_SLOT + 1; other < domains.slotCount; other += 1) {
    if (domains.stateOf(other) === "free") continue;
    for (let vcpu = 0; vcpu < domains.vcpuCount[other]!; vcpu += 1) {
      const index = vcpus.index(other, vcpu);
      lookAtGate(hypervisor, index, epoch);
      if (((domains.gateSeen[index]! - wanted) | 0) < 0) isOver = false;
    }
  }
  return isOver;
};

/**
 * Notes when vCPU row `index` was outside. It counts its entry after it entered: between two looks that find the count
 * changed by two it left at least once, whichever moments they met.
 */
const lookAtGate = (hypervisor: Hypervisor, index: number, epoch: number): void => {
  const { domains, vcpus } = hypervisor;
  if ((Atomics.load(vcpus.gate, index) & GATE_IN) === 0) {
    domains.gateSeen[index] = epoch;
    return;
  }
  const entries = Atomics.load(domains.gateEntries, index);
  const marked = domains.markEpoch[index]!;
  const isMarkUsed = ((marked - domains.gateSeen[index]!) | 0) <= 0;
  const hasLeft = ((entries - domains.gateMark[index]!) | 0) >= 2;
  if (!isMarkUsed && !hasLeft) return;
  if (!isMarkUsed) domains.gateSeen[index] = marked;
  domains.gateMark[index] = entries;
  domains.markEpoch[index] = epoch;
};

/** Frees the frames that the hypervisor kept for the domain, and lets go of what the domain held of others. */
const freeSpecial = (hypervisor: Hypervisor, slot: number): void => {
  const { domains, consoles, platform } = hypervisor;
  releaseEvents(hypervisor, slot);
  const frame = domains.sharedInfo[slot]! - 1;
  domains.sharedInfo[slot] = 0;
  domains.sharedInfoGfn[slot] = 0;
  if (frame >= 0) freeFrames(hypervisor, frame, 0);
  freeGrantTable(hypervisor, slot);
  const target = domains.target[slot]!;
  domains.target[slot] = 0;
  if (target !== 0) dropDomain(hypervisor, target - 1);
  thawAllOf(hypervisor, slot);
  if (consoles.finish(slot, platform.now())) hypervisor.attention.raise(ATTENTION_CONSOLE);
};
