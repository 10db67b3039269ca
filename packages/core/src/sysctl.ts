/**
 * sysctl: what a privileged domain asks of the machine. Checked like domctl: readable, version (-EACCES), caller
 * (-EPERM), operation (-ENOSYS). Source: xen/include/public/sysctl.h.
 */
import * as abi from "@xenolith/abi";
import { freeFramesNow } from "./accounting.ts";
import type { Cpu, Handler } from "./cpu.ts";
import { listDomains, writeDomainInfo } from "./domain-info.ts";
import { policy } from "./policy-table.ts";
import { countDenied, mayAct, requiredAccess } from "./policy.ts";

const { EACCES, EFAULT, ENOSYS } = abi;
const OP_BYTES = abi.xen_sysctl.sizeBytes;
const INFO_BYTES = abi.xen_domctl_getdomaininfo.sizeBytes;
/** Where one getdomaininfo is put together: behind the structure of the call. */
const INFO_SCRATCH = 1024;

/** One operation; the structure is in the scratch buffer and goes back to the guest when it succeeds. */
type Operation = (cpu: Cpu) => number;

const { u } = abi.xen_sysctl;

const physinfo = (cpu: Cpu): number => {
  const { hypervisor, memory } = cpu;
  const { scratch } = memory;
  const info = u.physinfo;
  for (let i = 0; i < info.sizeBytes; i += 4) scratch.setUint32(info.offsetBytes + i, 0, true);
  // Processors belong to the host's kernel: a domain sees one.
  info.threads_per_core.set(scratch, 0, 1);
  info.cores_per_socket.set(scratch, 0, 1);
  info.nr_cpus.set(scratch, 0, 1);
  info.nr_nodes.set(scratch, 0, 1);
  info.capabilities.set(scratch, 0, abi.XEN_SYSCTL_PHYSCAP_hvm | abi.XEN_SYSCTL_PHYSCAP_hap);
  info.total_pages.set(scratch, 0, hypervisor.geometry.machineFrames);
  const { free, claimed } = freeFramesNow(hypervisor);
  info.free_pages.set(scratch, 0, free);
  info.outstanding_pages.set(scratch, 0, claimed);
  info.max_mfn.set(scratch, 0, hypervisor.geometry.machineFrames - 1);
  return 0;
};

/** Fills the caller's array with the domains from `first_domain` on, in ascending order. */
const getDomainInfoList = (cpu: Cpu): number => {
  const { hypervisor, memory } = cpu;
  const { scratch } = memory;
  const list = u.getdomaininfolist;
  const first = list.first_domain.get(scratch, 0);
  const max = list.max_domains.get(scratch, 0);
  const buffer = list.buffer.get(scratch, 0);
  let count = 0;
  for (const slot of listDomains(hypervisor)) {
    if (hypervisor.domains.domid[slot]! < first) continue;
    if (count === max) break;
    writeDomainInfo(hypervisor, slot, scratch, INFO_SCRATCH);
    if (!memory.store(buffer + count * INFO_BYTES, INFO_BYTES, INFO_SCRATCH)) return -EFAULT;
    count += 1;
  }
  list.num_domains.set(scratch, 0, count);
  return 0;
};

/** Every sysctl. A command that is not here does not exist. */
export const sysctlOperations: Readonly<Record<number, Operation>> = {
  [abi.XEN_SYSCTL_physinfo]: physinfo,
  [abi.XEN_SYSCTL_getdomaininfolist]: getDomainInfoList,
};

/** sysctl(op). */
export const sysctl: Handler = (cpu, op) => {
  const { memory, hypervisor } = cpu;
  if (!memory.fetch(op, OP_BYTES)) return -EFAULT;
  const command = abi.xen_sysctl.cmd.get(memory.scratch, 0);
  if (abi.xen_sysctl.interface_version.get(memory.scratch, 0) !== abi.XEN_SYSCTL_INTERFACE_VERSION) return -EACCES;
  const operation = Object.hasOwn(sysctlOperations, command) ? sysctlOperations[command] : undefined;
  cpu.command = command;
  const access = requiredAccess(cpu, policy.sysctl.commands?.[command] ?? "PRIV");
  if (!mayAct(hypervisor, cpu.slot, cpu.slot, access)) return countDenied(cpu);
  if (operation === undefined) return -ENOSYS;
  const result = operation(cpu);
  if (result < 0) return result;
  return memory.store(op, OP_BYTES) ? result : -EFAULT;
};
