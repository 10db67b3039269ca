/**
 * Beginning and end of what events, timers and vCPU areas keep of a domain.
 */
import { WATCHDOG_COUNT } from "./event-table.ts";
import { clearWaits } from "./futex.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { releasePirqs } from "./pirq.ts";
import { updateSystemTime, updateWallClock } from "./system-time.ts";
import { releaseVcpuAreas } from "./vcpu-areas.ts";
import { takeStartRequest } from "./vcpu-life.ts";
import { VCPU_DOWN, VCPU_INITIALISED, VCPU_OFFLINE } from "./vcpu-table.ts";

const RUNSTATE_COUNT = 4;

/**
 * Prepares the rows of a new domain in `slot`: no ports, no timers, no areas; vCPU 0 is up and knows where it starts,
 * the others are down. Its shared_info and vcpu_infos are in place and zeroed: the time is written into them.
 */
export const createEvents = (hypervisor: Hypervisor, slot: number): void => {
  const { domains, events, platform, vcpus } = hypervisor;
  const now = platform.now();
  clearPorts(hypervisor, slot);
  clearVcpus(hypervisor, slot);
  events.watchdogNs.fill(0, slot * WATCHDOG_COUNT, (slot + 1) * WATCHDOG_COUNT);
  releasePirqs(hypervisor, slot);
  clearWaits(hypervisor, slot);
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    Atomics.store(vcpus.flags, index, vcpu === 0 ? VCPU_INITIALISED : VCPU_DOWN);
    vcpus.stateSinceNs[index] = now;
    updateSystemTime(hypervisor, index, now);
  }
  updateWallClock(hypervisor, slot);
};

const clearPorts = (hypervisor: Hypervisor, slot: number): void => {
  const { events } = hypervisor;
  events.word.fill(0, slot * events.portsPerDomain, (slot + 1) * events.portsPerDomain);
  for (const column of [events.open, events.xenOpen, events.freeHint, events.resetNext, events.pollMask])
    column[slot] = 0;
  events.virqPort.fill(0, events.virqRow(slot, 0, 0), events.virqRow(slot + 1, 0, 0));
};

const clearVcpus = (hypervisor: Hypervisor, slot: number): void => {
  const { vcpus } = hypervisor;
  const from = vcpus.index(slot, 0);
  const end = from + vcpus.perDomain;
  for (let index = from; index < end; index += 1) takeStartRequest(hypervisor, index);
  const columns = [
    vcpus.tag,
    vcpus.pollPort,
    vcpus.runstateArea,
    vcpus.timeArea,
    vcpus.singleshotNs,
    vcpus.periodicNs,
    vcpus.periodicNextNs,
    vcpus.cpuNs,
    vcpus.flags,
    vcpus.entry,
    vcpus.stack,
    vcpus.argument,
    vcpus.infoFrame,
  ];
  for (const column of columns) column.fill(0, from, end);
  vcpus.state.fill(VCPU_OFFLINE, from, end);
  vcpus.timeInState.fill(0, from * RUNSTATE_COUNT, end * RUNSTATE_COUNT);
};

/**
 * Lets go of every frame and row that events keep of the domain in `slot`. Its ports are closed, none of its threads
 * runs, and every vCPU of every domain was outside the hypervisor once since: nobody is about to write to its pages.
 */
export const releaseEvents = (hypervisor: Hypervisor, slot: number): void => {
  releaseVcpuAreas(hypervisor, slot);
  clearVcpus(hypervisor, slot);
  releasePirqs(hypervisor, slot);
  clearWaits(hypervisor, slot);
  const { events, vcpus } = hypervisor;
  events.watchdogNs.fill(0, slot * WATCHDOG_COUNT, (slot + 1) * WATCHDOG_COUNT);
  vcpus.vcpuInfo.fill(0, vcpus.index(slot, 0), vcpus.index(slot + 1, 0));
};
