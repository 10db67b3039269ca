/**
 * What a vCPU spends its time on: accounting, and the copy of it that a guest may register.
 *
 *     VCPU_*        RUNSTATE_*
 *     running       0 running
 *     runnable      1 runnable
 *     blocked       2 blocked
 *     offline       3 offline
 *
 * Source: xen/include/public/vcpu.h.
 */
import {
  RUNSTATE_blocked,
  RUNSTATE_offline,
  RUNSTATE_runnable,
  RUNSTATE_running,
  vcpu_runstate_info,
} from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import type { Hypervisor } from "./hypervisor.ts";

const runstateOf = [RUNSTATE_offline, RUNSTATE_running, RUNSTATE_runnable, RUNSTATE_blocked] as const;
const RUNSTATE_COUNT = 4;
const INFO_BYTES = vcpu_runstate_info.sizeBytes;

/** This thread's buffer for one vcpu_runstate_info. */
const buffer = new Uint8Array(INFO_BYTES);
const view = new DataView(buffer.buffer);

/** RUNSTATE_* of vCPU row `index` now. */
export const runstate = (hypervisor: Hypervisor, index: number): number =>
  runstateOf[Atomics.load(hypervisor.vcpus.state, index)]!;

/** Moves vCPU row `index` from state `from` (which it is accounted for) to `to`, both VCPU_*, at `now`. */
export const changeRunstate = (
  hypervisor: Hypervisor,
  index: number,
  move: { readonly from: number; readonly to: number },
  now: number,
): void => {
  const { vcpus } = hypervisor;
  const spent = now - vcpus.stateSinceNs[index]!;
  if (spent > 0) vcpus.timeInState[index * RUNSTATE_COUNT + runstateOf[move.from]!]! += spent;
  vcpus.stateSinceNs[index] = now;
  Atomics.store(vcpus.state, index, move.to);
};

/**
 * Fills `buffer` with the vcpu_runstate_info of row `index`. With `now`, the time in the present state runs up to it;
 * without, up to the moment at which that state was entered.
 */
const describe = (hypervisor: Hypervisor, index: number, now?: number): void => {
  const { vcpus } = hypervisor;
  const state = runstate(hypervisor, index);
  const since = vcpus.stateSinceNs[index]!;
  vcpu_runstate_info.state.set(view, 0, state);
  vcpu_runstate_info.state_entry_time.set(view, 0, Math.floor(since));
  for (let at = 0; at < RUNSTATE_COUNT; at += 1) {
    const running = now !== undefined && at === state ? Math.max(0, now - since) : 0;
    const spent = vcpus.timeInState[index * RUNSTATE_COUNT + at]! + running;
    vcpu_runstate_info.time.set(view, 0, at, Math.floor(spent));
  }
};

/** Writes the runstate of vCPU row `index` of the caller's domain to `address`. False: not writable. */
export const storeRunstate = (cpu: Cpu, index: number, address: number): boolean => {
  describe(cpu.hypervisor, index, cpu.hypervisor.platform.now());
  return cpu.memory.copyToGuest(address, buffer) === 0;
};

/** Brings the caller's registered runstate area up to date; one that is not writable any more is left alone. */
export const updateRunstateArea = (cpu: Cpu): void => {
  const address = cpu.hypervisor.vcpus.runstateArea[cpu.index]!;
  if (address === 0) return;
  describe(cpu.hypervisor, cpu.index);
  cpu.memory.copyToGuest(address, buffer);
};

/** Nanoseconds that vCPU row `index` spent running or runnable, as far as accounted for. */
export const busyNs = (hypervisor: Hypervisor, index: number): number =>
  hypervisor.vcpus.timeInState[index * RUNSTATE_COUNT + RUNSTATE_running]! +
  hypervisor.vcpus.timeInState[index * RUNSTATE_COUNT + RUNSTATE_runnable]!;
