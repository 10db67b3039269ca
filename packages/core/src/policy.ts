/**
 * The checks of the policy (policy-table.ts): one at the door of every hypercall, before it takes a lock, allocates or
 * notes anything, and one for the domain that a guest names in its arguments.
 */
import * as abi from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { DOMAIN_FLAG_PRIVILEGED, DOMAIN_FLAG_XENSTORE } from "./domain-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { policy } from "./policy-table.ts";
import type { Access, HypercallPolicy } from "./policy-table.ts";

const { ESRCH, EPERM } = abi;

/** Whether the domain in `slot` may do everything: dom0 and delegated toolstacks. */
export const isPrivileged = (hypervisor: Hypervisor, slot: number): boolean =>
  (hypervisor.domains.flags[slot]! & DOMAIN_FLAG_PRIVILEGED) !== 0;

/** Whether the domain in `caller` may use an operation of class `access` on the domain in `target`. */
export const mayAct = (hypervisor: Hypervisor, caller: number, target: number, access: Access): boolean => {
  if (access === "ABSENT") return false;
  if (access === "HOOK" || access === "TEXT" || isPrivileged(hypervisor, caller)) return true;
  if (access === "XS_PRIV") return (hypervisor.domains.flags[caller]! & DOMAIN_FLAG_XENSTORE) !== 0;
  if (access === "PRIV") return false;
  if (access === "TARGET" && caller === target) return true;
  return hypervisor.domains.target[caller] === target + 1;
};

/**
 * Slot of the domain that a guest names with `domid` (a 16-bit value; DOMID_SELF is the caller), if the caller may use
 * an operation of class `access` on it. -ESRCH: there is none, -EPERM: the caller may not.
 */
export const resolveDomain = (cpu: Cpu, domid: number, access: Access): number => {
  const { hypervisor } = cpu;
  const slot = domid === abi.DOMID_SELF ? cpu.slot : hypervisor.domains.slotOf(domid);
  if (slot < 0) return -ESRCH;
  return mayAct(hypervisor, cpu.slot, slot, access) ? slot : -EPERM;
};

/** Counts and notes a refusal; returns -EPERM. */
export const countDenied = (cpu: Cpu, number: number, command: number): number => {
  const { domains, platform } = cpu.hypervisor;
  domains.denied[cpu.slot]! += 1;
  domains.trace.note(cpu.slot, "denied", { nowNs: platform.now(), first: number, second: command });
  return -EPERM;
};

/** What the door has to know about an operation. */
const DOOR_OPEN = 0;
const DOOR_PRIVILEGED = 1;
const DOOR_ABSENT = 2;
const DOOR_BY_COMMAND = 3;
const HYPERCALL_COUNT = 64;

const doorOf = (access: Access | undefined): number =>
  access === undefined || access === "ABSENT" ? DOOR_ABSENT : access === "PRIV" ? DOOR_PRIVILEGED : DOOR_OPEN;

/** Numbers and rows are both keyed by name. */
const numbers: ReadonlyMap<string, number> = new Map(
  Object.entries(abi.hypercalls).map(([name, row]) => [name, row.number]),
);
const rows = new Map(Object.entries(policy).map(([name, row]) => [numbers.get(name), row]));
const byNumber: readonly (HypercallPolicy | undefined)[] = Array.from({ length: HYPERCALL_COUNT }, (_, number) =>
  rows.get(number),
);
const doors = Uint8Array.from(byNumber, (row) => (row?.commands === undefined ? doorOf(row?.whole) : DOOR_BY_COMMAND));
const masks = Uint32Array.from(byNumber, (row) => row?.commandMask ?? 0xffff_ffff);
const commandDoors: readonly Uint8Array[] = byNumber.map((row) => {
  const commands = Object.entries(row?.commands ?? {});
  const table = new Uint8Array(Math.max(0, ...commands.map(([command]) => Number(command) + 1))).fill(DOOR_ABSENT);
  for (const [command, access] of commands) table[Number(command)] = doorOf(access);
  return table;
});

/**
 * The check at the door: 0, -ENOSYS: there is no such hypercall or command, -EPERM: it is for privileged domains.
 * Takes no lock and allocates nothing unless it refuses.
 */
export const authorise = (cpu: Cpu, number: number, first: number): number => {
  let door = number < HYPERCALL_COUNT ? doors[number]! : DOOR_ABSENT;
  if (door === DOOR_BY_COMMAND) {
    const command = (first & masks[number]!) >>> 0;
    const table = commandDoors[number]!;
    door = command < table.length ? table[command]! : DOOR_ABSENT;
  }
  if (door === DOOR_OPEN) return 0;
  if (door === DOOR_PRIVILEGED) return isPrivileged(cpu.hypervisor, cpu.slot) ? 0 : countDenied(cpu, number, first);
  noteUnknown(cpu, number, first);
  return -abi.ENOSYS;
};

const noteUnknown = (cpu: Cpu, number: number, command: number): void => {
  const { domains, platform } = cpu.hypervisor;
  domains.trace.note(cpu.slot, "unknown-hypercall", { nowNs: platform.now(), first: number, second: command });
};
