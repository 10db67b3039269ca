/**
 * sched_op: yield, block, poll, shutdown and watchdogs.
 * Source: xen/include/public/sched.h.
 */
import {
  EFAULT,
  ENOSYS,
  EOPNOTSUPP,
  EPERM,
  sched_pin_override,
  sched_poll,
  sched_remote_shutdown,
  sched_shutdown,
  sched_watchdog,
  SCHEDOP_block,
  SCHEDOP_pin_override,
  SCHEDOP_poll,
  SCHEDOP_remote_shutdown,
  SCHEDOP_shutdown,
  SCHEDOP_shutdown_code,
  SCHEDOP_watchdog,
  SCHEDOP_yield,
} from "@xenolith/abi";
import { blockVcpu, cancelBlock, prepareBlock } from "./block.ts";
import type { Cpu, Handler } from "./cpu.ts";
import { recordShutdownCode, shutdownDomain } from "./domain-ops.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import { isUpcallPending, unmaskUpcall } from "./event-delivery.ts";
import { poll } from "./event-poll.ts";
import { resolveDomain } from "./policy.ts";
import { refreshTime } from "./system-time.ts";
import { setWatchdog } from "./watchdog.ts";

/** sched_op(command, arg). */
export const schedOp: Handler = (cpu, command, arg) => {
  switch (command) {
    case SCHEDOP_yield:
      refreshTime(cpu, cpu.hypervisor.platform.now());
      return 0;
    case SCHEDOP_block:
      return block(cpu);
    case SCHEDOP_shutdown:
      return shutdown(cpu, arg);
    case SCHEDOP_poll:
      return pollPorts(cpu, arg);
    case SCHEDOP_remote_shutdown:
      return remoteShutdown(cpu, arg);
    case SCHEDOP_shutdown_code:
      return shutdownCode(cpu, arg);
    case SCHEDOP_watchdog:
      return watchdog(cpu, arg);
    case SCHEDOP_pin_override:
      return pinOverride(cpu, arg);
    default:
      return -ENOSYS;
  }
};

/** Lets upcalls through and sleeps until there is one. May return early; a guest looks anyway. */
const block = (cpu: Cpu): number => {
  unmaskUpcall(cpu.hypervisor, cpu.index);
  for (;;) {
    const seen = prepareBlock(cpu);
    if (isUpcallPending(cpu.hypervisor, cpu.index)) {
      cancelBlock(cpu);
      refreshTime(cpu, cpu.hypervisor.platform.now());
      return 0;
    }
    if (blockVcpu(cpu, Infinity, seen)) return 0;
  }
};

const shutdown = (cpu: Cpu, arg: number): number => {
  const reason = readReason(cpu, arg);
  return reason < 0 ? -EFAULT : shutdownDomain(cpu.hypervisor, cpu.slot, reason);
};

const shutdownCode = (cpu: Cpu, arg: number): number => {
  const reason = readReason(cpu, arg);
  if (reason < 0) return -EFAULT;
  recordShutdownCode(cpu.hypervisor, cpu.slot, reason);
  return 0;
};

const readReason = (cpu: Cpu, arg: number): number => cpu.memory.readU32(arg + sched_shutdown.reason.offset);

const pollPorts = (cpu: Cpu, arg: number): number => {
  const { memory } = cpu;
  if (!memory.fetch(arg, sched_poll.sizeBytes)) return -EFAULT;
  const list = sched_poll.ports.get(memory.scratch, 0);
  const count = sched_poll.nr_ports.get(memory.scratch, 0);
  const timeout = sched_poll.timeout.get(memory.scratch, 0);
  return poll(cpu, list, count, timeout);
};

const remoteShutdown = (cpu: Cpu, arg: number): number => {
  const { memory } = cpu;
  if (!memory.fetch(arg, sched_remote_shutdown.sizeBytes)) return -EFAULT;
  const reason = sched_remote_shutdown.reason.get(memory.scratch, 0);
  const slot = resolveDomain(cpu, sched_remote_shutdown.domain_id.get(memory.scratch, 0), "DM_PRIV");
  return slot < 0 ? slot : shutdownDomain(cpu.hypervisor, slot, reason);
};

const watchdog = (cpu: Cpu, arg: number): number => {
  const { memory } = cpu;
  if (!memory.fetch(arg, sched_watchdog.sizeBytes)) return -EFAULT;
  const id = sched_watchdog.id.get(memory.scratch, 0);
  return setWatchdog(cpu.hypervisor, cpu.slot, id, sched_watchdog.timeout.get(memory.scratch, 0));
};

/** Threads are not pinned here: only taking a pin back, which there is none of, succeeds. */
const pinOverride = (cpu: Cpu, arg: number): number => {
  if (cpu.slot !== DOM0_SLOT) return -EPERM;
  const { memory } = cpu;
  if (!memory.fetch(arg, sched_pin_override.sizeBytes)) return -EFAULT;
  return sched_pin_override.pcpu.get(memory.scratch, 0) < 0 ? 0 : -EOPNOTSUPP;
};
