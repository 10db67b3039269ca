/**
 * Creation of a domain: a slot, a number that nobody else has, a shared_info frame, its vCPUs' rows. What comes out is
 * paused once, owns no memory and may own none (max_pages 0). The address space and the threads are the host's.
 */
import { DOMID_ANY, EEXIST, EINVAL, ENOMEM, ENOSPC, vcpu_info } from "@xenolith/abi";
import assert from "node:assert/strict";
import { allocateFrames, freeFrames } from "./buddy.ts";
import {
  DOMAIN_FLAG_PRIVILEGED,
  DOMAIN_FLAG_XENSTORE,
  dmaSlot,
  DOMID_COUNT,
  DOMID_RETIRED,
  DOM0_SLOT,
} from "./domain-table.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { createEvents } from "./event-lifetime.ts";
import { GATE_PAUSE } from "./gate.ts";
import { areGrantLimits, createGrantTable } from "./grant-grow.ts";
import type { GrantLimits } from "./grant-grow.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { moveDomain } from "./lifecycle.ts";
import type { Narrowing } from "./narrowing-table.ts";
import { isPageCount } from "./memory-limits.ts";

/** What a new domain is like. */
export interface DomainSpec extends GrantLimits {
  /** Its number; by default the next free one after the last given out. */
  readonly domid?: number;
  /** 1 to geometry.vcpusPerDomain. */
  readonly vcpus: number;
  /** Highest event-channel port; by default as many as the geometry has. */
  readonly portMax?: number;
  /** UUID, 16 bytes. */
  readonly handle?: Uint8Array;
  /** A toolstack: it may make every hypercall. */
  readonly privileged?: boolean;
  /** It serves xenstore. */
  readonly xenstore?: boolean;
  /** VMAs that its address space may use. */
  readonly vmaBudget?: number;
  /** By how many frames device models may raise its max_pages, together; 0 by default. */
  readonly deviceModelPages?: number;
  /** What a policy takes from it, beside what it takes from everybody: see narrowing-table.ts. */
  readonly narrowing?: Narrowing;
}

/** VMAs that a domain may use unless its creator says otherwise. */
export const VMA_BUDGET_DEFAULT = 2048;

const VCPU_INFO_BYTES = vcpu_info.sizeBytes;
const GENERATION = 0;
const LAST_DOMID = 1;
const GRACE_EPOCH = 2;

/**
 * Creates a domain and returns its domid. -EINVAL: number of vCPUs, domid, handle or limits out of range, -EEXIST: the
 * domid is in use (also by a domain that is gone but still named), -ENOSPC: no slot or no domid is free, -ENOMEM: no
 * frame is.
 */
export const createDomain = (hypervisor: Hypervisor, spec: DomainSpec): number => {
  const { geometry, domains, locks } = hypervisor;
  const isCountOk = Number.isInteger(spec.vcpus) && spec.vcpus >= 1 && spec.vcpus <= geometry.vcpusPerDomain;
  if (!isCountOk || (spec.handle !== undefined && spec.handle.length !== 16)) return -EINVAL;
  if (!areGrantLimits(hypervisor, spec) || !isPageCount(spec.deviceModelPages ?? 0)) return -EINVAL;
  const lock = locks.id("domainList");
  locks.acquire(lock);
  const slot = reserveSlot(hypervisor, spec.domid);
  locks.release(lock);
  if (slot < 0) return slot;
  const frame = allocateFrames(hypervisor, 0);
  if (frame < 0 || createGrantTable(hypervisor, slot, spec) !== 0) {
    if (frame >= 0) freeFrames(hypervisor, frame, 0);
    abandonSlot(hypervisor, slot);
    return -ENOMEM;
  }
  fillRow(hypervisor, slot, spec, frame);
  publishDomain(hypervisor, slot);
  const created = moveDomain(domains, slot, "created");
  assert(created);
  return domains.domid[slot]!;
};

/** From now on the domain's number leads to its row, which is complete. */
export const publishDomain = (hypervisor: Hypervisor, slot: number): void => {
  const { domains } = hypervisor;
  Atomics.store(domains.slotByDomid, domains.domid[slot]!, slot + 1);
};

/** Writes everything that a row of `slot` holds at birth. The slot is reserved and has its domid. */
export const fillRow = (hypervisor: Hypervisor, slot: number, spec: DomainSpec, frame: number): void => {
  const { domains, geometry, platform } = hypervisor;
  const now = platform.now();
  domains.flags[slot] =
    (spec.privileged === true ? DOMAIN_FLAG_PRIVILEGED : 0) | (spec.xenstore === true ? DOMAIN_FLAG_XENSTORE : 0);
  domains.pauses[slot] = slot === DOM0_SLOT ? 0 : 1;
  domains.vmaBudget[slot] = Math.min(spec.vmaBudget ?? VMA_BUDGET_DEFAULT, geometry.vmaLimit);
  domains.extraPagesMax[slot] = spec.deviceModelPages ?? 0;
  domains.vcpuCount[slot] = spec.vcpus;
  domains.portEnd[slot] = Math.min((spec.portMax ?? geometry.portsPerDomain) + 1, geometry.portsPerDomain);
  domains.createdNs[slot] = now;
  domains.sharedInfo[slot] = frame + 1;
  if (spec.handle !== undefined) domains.handle.set(spec.handle, slot * 16);
  domains.trace.reset(slot, now);
  domains.narrowing.begin(slot, slot === DOM0_SLOT ? undefined : domains.domid[slot]!, spec.narrowing);
  hypervisor.consoles.reset(slot, now);
  hypervisor.hvmParams.reset(slot);
  fillVcpus(hypervisor, slot, frame);
  createEvents(hypervisor, slot);
};

/** Zeroes every column of a row except `state`, `generation` and the trace. */
export const clearRow = (hypervisor: Hypervisor, slot: number): void => {
  const { domains } = hypervisor;
  const columns = [
    domains.domid,
    domains.flags,
    domains.target,
    domains.pauses,
    domains.shutdownCode,
    domains.totPages,
    domains.maxPages,
    domains.extraPagesMax,
    domains.extraPages,
    domains.frozenToken,
    domains.frozenBy,
    domains.claim,
    domains.peakPages,
    domains.unhooked,
    domains.vmaCount,
    domains.vmaBudget,
    domains.gfnEnd,
    domains.vcpuCount,
    domains.portEnd,
    domains.sharedInfo,
    domains.sharedInfoGfn,
    domains.references,
    domains.denied,
    domains.reapStage,
    domains.reapCursor,
    domains.graceEpoch,
    domains.spaceBase,
    domains.createdNs,
    domains.isNarrowed,
  ];
  for (const column of columns) column[slot] = 0;
  const perDomain = hypervisor.vcpus.perDomain;
  for (const column of [domains.hypercalls, domains.events]) column.fill(0, slot * perDomain, (slot + 1) * perDomain);
  domains.handle.fill(0, slot * 16, (slot + 1) * 16);
  const reasonBytes = domains.crashReason.length / domains.slotCount;
  domains.crashReason.fill(0, slot * reasonBytes, (slot + 1) * reasonBytes);
};

/** Gives a reserved slot back: the domain never came to be. */
const abandonSlot = (hypervisor: Hypervisor, slot: number): void => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("domainList");
  locks.acquire(lock);
  for (const event of ["destroy", "reaped"] as const) {
    const moved = moveDomain(domains, slot, event);
    assert(moved);
  }
  releaseSlot(hypervisor, slot);
  locks.release(lock);
};

/** Frees the row of a dead domain. Last of all its number and its slot become available. Under the domain list lock. */
export const releaseSlot = (hypervisor: Hypervisor, slot: number): void => {
  const { domains } = hypervisor;
  const domid = domains.domid[slot]!;
  assert(domains.stateOf(slot) === "dead");
  assert(domains.slotByDomid[domid] === DOMID_RETIRED);
  clearRow(hypervisor, slot);
  Atomics.store(domains.slotByDomid, domid, 0);
  const moved = moveDomain(domains, slot, "released");
  assert(moved);
};

/** Takes a free slot and a free domid; nobody finds the domain by it yet. Under the domain list lock. */
const reserveSlot = (hypervisor: Hypervisor, wanted: number | undefined): number => {
  const { domains } = hypervisor;
  const isAutomatic = wanted === undefined || wanted === DOMID_ANY;
  const domid = isAutomatic ? nextDomid(hypervisor) : wanted;
  if (isAutomatic && domid === DOMID_COUNT) return -ENOSPC;
  if (!Number.isInteger(domid) || domid < 0 || domid >= DOMID_COUNT) return -EINVAL;
  if (domains.slotByDomid[domid] !== 0) return -EEXIST;
  const slot = freeSlot(hypervisor);
  if (slot < 0) return -ENOSPC;
  const moved = moveDomain(domains, slot, "reserve");
  assert(moved);
  clearRow(hypervisor, slot);
  domains.domid[slot] = domid;
  domains.generation[slot] = Atomics.add(domains.serial, GENERATION, 1) + 1;
  if (isAutomatic) domains.serial[LAST_DOMID] = domid;
  Atomics.store(domains.slotByDomid, domid, DOMID_RETIRED);
  return slot;
};

/** The next number after the last given out that no row has, from 1 upwards and around; DOMID_COUNT when all are used. */
const nextDomid = (hypervisor: Hypervisor): number => {
  const { domains } = hypervisor;
  const span = DOMID_COUNT - 1;
  for (let step = 0; step < span; step += 1) {
    const domid = 1 + ((domains.serial[LAST_DOMID]! + step) % span);
    if (domains.slotByDomid[domid] === 0) return domid;
  }
  return DOMID_COUNT;
};

const freeSlot = (hypervisor: Hypervisor): number => {
  const { domains } = hypervisor;
  for (let slot = DOM0_SLOT + 1; slot < dmaSlot(domains); slot += 1) {
    if (domains.stateOf(slot) === "free") return slot;
  }
  return -1;
};

/** vCPUs at birth: held at their gates, their vcpu_info in shared_info. */
const fillVcpus = (hypervisor: Hypervisor, slot: number, frame: number): void => {
  const { domains, vcpus } = hypervisor;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    vcpus.vcpuInfo[index] = frame * FRAME_BYTES + vcpu * VCPU_INFO_BYTES;
    domains.gateSeen[index] = domains.serial[GRACE_EPOCH]!;
    domains.gateEntries[index] = 0;
    domains.gateMark[index] = 0;
    domains.markEpoch[index] = domains.serial[GRACE_EPOCH]!;
    Atomics.store(vcpus.gate, index, slot === DOM0_SLOT ? 0 : GATE_PAUSE);
  }
};
