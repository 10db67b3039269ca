/**
 * The entry of the hypervisor: every hypercall of every guest comes through `hypercall`, in this order: is there stack
 * enough, may this vCPU go on (gate), does the operation exist and may the caller use it (policy), the handler, out of
 * the gate again. Arguments become unsigned here; a handler never sees a negative one.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { consoleIo } from "./console-op.ts";
import type { Cpu, Handler } from "./cpu.ts";
import { crashDomain } from "./domain-ops.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import { authorise } from "./door.ts";
import { domctl } from "./domctl.ts";
import { eventChannelOp } from "./event-channel-op.ts";
import { enterGate, GATE_IN, GATE_INSIDE, GATE_READ, leaveGate } from "./gate.ts";
import { GuestMemory } from "./guest-memory.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { grantTableOp } from "./grant-table-op.ts";
import { hvmOp } from "./hvm-op.ts";
import { memoryOp } from "./memory-op.ts";
import { runBatch } from "./multicall.ts";
import { physdevOp } from "./physdev-op.ts";
import { isQuick, NOT_QUICK, quickCall } from "./quick-call.ts";
import { versionWithoutMemory } from "./quick-version.ts";
import { schedOp } from "./sched-op.ts";
import { serviceCall } from "./service-call.ts";
import { setTimerOp } from "./timers.ts";
import { probeStack } from "./stack-probe.ts";
import { sysctl } from "./sysctl.ts";
import { vcpuOp } from "./vcpu-op.ts";
import { xenVersion } from "./version-op.ts";

/** One past the highest hypercall number. */
export const HYPERCALL_COUNT = 64;

const { EINVAL, ENOSYS } = abi;

/** A list of hypercalls in the guest's memory; see multicall.ts. A list in a list is refused. */
const multicall: Handler = (cpu, list, count) => runBatch(cpu, list, count, dispatchElement);

const handlers: Readonly<Record<number, Handler>> = {
  [abi.__HYPERVISOR_memory_op]: memoryOp,
  [abi.__HYPERVISOR_multicall]: multicall,
  [abi.__HYPERVISOR_set_timer_op]: setTimerOp,
  [abi.__HYPERVISOR_xen_version]: xenVersion,
  [abi.__HYPERVISOR_console_io]: consoleIo,
  [abi.__HYPERVISOR_grant_table_op]: grantTableOp,
  [abi.__HYPERVISOR_vcpu_op]: vcpuOp,
  [abi.__HYPERVISOR_sched_op]: schedOp,
  [abi.__HYPERVISOR_event_channel_op]: eventChannelOp,
  [abi.__HYPERVISOR_physdev_op]: physdevOp,
  [abi.__HYPERVISOR_hvm_op]: hvmOp,
  [abi.__HYPERVISOR_sysctl]: sysctl,
  [abi.__HYPERVISOR_domctl]: domctl,
  [abi.__HYPERVISOR_secret_op]: serviceCall(abi.__HYPERVISOR_secret_op),
  [abi.__HYPERVISOR_key_op]: serviceCall(abi.__HYPERVISOR_key_op),
};

/** Handler of each hypercall number; undefined: -ENOSYS. */
export const hypercallTable: readonly (Handler | undefined)[] = Array.from(
  { length: HYPERCALL_COUNT },
  (_, number) => handlers[number],
);

/**
 * The calling side of vCPU `vcpu` of the domain in `slot`. One per vCPU thread; dom0 has one on the control thread.
 * `fail` is what becomes of an exception inside the hypervisor.
 */
export const createCpu = (
  hypervisor: Hypervisor,
  slot: number,
  vcpu: number,
  fail: (cpu: Cpu, thrown: unknown) => never = endAfterFault,
): Cpu => ({
  hypervisor,
  slot,
  domid: hypervisor.domains.domid[slot]!,
  vcpu,
  index: hypervisor.vcpus.index(slot, vcpu),
  memory: new GuestMemory(hypervisor, slot),
  operation: 0,
  command: 0,
  fail,
});

/**
 * Makes a hypercall as `cpu`. Any number and any arguments are allowed. Returns what the guest gets: a result >= 0 or a
 * negative errno. On a vCPU thread that is to stop it does not return.
 */
export const hypercall = (cpu: Cpu, number: number, a: number, b: number, c: number, d: number, e: number): number => {
  const { domains, vcpus } = cpu.hypervisor;
  // Only calls that the table allows everybody take a short cut past the door: not those of a domain with less rights.
  const isNarrowed = domains.isNarrowed[cpu.slot] !== 0;
  if (number === abi.__HYPERVISOR_xen_version && vcpus.gate[cpu.index] === 0 && !isNarrowed) {
    const answer = versionWithoutMemory(cpu, a, b);
    if (answer !== 0) return answer;
  }
  try {
    if (isQuick(number, a, c) && !isNarrowed && enterReading(cpu)) {
      const answer = quickCall(cpu, number, b >>> 0);
      if (answer !== NOT_QUICK) return leaveReading(cpu, answer);
      stopReading(cpu);
    } else enterHypercall(cpu);
    const result = dispatch(cpu, number >>> 0, a >>> 0, b >>> 0, c >>> 0, d >>> 0, e >>> 0);
    leaveHypercall(cpu);
    return result;
  } catch (thrown) {
    return failInside(cpu, thrown);
  }
};

/** Enters with READ; false: a request is at the gate, nothing has been done. */
const enterReading = (cpu: Cpu): boolean => {
  probeStack();
  const { vcpus, domains, words } = cpu.hypervisor;
  const row = cpu.index * 4;
  const { hypercallsStart, gateEntriesStart } = domains;
  return words.enter(vcpus.gateStart + row, GATE_INSIDE, hypercallsStart + row, gateEntriesStart + row) !== 0;
};

/** Goes on without READ. */
const stopReading = (cpu: Cpu): void => {
  Atomics.and(cpu.hypervisor.vcpus.gate, cpu.index, ~GATE_READ);
};

/** Leaves after `enterReading`, as `leaveHypercall` does. */
const leaveReading = (cpu: Cpu, result: number): number => {
  const { vcpus, words } = cpu.hypervisor;
  const before = words.sub(vcpus.gateStart + cpu.index * 4, GATE_INSIDE);
  if (before !== GATE_INSIDE) meetRequests(cpu);
  return result;
};

/**
 * Enters the hypervisor for one operation: throws the engine's RangeError before anything is done when the stack is
 * nearly full, and parks while the domain is paused. Must be followed by `leaveHypercall`.
 */
export const enterHypercall = (cpu: Cpu): void => {
  probeStack();
  const { vcpus, domains, words, platform } = cpu.hypervisor;
  const row = cpu.index * 4;
  if (words.enter(vcpus.gateStart + row, GATE_IN, domains.hypercallsStart + row, domains.gateEntriesStart + row) !== 0)
    return;
  enterGate(vcpus.gate, cpu.index, platform);
  domains.hypercalls[cpu.index]! += 1;
  domains.gateEntries[cpu.index]! += 1;
};

/** Leaves the hypervisor. A vCPU that is to pause or stop does so here, before it runs guest code again. */
export const leaveHypercall = (cpu: Cpu): void => {
  const { vcpus, words } = cpu.hypervisor;
  const before = words.and(vcpus.gateStart + cpu.index * 4, ~GATE_INSIDE);
  if (before !== GATE_IN) meetRequests(cpu);
};

/** Outside with a request at the gate: tells who waits for that, and parks while it is asked for. */
const meetRequests = (cpu: Cpu): void => {
  const { vcpus, platform } = cpu.hypervisor;
  platform.wake(vcpus.gate, cpu.index);
  enterGate(vcpus.gate, cpu.index, platform);
  leaveGate(vcpus.gate, cpu.index, platform);
};

/**
 * To be called with what was thrown between `enterHypercall` and `leaveHypercall`: by a failed assertion of ours or by
 * the engine. A guest could catch it and go on with its gate and locks held, so its domain ends here. What was thrown
 * outside (by a guest's upcall, by a vCPU that parks in a simulation, for want of stack before anything was done) goes
 * on to the caller.
 */
export const failInside = (cpu: Cpu, thrown: unknown): never => {
  if ((Atomics.load(cpu.hypervisor.vcpus.gate, cpu.index) & GATE_IN) === 0) throw thrown;
  return cpu.fail(cpu, thrown);
};

/** Gives locks and gate back; a guest's domain is crashed, and its vCPU does not come back from the gate. */
function endAfterFault(cpu: Cpu, thrown: unknown): never {
  const { hypervisor, slot } = cpu;
  hypervisor.locks.releaseAll();
  if (slot !== DOM0_SLOT) crashDomain(hypervisor, slot, `fault in a hypercall: ${String(thrown)}`);
  leaveHypercall(cpu);
  throw thrown;
}

/** Checks and makes one hypercall, inside the gate. Arguments are unsigned. */
const dispatch: Dispatch = (cpu, number, a, b, c, d, e) => {
  const refused = authorise(cpu, number, a);
  if (refused !== 0) return refused;
  const handler = hypercallTable[number];
  if (handler === undefined) return -ENOSYS;
  const result = handler(cpu, a, b, c, d, e);
  if (typeof result !== "number") assert.fail("a handler returns a number");
  return result;
};

/** A hypercall that stands in a list. */
const dispatchElement: Dispatch = (cpu, number, a, b, c, d, e) =>
  number === abi.__HYPERVISOR_multicall ? -EINVAL : dispatch(cpu, number, a, b, c, d, e);

/** A hypercall with its number. */
export type Dispatch = (cpu: Cpu, number: number, a: number, b: number, c: number, d: number, e: number) => number;
