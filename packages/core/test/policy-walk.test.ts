import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { DomainSpec } from "../src/domain-create.ts";
import { setTarget } from "../src/domain-ops.ts";
import { NARROW_DENIED, NARROW_MIDDLE, NARROW_PRIVILEGED, OPERATION_COUNT_MAX } from "../src/narrowing-table.ts";
import { operationNames, operations } from "../src/operations.ts";
import type { Operation } from "../src/operations.ts";
import type { Access } from "../src/policy-table.ts";
import { Machine, poke, pokeWords } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { ENOSYS, EPERM } = abi;
/** The page that the argument structures stand in. */
const ARG = 0x1000;
const PAGE_BYTES = 4096;

/** Classes of callers. */
const CALLERS = ["stranger", "model", "target", "xenstore", "toolstack", "dom0"] as const;
type Caller = (typeof CALLERS)[number];
/** Whom they act on. */
const TARGETS = ["self", "target", "stranger", "model", "dom0"] as const;
type Target = (typeof TARGETS)[number];

/** The table in words: what the comment of policy-table.ts says, written down once more. */
const isAllowed = (access: Access | "NOBODY", caller: Caller, target: Target): boolean => {
  const isPrivileged = caller === "toolstack" || caller === "dom0";
  const isSelf = target === "self" || target === caller;
  const isModel = caller === "model" && target === "target";
  switch (access) {
    case "HOOK":
    case "TEXT":
      return true;
    case "TARGET":
      return isPrivileged || isSelf || isModel;
    case "DM_PRIV":
      return isPrivileged || isModel;
    case "XS_PRIV":
      return isPrivileged || caller === "xenstore";
    case "PRIV":
      return isPrivileged;
    case "ABSENT":
    case "NOBODY":
      return false;
  }
};

type Cast = Readonly<Record<Caller, Guest>> & { readonly machine: Machine };

/** A machine with one domain of every class. `narrowing` is what a policy takes from all of them but dom0. */
const cast = (narrowing?: Uint8Array): Cast => {
  const machine = new Machine();
  const guest = (spec: Partial<DomainSpec> = {}): Guest =>
    machine.guest({ ...spec, ...(narrowing === undefined ? {} : { narrowing }) });
  const actors = {
    stranger: guest(),
    model: guest(),
    target: guest({ deviceModelPages: 4 }),
    xenstore: guest({ xenstore: true }),
    toolstack: guest({ privileged: true }),
    dom0: machine.dom0,
    machine,
  };
  assert.equal(setTarget(machine.hypervisor, actors.model.slot, actors.target.slot), 0);
  machine.keepAwake();
  machine.hypervisor.pirqs.permitted.fill(1);
  // From now on every note is suppressed: a refusal leaves a count and nothing else.
  const { trace } = machine.hypervisor.domains;
  for (const { slot } of CALLERS.map((caller) => actors[caller])) {
    for (let count = 0; count < 32; count += 1) trace.note(slot, "denied", { nowNs: 0, first: 0, second: 0 });
  }
  return actors;
};

/** Where the domid stands in the structure of an operation. */
const domidOffsets = (name: string): readonly number[] => {
  switch (name) {
    case "XENMEM_increase_reservation":
    case "XENMEM_decrease_reservation":
    case "XENMEM_populate_physmap":
      return [abi.xen_memory_reservation.domid.offset];
    case "XENMEM_exchange":
      return [16, 36];
    case "GNTTABOP_get_status_frames":
      return [abi.gnttab_get_status_frames.dom.offset];
    default:
      return [0];
  }
};

/** Makes the operation; the structure is all zeros but for the domid. */
const attempt = ({ machine }: Cast, caller: Guest, operation: Operation, name: string, domid: number): number => {
  const { number, command = 0 } = operation;
  poke(caller, ARG, new Uint8Array(PAGE_BYTES));
  if (operation.hypercall === "domctl" || operation.hypercall === "sysctl") {
    const isState = command === abi.XEN_DOMCTL_get_domain_state && operation.hypercall === "domctl";
    const usual =
      operation.hypercall === "domctl" ? abi.XEN_DOMCTL_INTERFACE_VERSION : abi.XEN_SYSCTL_INTERFACE_VERSION;
    pokeWords(caller, ARG, command, isState ? 0 : usual, operation.hypercall === "domctl" ? domid : 0);
    return machine.call(caller, number, ARG);
  }
  for (const at of domidOffsets(name)) poke(caller, ARG + at, Uint8Array.of(domid & 0xff, domid >> 8));
  return machine.call(caller, number, command, ARG, 1);
};

/** All shared state, but for the argument page of `caller` and the counts of calls and refusals. */
const stateOf = ({ machine }: Cast, caller: Guest): readonly Buffer[] => {
  poke(caller, ARG, new Uint8Array(PAGE_BYTES));
  const { hypervisor, parts } = machine;
  const { storage } = parts;
  const copies = [storage.control, storage.p2m, storage.grants, ...storage.banks].map((buffer) =>
    Buffer.from(new Uint8Array(buffer).slice()),
  );
  const { domains } = hypervisor;
  for (const column of [domains.denied, domains.hypercalls, domains.gateEntries, domains.trace.suppressed]) {
    copies[0]!.fill(0, column.byteOffset, column.byteOffset + column.byteLength);
  }
  return copies;
};

/** How a refusal looks to the caller. */
const isRefusal = (name: string, result: number): boolean => {
  if (/^XENMEM_(increase_reservation|decrease_reservation|populate_physmap)$/.test(name)) return result === 0;
  // These have a status in their structure.
  if (/^GNTTABOP_(setup_table|query_size|get_status_frames|get_version)$/.test(name))
    return result === 0 || result === -EPERM;
  return result === -EPERM;
};

/** A domctl names the domain by its number; everywhere else a domain may call itself DOMID_SELF. */
const domidOf = (actors: Cast, { hypercall }: Operation, caller: Caller, target: Target): number =>
  target !== "self" ? actors[target].domid : hypercall === "domctl" ? actors[caller].domid : abi.DOMID_SELF;

/** Tries one combination and says whether the policy refused it; a refused one must have changed nothing. */
const isRefused = (actors: Cast, operation: Operation, name: string, caller: Caller, target: Target): boolean => {
  const { denied } = actors.machine.hypervisor.domains;
  const who = actors[caller];
  const before = stateOf(actors, who);
  const deniedBefore = denied[who.slot]!;
  const result = attempt(actors, who, operation, name, domidOf(actors, operation, caller, target));
  const count = denied[who.slot]! - deniedBefore;
  const title = `${name} by ${caller} on ${target} returned ${result}`;
  if (count === 0 && !(operation.access === "ABSENT" && result === -ENOSYS)) return false;
  assert.equal(count, operation.access === "ABSENT" ? 0 : 1, title);
  if (operation.access !== "ABSENT") assert(isRefusal(name, result), title);
  const after = stateOf(actors, who);
  for (const [index, copy] of before.entries()) assert(copy.equals(after[index]!), `${title} and changed something`);
  return true;
};

/** Walks all callers and targets of one operation whose class is `access` at this moment. */
const walk = (
  operation: Operation,
  name: string,
  access: Access | "NOBODY",
  targets: readonly Target[],
  narrowing?: Uint8Array,
): void => {
  let actors = cast(narrowing);
  for (const caller of CALLERS) {
    const wanted = caller === "dom0" ? operation.access : access;
    for (const target of targets) {
      const isExpected = isAllowed(wanted, caller, target);
      // What a toolstack may do to the control domain, or to itself, is none of the policy's business.
      if (isExpected && (target === "dom0" || caller === "dom0") && target !== "target") continue;
      const isDenied = isRefused(actors, operation, name, caller, target);
      assert.equal(isDenied, !isExpected, `${name} (${wanted}) by ${caller} on ${target}`);
      if (isExpected) actors = cast(narrowing);
    }
  }
};

const names = operationNames();

/** What a policy can make of a class, step by step. */
const stepsFrom = (access: Access): readonly (readonly [cell: number, access: Access | "NOBODY"])[] => {
  const denied = [NARROW_DENIED, "NOBODY"] as const;
  const privileged = [NARROW_PRIVILEGED, "PRIV"] as const;
  switch (access) {
    case "HOOK":
    case "TEXT":
      return [[NARROW_MIDDLE, "XS_PRIV"], privileged, denied];
    case "TARGET":
      return [[NARROW_MIDDLE, "DM_PRIV"], privileged, denied];
    case "DM_PRIV":
    case "XS_PRIV":
      return [privileged, denied];
    case "PRIV":
      return [denied];
    case "ABSENT":
      return [];
  }
};

describe("policy, walked: every operation, caller and target", () => {
  for (const [index, operation] of operations.entries()) {
    const name = names[index]!;
    it(`H01: ${name} is ${operation.access} and does what the table says`, () => {
      walk(operation, name, operation.access, TARGETS);
    });
  }
});

describe("policy, narrowed and walked: every operation, step, caller and target", () => {
  for (const [index, operation] of operations.entries()) {
    const name = names[index]!;
    for (const [cell, access] of stepsFrom(operation.access)) {
      it(`${name}, made ${access}, is refused to all others`, () => {
        const narrowing = new Uint8Array(OPERATION_COUNT_MAX);
        narrowing[index] = cell;
        walk(operation, name, access, ["self", "target"], narrowing);
      });
    }
  }
});
