/**
 * The checks of the policy (policy-table.ts) that are made behind the door (door.ts): who is privileged, and whether the
 * caller may act on the domain that it names in its arguments.
 */
import * as abi from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { DOM0_SLOT, DOMAIN_FLAG_PRIVILEGED, DOMAIN_FLAG_XENSTORE } from "./domain-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { NARROW_DENIED, NARROW_MIDDLE, NARROW_PRIVILEGED } from "./narrowing-table.ts";
import { operationIndex } from "./operations.ts";
import type { Access } from "./policy-table.ts";

const { ESRCH, EPERM } = abi;

/** Whether the domain in `slot` may do everything: dom0 and delegated toolstacks. */
export const isPrivileged = (hypervisor: Hypervisor, slot: number): boolean =>
  (hypervisor.domains.flags[slot]! & DOMAIN_FLAG_PRIVILEGED) !== 0;

/** Whether the domain in `caller` may use an operation of class `access` on the domain in `target`. */
export const mayAct = (
  hypervisor: Hypervisor,
  caller: number,
  target: number,
  access: Access | typeof NOBODY,
): boolean => {
  if (access === "ABSENT" || access === NOBODY) return false;
  if (access === "HOOK" || access === "TEXT" || isPrivileged(hypervisor, caller)) return true;
  if (access === "XS_PRIV") return (hypervisor.domains.flags[caller]! & DOMAIN_FLAG_XENSTORE) !== 0;
  if (access === "PRIV") return false;
  if (access === "TARGET" && caller === target) return true;
  return hypervisor.domains.target[caller] === target + 1;
};

/** What an operation that the operator's policy denies wants. */
export const NOBODY = "NOBODY";

/** The class that the operation which `cpu` makes wants of it: `access`, or more if the operator's policy says so. */
export const requiredAccess = (cpu: Cpu, access: Access): Access | typeof NOBODY => {
  const { domains } = cpu.hypervisor;
  return domains.isNarrowed[cpu.slot] === 0 ? access : narrowedAccess(cpu, access);
};

const narrowedAccess = (cpu: Cpu, access: Access): Access | typeof NOBODY => {
  const operation = operationIndex(cpu.operation, cpu.command);
  const cell = operation < 0 ? 0 : cpu.hypervisor.domains.narrowing.of(cpu.slot, operation);
  if (cell === NARROW_DENIED) return NOBODY;
  if (cell === NARROW_PRIVILEGED) return "PRIV";
  if (cell !== NARROW_MIDDLE) return access;
  return access === "TARGET" ? "DM_PRIV" : access === "HOOK" || access === "TEXT" ? "XS_PRIV" : access;
};

/**
 * Whether the caller would act on dom0 without being dom0. Nobody may, however privileged: its pages, ports and
 * parameters are those of the process that everything runs in.
 */
export const isDom0sOwn = (cpu: Cpu, slot: number): boolean => slot === DOM0_SLOT && cpu.slot !== DOM0_SLOT;

/**
 * Slot of the domain that a guest names with `domid` (a 16-bit value; DOMID_SELF is the caller), if the caller may use
 * an operation of class `access` on it. -ESRCH: there is none, -EPERM: the caller may not, or (TARGET, DM_PRIV)
 * it is dom0 and not the caller.
 */
export const resolveDomain = (cpu: Cpu, domid: number, access: Access): number => {
  const { hypervisor } = cpu;
  const slot = domid === abi.DOMID_SELF ? cpu.slot : hypervisor.domains.slotOf(domid);
  if (slot < 0) return -ESRCH;
  const isOthers = access !== "PRIV" && isDom0sOwn(cpu, slot);
  const isPermitted = !isOthers && mayAct(hypervisor, cpu.slot, slot, requiredAccess(cpu, access));
  return isPermitted ? slot : countDenied(cpu);
};

/** Counts and notes that the operation which `cpu` makes was refused; returns -EPERM. */
export const countDenied = (cpu: Cpu): number => {
  const { domains, platform } = cpu.hypervisor;
  Atomics.add(domains.denied, cpu.slot, 1);
  domains.trace.note(cpu.slot, "denied", { nowNs: platform.now(), first: cpu.operation, second: cpu.command });
  return -EPERM;
};
