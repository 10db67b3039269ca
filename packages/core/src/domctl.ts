/**
 * domctl: what a privileged domain does to others. The order of checks is fixed: the structure can be read, its version
 * is ours (-EACCES), the caller may (-EPERM, also for a domain that does not exist, so that nobody can probe), the domain
 * exists (-ESRCH), the operation exists (-ENOSYS) or is one that this hypervisor does not offer (-EOPNOTSUPP).
 *
 * Source: xen/include/public/domctl.h.
 */
import * as abi from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import type { Cpu, Handler } from "./cpu.ts";
import { createFromGuest } from "./domctl-create.ts";
import { domainFlags, writeDomainInfo } from "./domain-info.ts";
import { setTarget } from "./domain-ops.ts";
import { freezeOrThaw, getLimits, setLimits } from "./domctl-memory.ts";
import { setMaxPages, setMaxPagesByModel } from "./memory-limits.ts";
import { beginDestroy, continueDestroy } from "./domain-reap.ts";
import { pauseDomain, resumeDomain, unpauseDomain } from "./domain-run.ts";
import { DOM0_SLOT, DOMAIN_FLAG_PRIVILEGED, DOMAIN_FLAG_XENSTORE } from "./domain-table.ts";
import { policy } from "./policy-table.ts";
import { countDenied, isDom0sOwn, isPrivileged, mayAct, requiredAccess } from "./policy.ts";
import { isUp } from "./vcpu-life.ts";
import { VCPU_BLOCKED, VCPU_RUNNING } from "./vcpu-table.ts";
import { setVirqOwner, VIRQ_KIND_GLOBAL, virqKind } from "./virq.ts";

const { EACCES, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, ESRCH } = abi;
const OP_BYTES = abi.xen_domctl.sizeBytes;
const PAGES_PER_KIB = 1 / 4;
/** Rounds of tear-down that the control domain makes at once; the rest is left to the host's polling. */
const DESTROY_ROUNDS_MAX = 64;
const DESTROY_SLICE = 1 << 16;

/** One operation: the structure is in `cpu.memory.scratch` and goes back to the guest when `writesBack`. */
interface Operation {
  readonly run: (cpu: Cpu, slot: number) => number;
  /** The reply is in the scratch buffer and is copied to the guest. */
  readonly writesBack?: boolean;
  /** It changes nothing: others may look at dom0. */
  readonly isQuery?: boolean;
  /** The interface version that this operation wants, where it is not the usual one. */
  readonly version?: number;
}

const unsupported: Operation = { run: () => -EOPNOTSUPP };
const { u } = abi.xen_domctl;

const pause = (cpu: Cpu, slot: number): number => (slot === cpu.slot ? -EINVAL : pauseDomain(cpu.hypervisor, slot));

const unpause = (cpu: Cpu, slot: number): number => unpauseDomain(cpu.hypervisor, slot);

const resume = (cpu: Cpu, slot: number): number => (slot === cpu.slot ? -EINVAL : resumeDomain(cpu.hypervisor, slot));

/** The control domain tears down what it can at once. Others only ask for it: the host's thread does it. */
const destroy = (cpu: Cpu, slot: number): number => {
  const { hypervisor } = cpu;
  if (slot === cpu.slot) return -EINVAL;
  const result = beginDestroy(hypervisor, slot);
  if (result < 0 || cpu.slot !== DOM0_SLOT) return result;
  for (let round = 0; round < DESTROY_ROUNDS_MAX && !continueDestroy(hypervisor, slot, DESTROY_SLICE);) round += 1;
  return 0;
};

const getInfo = (cpu: Cpu, slot: number): number => {
  const { scratch } = cpu.memory;
  writeDomainInfo(cpu.hypervisor, slot, scratch, u.getdomaininfo.offsetBytes);
  abi.xen_domctl.domain.set(scratch, 0, cpu.hypervisor.domains.domid[slot]!);
  return 0;
};

const setMaxMem = (cpu: Cpu, slot: number): number => {
  const pages = Math.floor(u.max_mem.max_memkb.get(cpu.memory.scratch, 0) * PAGES_PER_KIB);
  const change = isPrivileged(cpu.hypervisor, cpu.slot) ? setMaxPages : setMaxPagesByModel;
  return change(cpu.hypervisor, slot, pages);
};

/** The number of vCPUs is fixed at creation; this only repeats it. */
const setMaxVcpus = (cpu: Cpu, slot: number): number =>
  u.max_vcpus.max.get(cpu.memory.scratch, 0) === cpu.hypervisor.domains.vcpuCount[slot] ? 0 : -EINVAL;

const setUuid = (cpu: Cpu, slot: number): number => {
  const { handle } = cpu.hypervisor.domains;
  const from = u.setdomainhandle.handle.offset;
  for (let i = 0; i < 16; i += 1) handle[slot * 16 + i] = cpu.memory.scratch.getUint8(from + i);
  return 0;
};

const getVcpuInfo = (cpu: Cpu, slot: number): number => {
  const { domains, vcpus } = cpu.hypervisor;
  const { scratch } = cpu.memory;
  const info = u.getvcpuinfo;
  const vcpu = info.vcpu.get(scratch, 0);
  if (vcpu >= domains.vcpuCount[slot]!) return -EINVAL;
  const index = vcpus.index(slot, vcpu);
  const state = Atomics.load(vcpus.state, index);
  info.online.set(scratch, 0, isUp(cpu.hypervisor, index) ? 1 : 0);
  info.blocked.set(scratch, 0, state === VCPU_BLOCKED ? 1 : 0);
  info.running.set(scratch, 0, state === VCPU_RUNNING ? 1 : 0);
  info.cpu_time.set(scratch, 0, Math.floor(vcpus.cpuNs[index]!));
  info.cpu.set(scratch, 0, vcpu);
  return 0;
};

const makeDeviceModel = (cpu: Cpu, slot: number): number => {
  const target = cpu.hypervisor.domains.slotOf(u.set_target.target.get(cpu.memory.scratch, 0));
  if (target < 0) return -ESRCH;
  return slot === cpu.slot ? -EINVAL : setTarget(cpu.hypervisor, slot, target);
};

const setVirqHandler = (cpu: Cpu, slot: number): number => {
  const { hypervisor, memory } = cpu;
  const { locks } = hypervisor;
  const virq = u.set_virq_handler.virq.get(memory.scratch, 0);
  if (virq >= abi.NR_VIRQS || virqKind(virq) !== VIRQ_KIND_GLOBAL) return -EINVAL;
  // The end of a domain gives its virqs back under the same lock.
  const lock = locks.id("domain", slot);
  locks.acquire(lock);
  const isLiving = isAlive(hypervisor, slot);
  if (isLiving) setVirqOwner(hypervisor, virq, slot);
  locks.release(lock);
  return isLiving ? 0 : -ESRCH;
};

const STATE_EXISTS = 1;
const STATE_SHUTDOWN = 2;
const STATE_DYING = 4;
const STATE_DEAD = 8;
const CAP_CONTROL = 1;
const CAP_HARDWARE = 2;
const CAP_XENSTORE = 4;

const getState = (cpu: Cpu, slot: number): number => {
  const { domains } = cpu.hypervisor;
  const { scratch } = cpu.memory;
  const info = u.get_domain_state;
  const flags = domainFlags(cpu.hypervisor, slot);
  const row = domains.flags[slot]!;
  const shutdown = (flags & abi.XEN_DOMINF_shutdown) === 0 ? 0 : STATE_SHUTDOWN;
  const dying = domains.stateOf(slot) === "dying" ? STATE_DYING : 0;
  const dead = domains.stateOf(slot) === "dead" ? STATE_DYING | STATE_DEAD : 0;
  const control = (row & DOMAIN_FLAG_PRIVILEGED) === 0 ? 0 : CAP_CONTROL;
  const hardware = slot === DOM0_SLOT ? CAP_HARDWARE : 0;
  info.state.set(scratch, 0, STATE_EXISTS | shutdown | dying | dead);
  info.caps.set(scratch, 0, control | hardware | ((row & DOMAIN_FLAG_XENSTORE) === 0 ? 0 : CAP_XENSTORE));
  info.pad1.set(scratch, 0, 0);
  info.unique_id.set(scratch, 0, domains.generation[slot]!);
  return 0;
};

/** Every domctl. A command that is not here does not exist. */
export const domctlOperations: Readonly<Record<number, Operation>> = {
  [abi.XEN_DOMCTL_createdomain]: { run: createFromGuest, writesBack: true },
  [abi.XEN_DOMCTL_destroydomain]: { run: destroy },
  [abi.XEN_DOMCTL_pausedomain]: { run: pause },
  [abi.XEN_DOMCTL_unpausedomain]: { run: unpause },
  [abi.XEN_DOMCTL_getdomaininfo]: { isQuery: true, run: getInfo, writesBack: true },
  [abi.XEN_DOMCTL_setvcpuaffinity]: unsupported,
  [abi.XEN_DOMCTL_shadow_op]: unsupported,
  [abi.XEN_DOMCTL_max_mem]: { run: setMaxMem },
  [abi.XEN_DOMCTL_setvcpucontext]: unsupported,
  [abi.XEN_DOMCTL_getvcpucontext]: unsupported,
  [abi.XEN_DOMCTL_getvcpuinfo]: { isQuery: true, run: getVcpuInfo, writesBack: true },
  [abi.XEN_DOMCTL_max_vcpus]: { run: setMaxVcpus },
  [abi.XEN_DOMCTL_scheduler_op]: unsupported,
  [abi.XEN_DOMCTL_setdomainhandle]: { run: setUuid },
  [abi.XEN_DOMCTL_setdebugging]: unsupported,
  [abi.XEN_DOMCTL_irq_permission]: unsupported,
  [abi.XEN_DOMCTL_iomem_permission]: unsupported,
  [abi.XEN_DOMCTL_ioport_permission]: unsupported,
  // A guest here calls imports; a page of hypercall code would be of no use to it.
  [abi.XEN_DOMCTL_hypercall_init]: unsupported,
  [abi.XEN_DOMCTL_settimeoffset]: unsupported,
  [abi.XEN_DOMCTL_getvcpuaffinity]: unsupported,
  [abi.XEN_DOMCTL_resumedomain]: { run: resume },
  [abi.XEN_DOMCTL_sendtrigger]: unsupported,
  [abi.XEN_DOMCTL_subscribe]: unsupported,
  [abi.XEN_DOMCTL_gethvmcontext]: unsupported,
  [abi.XEN_DOMCTL_sethvmcontext]: unsupported,
  [abi.XEN_DOMCTL_assign_device]: unsupported,
  [abi.XEN_DOMCTL_bind_pt_irq]: unsupported,
  [abi.XEN_DOMCTL_memory_mapping]: unsupported,
  [abi.XEN_DOMCTL_ioport_mapping]: unsupported,
  [abi.XEN_DOMCTL_set_target]: { run: makeDeviceModel },
  [abi.XEN_DOMCTL_deassign_device]: unsupported,
  [abi.XEN_DOMCTL_unbind_pt_irq]: unsupported,
  [abi.XEN_DOMCTL_set_virq_handler]: { run: setVirqHandler },
  [abi.XEN_DOMCTL_setvnumainfo]: unsupported,
  [abi.XEN_DOMCTL_soft_reset]: unsupported,
  [abi.XEN_DOMCTL_gsi_permission]: unsupported,
  [abi.XEN_DOMCTL_get_domain_state]: { isQuery: true, run: getState, writesBack: true, version: 0 },
  [abi.XEN_DOMCTL_freeze_memory]: { run: freezeOrThaw, writesBack: true },
  [abi.XEN_DOMCTL_get_memory_limits]: { isQuery: true, run: getLimits, writesBack: true },
  [abi.XEN_DOMCTL_set_memory_limits]: { run: setLimits },
};

/** Whether the caller may make the domctl that it asks for on the domain in `slot`; one that does not exist is PRIV. */
const mayControl = (cpu: Cpu, slot: number): boolean => {
  const { hypervisor } = cpu;
  const access = requiredAccess(cpu, policy.domctl.commands?.[cpu.command] ?? "PRIV");
  // Only a device model's rights depend on the domain. To everybody else a domain that is not there is no secret's end.
  if (access !== "DM_PRIV") return mayAct(hypervisor, cpu.slot, cpu.slot, access);
  return slot < 0 ? isPrivileged(hypervisor, cpu.slot) : mayAct(hypervisor, cpu.slot, slot, access);
};

/** domctl(op). */
export const domctl: Handler = (cpu, op) => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(op, OP_BYTES)) return -EFAULT;
  const command = abi.xen_domctl.cmd.get(memory.scratch, 0);
  const operation = Object.hasOwn(domctlOperations, command) ? domctlOperations[command] : undefined;
  const version = abi.xen_domctl.interface_version.get(memory.scratch, 0);
  if (version !== (operation?.version ?? abi.XEN_DOMCTL_INTERFACE_VERSION)) return -EACCES;
  const isCreate = command === abi.XEN_DOMCTL_createdomain;
  const slot = isCreate ? cpu.slot : hypervisor.domains.slotOf(abi.xen_domctl.domain.get(memory.scratch, 0));
  cpu.command = command;
  if (!mayControl(cpu, slot)) return countDenied(cpu);
  if (operation === undefined) return -ENOSYS;
  if (slot < 0) return -ESRCH;
  if (isDom0sOwn(cpu, slot) && operation.isQuery !== true) return countDenied(cpu);
  if (operation.writesBack === true && !memory.accessible(op, OP_BYTES, true)) return -EFAULT;
  const result = operation.run(cpu, slot);
  if (result < 0 || operation.writesBack !== true) return result;
  return memory.store(op, OP_BYTES) ? result : -EFAULT;
};
