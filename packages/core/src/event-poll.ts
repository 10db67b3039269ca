/**
 * sched_op(poll): sleeping until one of some ports is pending, masked or not.
 *
 * A vCPU that polls on exactly one port names it in `pollPort`; one that polls on more, or none, is woken by every event
 * of its domain (POLL_ANY_PORT), because only one is remembered. Whoever wakes it takes its bit in `pollMask`.
 */
import { EFAULT, EINVAL, EVTCHNSTAT_closed } from "@xenolith/abi";
import { blockVcpu, cancelBlock, prepareBlock } from "./block.ts";
import type { Cpu } from "./cpu.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import { isPending, isUpcallDeliverable, POLL_ANY_PORT, portEnd } from "./event-delivery.ts";
import { portKind } from "./event-table.ts";
import { refreshTime } from "./system-time.ts";

/** Ports in one list at most. */
export const POLL_PORTS_MAX = 128;
const PORT_BYTES = 4;
/** `look`: nothing yet. */
const NOTHING = 1;

/**
 * Sleeps until a port of the list of `count` ports at guest address `list` is pending, an upcall is deliverable or the
 * absolute `timeoutNs` (0: none) has passed. 0 in all three cases. -EINVAL: too many ports or one that is not open,
 * -EFAULT: the list is not readable. The list stays in the scratch buffer meanwhile.
 */
export const poll = (cpu: Cpu, list: number, count: number, timeoutNs: number): number => {
  if (count > POLL_PORTS_MAX) return -EINVAL;
  if (count > 0 && !cpu.memory.fetch(list, count * PORT_BYTES)) return -EFAULT;
  const deadline = timeoutNs === 0 ? Infinity : timeoutNs;
  for (let hasSlept = false; ; hasSlept = true) {
    const seen = announce(cpu, count);
    const found = look(cpu, count);
    if (found === NOTHING) blockVcpu(cpu, deadline, seen);
    else cancelBlock(cpu);
    const isWoken = withdraw(cpu);
    const now = cpu.hypervisor.platform.now();
    if (found === NOTHING && !isWoken && now < deadline && cpu.slot !== DOM0_SLOT) continue;
    refreshTime(cpu, now);
    return found === NOTHING || hasSlept ? 0 : found;
  }
};

/** Says what the caller waits for, then that it is about to sleep. Returns the wake counter. */
const announce = (cpu: Cpu, count: number): number => {
  const { events, vcpus } = cpu.hypervisor;
  const port = count === 1 ? portOf(cpu, 0) : 0;
  Atomics.store(vcpus.pollPort, cpu.index, port > 0 && port < events.portsPerDomain ? port : POLL_ANY_PORT);
  Atomics.or(events.pollMask, cpu.slot, 1 << cpu.vcpu);
  return prepareBlock(cpu);
};

/** Takes the announcement back; false: nobody had taken it. */
const withdraw = (cpu: Cpu): boolean => {
  const { events, vcpus } = cpu.hypervisor;
  const bit = 1 << cpu.vcpu;
  const before = Atomics.and(events.pollMask, cpu.slot, ~bit);
  Atomics.store(vcpus.pollPort, cpu.index, 0);
  return (before & bit) === 0;
};

/** 0: the caller need not sleep, -EINVAL: a port of the list is not open, NOTHING: it may sleep. */
const look = (cpu: Cpu, count: number): number => {
  const { hypervisor, slot } = cpu;
  if (isUpcallDeliverable(hypervisor, cpu.index)) return 0;
  const end = portEnd(hypervisor, slot);
  for (let at = 0; at < count; at += 1) {
    const port = portOf(cpu, at);
    if (port < 1 || port >= end) return -EINVAL;
    if (portKind(hypervisor.events.load(slot, port)) === EVTCHNSTAT_closed) return -EINVAL;
    if (isPending(hypervisor, slot, port)) return 0;
  }
  return NOTHING;
};

const portOf = (cpu: Cpu, at: number): number => cpu.memory.scratch.getUint32(at * PORT_BYTES, true);
