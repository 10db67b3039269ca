/**
 * The auditor's look at domains: everything in the rows that follows from something else is computed again.
 */
import { dmaSlot, DOM0_SLOT, DOMID_COUNT, DOMID_RETIRED } from "./domain-table.ts";
import type { DomainState } from "./domain-table.ts";
import { HYPERVISOR_OWNER } from "./frame-table.ts";
import { GATE_PAUSE, GATE_STOP } from "./gate.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** Findings about domains, their names and their vCPUs; empty when all is well. */
export const auditDomains = (hypervisor: Hypervisor): string[] => [
  ...auditNames(hypervisor),
  ...auditRows(hypervisor),
  ...auditReferences(hypervisor),
];

/** domid -> slot and slot -> domid are inverse to each other, and generations are unique. */
const auditNames = (hypervisor: Hypervisor): string[] => {
  const { domains } = hypervisor;
  const findings: string[] = [];
  const generations = new Set<number>();
  let named = 0;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    if (domains.stateOf(slot) === "free") continue;
    named += 1;
    const domid = domains.domid[slot]!;
    const found = domains.slotByDomid[domid];
    if (found !== slot + 1 && found !== DOMID_RETIRED) findings.push(`slot ${slot}: domid ${domid} leads to ${found}`);
    if (generations.has(domains.generation[slot]!)) findings.push(`slot ${slot}: generation is not unique`);
    generations.add(domains.generation[slot]!);
    if (domains.generation[slot]! > domains.serial[0]!) findings.push(`slot ${slot}: generation from the future`);
  }
  let taken = 0;
  for (let domid = 0; domid < DOMID_COUNT; domid += 1) if (domains.slotByDomid[domid] !== 0) taken += 1;
  if (taken !== named) findings.push(`${taken} domids are taken, ${named} domains exist`);
  return findings;
};

const auditRows = (hypervisor: Hypervisor): string[] => {
  const findings: string[] = [];
  for (let slot = 0; slot < hypervisor.domains.slotCount; slot += 1) {
    // An address space of the control domain's, and no domain.
    if (slot === dmaSlot(hypervisor.domains)) continue;
    const state = hypervisor.domains.stateOf(slot);
    for (const problem of state === "free" ? freeRowProblems(hypervisor, slot) : rowProblems(hypervisor, slot, state)) {
      findings.push(`slot ${slot} (${state}): ${problem}`);
    }
  }
  return findings;
};

/** A free row names nothing. */
const freeRowProblems = (hypervisor: Hypervisor, slot: number): string[] => {
  const { domains } = hypervisor;
  const columns = {
    totPages: domains.totPages,
    claim: domains.claim,
    references: domains.references,
    target: domains.target,
    sharedInfo: domains.sharedInfo,
    vmaCount: domains.vmaCount,
    gfnEnd: domains.gfnEnd,
    unhooked: domains.unhooked,
    spaceBase: domains.spaceBase,
    flags: domains.flags,
    maxPages: domains.maxPages,
    extraPagesMax: domains.extraPagesMax,
    extraPages: domains.extraPages,
    frozenToken: domains.frozenToken,
    frozenBy: domains.frozenBy,
    isNarrowed: domains.isNarrowed,
  };
  return Object.entries(columns)
    .filter(([, column]) => column[slot] !== 0)
    .map(([name]) => `${name} is not 0`);
};

const rowProblems = (hypervisor: Hypervisor, slot: number, state: DomainState): string[] => {
  const { domains, frames } = hypervisor;
  const problems: string[] = [];
  const isOver = state === "dead";
  const frame = domains.sharedInfo[slot]! - 1;
  if (isOver !== frame < 0) problems.push("has shared_info exactly while it is not dead");
  if (frame >= 0 && frames.owner[frame] !== HYPERVISOR_OWNER) problems.push("shared_info is not the hypervisor's");
  if (state === "running" && domains.pauses[slot] !== 0) problems.push("runs although it is paused");
  if (state === "paused" && domains.pauses[slot] === 0) problems.push("is paused by nobody");
  if (state === "shutdown" && domains.shutdownCode[slot] === 0) problems.push("shut down without a code");
  if (isOver && domains.spaceBase[slot] !== 0) problems.push("is dead and has an address space");
  if ((state === "dying" || isOver) && domains.claim[slot] !== 0) problems.push("is dying and has a claim");
  const freezer = domains.frozenBy[slot]!;
  if ((freezer === 0) !== (domains.frozenToken[slot] === 0)) problems.push("has a freeze without a token");
  if (freezer !== 0 && domains.stateOf(freezer - 1) === "free") problems.push("is frozen by nobody");
  return [...problems, ...gateProblems(hypervisor, slot, state)];
};

/** A domain that may not run has its vCPUs held, one that may run has not. */
const gateProblems = (hypervisor: Hypervisor, slot: number, state: DomainState): string[] => {
  const { domains, vcpus } = hypervisor;
  const problems: string[] = [];
  for (let vcpu = 0; slot !== DOM0_SLOT && vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const word = Atomics.load(vcpus.gate, vcpus.index(slot, vcpu));
    const isHeld = (word & (GATE_PAUSE | GATE_STOP)) !== 0;
    if (isHeld === (state === "running")) problems.push(`vCPU ${vcpu} is ${isHeld ? "held" : "not held"}`);
  }
  return problems;
};

/** A row is referenced once by its memory, and once by each device model of it. */
const auditReferences = (hypervisor: Hypervisor): string[] => {
  const { domains } = hypervisor;
  const expected = new Uint32Array(domains.slotCount);
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    if (domains.totPages[slot] !== 0) expected[slot]! += 1;
    const target = domains.target[slot]!;
    if (target !== 0) expected[target - 1]! += 1;
  }
  const findings: string[] = [];
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    const found = domains.references[slot]!;
    if (found !== expected[slot]) findings.push(`slot ${slot}: ${found} references, ${expected[slot]} users`);
  }
  return findings;
};
