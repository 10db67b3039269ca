/**
 * wasi-threads: `thread-spawn` gives the new thread the next vCPU of the domain that nobody uses. Thread ids are vCPU
 * numbers. When the thread's function returns, its vCPU is down and free again.
 */
import { EAGAIN } from "@xenolith/abi";
import {
  bringUp,
  type Cpu,
  type Hypervisor,
  initialiseVcpu,
  VCPU_DOWN,
  VCPU_INITIALISED,
  VCPU_STARTED,
} from "@xenolith/core";
import { type HostTable, VCPU_ENTRY_OWN, VCPU_ENTRY_THREAD } from "./host-table.ts";

/** Asks the control domain for a thread on a free vCPU. Returns its number, or -EAGAIN when all are in use. */
export const spawnThread = (cpu: Cpu, hostTable: HostTable, argument: number): number => {
  const { hypervisor, slot } = cpu;
  const { domains, vcpus } = hypervisor;
  for (let vcpu = 1; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const row = vcpus.index(slot, vcpu);
    if (initialiseVcpu(hypervisor, row, { entry: 0, stack: 0, argument: argument >>> 0 }) !== 0) continue;
    Atomics.store(hostTable.vcpuEntry, row, VCPU_ENTRY_THREAD);
    bringUp(hypervisor, row);
    return vcpu;
  }
  return -EAGAIN;
};

/** The WASI thread on vCPU row `index` has ended: another may be spawned on it. For the control domain. */
export const retireThread = (hypervisor: Hypervisor, hostTable: HostTable, index: number): void => {
  Atomics.store(hostTable.vcpuEntry, index, VCPU_ENTRY_OWN);
  Atomics.or(hypervisor.vcpus.flags, index, VCPU_DOWN);
  Atomics.and(hypervisor.vcpus.flags, index, ~(VCPU_STARTED | VCPU_INITIALISED));
};
