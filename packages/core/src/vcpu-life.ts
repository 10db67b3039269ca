/**
 * vCPUs coming up and going down. A vCPU is a thread of the host's: the first time it comes up, the host is asked to
 * start one (`vcpuStartRequests`); later, a vCPU that is down waits at its gate and is let through.
 */
import { EEXIST, EINVAL, SHUTDOWN_poweroff } from "@xenolith/abi";
import { ATTENTION_REQUEST } from "./attention.ts";
import type { Cpu } from "./cpu.ts";
import { shutdownDomain } from "./domain-ops.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import { lockEvents, unlockEvents } from "./event-ports.ts";
import { abandonWait } from "./futex.ts";
import { GATE_DOWN, requestGate, withdrawGate } from "./gate.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { changeRunstate, updateRunstateArea } from "./runstate.ts";
import { abandonServiceCall } from "./service-call.ts";
import { refreshTime } from "./system-time.ts";
import {
  COUNTER_START_REQUESTS,
  VCPU_DOWN,
  VCPU_INITIALISED,
  VCPU_OFFLINE,
  VCPU_RUNNING,
  VCPU_STARTED,
} from "./vcpu-table.ts";
import { wakeVcpu } from "./vcpu-wake.ts";

/** Where a vCPU starts. */
export interface VcpuEntry {
  /** Index of the function in the guest's table. */
  readonly entry: number;
  /** Initial stack pointer. */
  readonly stack: number;
  /** What the function is called with. */
  readonly argument: number;
}

/** A vCPU that needs a thread. */
export interface VcpuStartRequest {
  readonly slot: number;
  readonly vcpu: number;
}

/** Says where vCPU row `index` starts. -EEXIST: said already; of several callers at once, one succeeds. */
export const initialiseVcpu = (hypervisor: Hypervisor, index: number, where: VcpuEntry): number => {
  const { vcpus } = hypervisor;
  const slot = Math.floor(index / vcpus.perDomain);
  lockEvents(hypervisor, slot, slot);
  const isFirst = (Atomics.load(vcpus.flags, index) & VCPU_INITIALISED) === 0;
  if (isFirst) {
    vcpus.entry[index] = where.entry;
    vcpus.stack[index] = where.stack;
    vcpus.argument[index] = where.argument;
    Atomics.or(vcpus.flags, index, VCPU_INITIALISED);
  }
  unlockEvents(hypervisor, slot, slot);
  return isFirst ? 0 : -EEXIST;
};

/** Brings vCPU row `index` up; nothing happens when it is. -EINVAL: nobody said where it starts. */
export const bringUp = (hypervisor: Hypervisor, index: number): number => {
  const { vcpus, platform } = hypervisor;
  if ((Atomics.load(vcpus.flags, index) & VCPU_INITIALISED) === 0) return -EINVAL;
  if ((Atomics.and(vcpus.flags, index, ~VCPU_DOWN) & VCPU_DOWN) === 0) return 0;
  requestVcpuStart(hypervisor, index);
  withdrawGate(vcpus.gate, index, GATE_DOWN, platform);
  // Somebody may have taken it down between the two steps: then it must wait at the gate after all.
  if ((Atomics.load(vcpus.flags, index) & VCPU_DOWN) !== 0) requestGate(vcpus.gate, index, GATE_DOWN);
  return 0;
};

/**
 * Takes vCPU `vcpu` of the domain in `slot` down: it stops at its next entry into the hypervisor. When it was the last
 * that was up, the domain shuts down. Always 0.
 */
export const takeDown = (hypervisor: Hypervisor, slot: number, vcpu: number): number => {
  const { vcpus, platform } = hypervisor;
  const index = vcpus.index(slot, vcpu);
  if ((Atomics.or(vcpus.flags, index, VCPU_DOWN) & VCPU_DOWN) !== 0) return 0;
  if (onlineVcpuCount(hypervisor, slot) === 0) {
    Atomics.and(vcpus.flags, index, ~VCPU_DOWN);
    return shutdownDomain(hypervisor, slot, SHUTDOWN_poweroff);
  }
  if (slot === DOM0_SLOT) return 0;
  requestGate(vcpus.gate, index, GATE_DOWN);
  // Somebody may have brought it up between the two steps: then it must not wait at the gate.
  if ((Atomics.load(vcpus.flags, index) & VCPU_DOWN) === 0) withdrawGate(vcpus.gate, index, GATE_DOWN, platform);
  wakeVcpu(hypervisor, index);
  return 0;
};

/** Whether vCPU row `index` is up. */
export const isUp = (hypervisor: Hypervisor, index: number): boolean =>
  (Atomics.load(hypervisor.vcpus.flags, index) & VCPU_DOWN) === 0;

/** vCPUs of the domain in `slot` that are up. */
export const onlineVcpuCount = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, vcpus } = hypervisor;
  let count = 0;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    if (isUp(hypervisor, vcpus.index(slot, vcpu))) count += 1;
  }
  return count;
};

/** Asks the host, once in the life of vCPU row `index`, to start a thread for it. */
export const requestVcpuStart = (hypervisor: Hypervisor, index: number): void => {
  const { vcpus } = hypervisor;
  if (index < vcpus.perDomain) return;
  if ((Atomics.or(vcpus.flags, index, VCPU_STARTED) & VCPU_STARTED) !== 0) return;
  if (Atomics.exchange(vcpus.startRequest, index, 1) === 0) Atomics.add(vcpus.counters, COUNTER_START_REQUESTS, 1);
  hypervisor.attention.raise(ATTENTION_REQUEST);
};

/** Takes the vCPUs that wait for a thread. For the control domain, on ATTENTION_REQUEST. */
export const vcpuStartRequests = (hypervisor: Hypervisor): VcpuStartRequest[] => {
  const { domains, vcpus } = hypervisor;
  const requests: VcpuStartRequest[] = [];
  if (Atomics.load(vcpus.counters, COUNTER_START_REQUESTS) === 0) return requests;
  for (let slot = DOM0_SLOT + 1; slot < domains.slotCount; slot += 1) {
    for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
      if (takeStartRequest(hypervisor, vcpus.index(slot, vcpu))) requests.push({ slot, vcpu });
    }
  }
  return requests;
};

/** Takes the start request of vCPU row `index`, if there is one. */
export const takeStartRequest = (hypervisor: Hypervisor, index: number): boolean => {
  const { vcpus } = hypervisor;
  if (Atomics.exchange(vcpus.startRequest, index, 0) === 0) return false;
  Atomics.sub(vcpus.counters, COUNTER_START_REQUESTS, 1);
  return true;
};

/** The thread of `cpu` is about to run guest code for the first time. */
export const beginVcpu = (cpu: Cpu): void => {
  const { hypervisor, index } = cpu;
  const now = hypervisor.platform.now();
  changeRunstate(hypervisor, index, { from: VCPU_OFFLINE, to: VCPU_RUNNING }, now);
  refreshTime(cpu, now);
};

/** The thread of vCPU row `index` is gone: it waits for nothing any more, and its state says so. */
export const endVcpu = (hypervisor: Hypervisor, index: number): void => {
  const { events, vcpus } = hypervisor;
  const slot = Math.floor(index / vcpus.perDomain);
  const vcpu = index % vcpus.perDomain;
  abandonWait(hypervisor, slot, vcpu);
  abandonServiceCall(hypervisor, index);
  Atomics.and(events.pollMask, slot, ~(1 << vcpu));
  Atomics.store(vcpus.pollPort, index, 0);
  const from = Atomics.load(vcpus.state, index);
  if (from === VCPU_OFFLINE) return;
  changeRunstate(hypervisor, index, { from, to: VCPU_OFFLINE }, hypervisor.platform.now());
};

/** The caller took itself down: accounts the time at the gate, which `pass` spends there, as offline. */
export const whileOffline = (cpu: Cpu, pass: () => void): void => {
  const { hypervisor, index } = cpu;
  changeRunstate(hypervisor, index, { from: VCPU_RUNNING, to: VCPU_OFFLINE }, hypervisor.platform.now());
  updateRunstateArea(cpu);
  pass();
  const now = hypervisor.platform.now();
  changeRunstate(hypervisor, index, { from: VCPU_OFFLINE, to: VCPU_RUNNING }, now);
  updateRunstateArea(cpu);
  refreshTime(cpu, now);
};
