/**
 * Blocking of a vCPU: its thread leaves the gate and sleeps on its own wake counter until somebody wakes it, one of its
 * timers is due or a deadline passes. Dom0 never blocks: its thread serves everybody.
 *
 * To sleep until a condition holds: `prepareBlock`, look at the condition, then `cancelBlock` or `blockVcpu`. Whoever
 * makes the condition true calls `wakeVcpu` afterwards. The steps, every one atomic and sequentially consistent:
 *
 *     sleeper                                         waker
 *     P1  poll only: port, then bit in pollMask       W1  makes the condition true (pending bit, upcall, gate request)
 *     P2  seen = wake                                 W2  poll only: looks at pollMask, takes the bit
 *     P3  state = BLOCKED                             W3  wake + 1
 *     P4  looks at the condition: true, does not sleep  W4  state is BLOCKED: futex wake on `wake`
 *     P5  leaves the gate; looks at the gate
 *     P6  futex wait while wake = seen
 *
 * Why none is lost: suppose that P4 found the condition false. Then P4 was before W1, so W2 is after P1 and finds the bit,
 * W3 is after P2, and W4 is after P3 and finds BLOCKED. If W3 is before P6, wake differs from `seen` and P6 does not sleep;
 * if it is after, the sleeper is in the kernel's queue when W4 wakes it. A poller that is woken for something else looks
 * again from P1. A request to pause, stop or go down is a condition too: P5 looks at it, before P6 as P4 before P6.
 * A second event on a port that is pending wakes nobody: whoever set the bit first has yet to make W2 to W4, or P4 sees it.
 */
import assert from "node:assert/strict";
import type { Cpu } from "./cpu.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import { enterGate, leaveGate } from "./gate.ts";
import { changeRunstate, updateRunstateArea } from "./runstate.ts";
import { refreshTime } from "./system-time.ts";
import { announceTimer, expireTimers, nextTimer } from "./timers.ts";
import { VCPU_BLOCKED, VCPU_RUNNING } from "./vcpu-table.ts";

export { wakeVcpu } from "./vcpu-wake.ts";

/** Announces that the caller may sleep. Returns the wake counter to give to `blockVcpu`. */
export const prepareBlock = (cpu: Cpu): number => {
  const { vcpus } = cpu.hypervisor;
  const seen = Atomics.load(vcpus.wake, cpu.index);
  Atomics.store(vcpus.state, cpu.index, VCPU_BLOCKED);
  return seen;
};

/** Takes the announcement back. */
export const cancelBlock = (cpu: Cpu): void => {
  Atomics.store(cpu.hypervisor.vcpus.state, cpu.index, VCPU_RUNNING);
};

/**
 * Sleeps until the wake counter is no longer `seen` or `deadlineNs` (system time; Infinity: none) has passed. Serves the
 * vCPU's own timers meanwhile, and honours pause and stop requests. Called inside the gate with no lock held. Returns
 * whether it was woken; for dom0 at once.
 */
export const blockVcpu = (cpu: Cpu, deadlineNs: number, seen = prepareBlock(cpu)): boolean => {
  const { hypervisor, index } = cpu;
  const { platform, vcpus } = hypervisor;
  assert(hypervisor.locks.heldCount === 0);
  if (cpu.slot === DOM0_SLOT) {
    cancelBlock(cpu);
    return true;
  }
  let now = platform.now();
  changeRunstate(hypervisor, index, { from: VCPU_RUNNING, to: VCPU_BLOCKED }, now);
  updateRunstateArea(cpu);
  for (;;) {
    expireTimers(hypervisor, index, now);
    if (Atomics.load(vcpus.wake, index) !== seen || now >= deadlineNs) break;
    sleep(cpu, seen, Math.min(deadlineNs, nextTimer(hypervisor, index)) - now);
    now = platform.now();
  }
  const isWoken = Atomics.load(vcpus.wake, index) !== seen;
  changeRunstate(hypervisor, index, { from: VCPU_BLOCKED, to: VCPU_RUNNING }, now);
  updateRunstateArea(cpu);
  refreshTime(cpu, now);
  // From here on its timers are the control domain's business again.
  announceTimer(hypervisor, nextTimer(hypervisor, index));
  return isWoken;
};

const sleep = (cpu: Cpu, seen: number, timeoutNs: number): void => {
  const { platform, vcpus } = cpu.hypervisor;
  leaveGate(vcpus.gate, cpu.index, platform);
  // A request made before `seen` was taken must be met now: nobody will wake the vCPU for it again.
  if (Atomics.load(vcpus.gate, cpu.index) === 0) platform.wait(vcpus.wake, cpu.index, seen, timeoutNs);
  enterGate(vcpus.gate, cpu.index, platform);
};

/** Leaves the hypervisor and enters it again: parks here if that is asked for. No lock may be held. */
export const passGate = (cpu: Cpu): void => {
  const { hypervisor, index } = cpu;
  assert(hypervisor.locks.heldCount === 0);
  if (cpu.slot === DOM0_SLOT) return;
  leaveGate(hypervisor.vcpus.gate, index, hypervisor.platform);
  enterGate(hypervisor.vcpus.gate, index, hypervisor.platform);
};
