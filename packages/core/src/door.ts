/**
 * The door of the hypervisor: the check of the policy (policy-table.ts) that every hypercall meets before it takes a
 * lock, allocates or notes anything.
 */
import * as abi from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import { policy } from "./policy-table.ts";
import type { Access, HypercallPolicy } from "./policy-table.ts";
import { countDenied, isPrivileged, mayAct, requiredAccess } from "./policy.ts";

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
const doorOfRow = (row: HypercallPolicy | undefined): number =>
  row?.isOpen === true ? DOOR_OPEN : row?.commands === undefined ? doorOf(row?.whole) : DOOR_BY_COMMAND;
const doors = Uint8Array.from(byNumber, doorOfRow);
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
  cpu.operation = number;
  cpu.command = first;
  if (door === DOOR_BY_COMMAND) {
    const command = (first & masks[number]!) >>> 0;
    const table = commandDoors[number]!;
    door = command < table.length ? table[command]! : DOOR_ABSENT;
  }
  if (door === DOOR_ABSENT) {
    noteUnknown(cpu, number, first);
    return -abi.ENOSYS;
  }
  if (cpu.hypervisor.domains.isNarrowed[cpu.slot] !== 0) return authoriseNarrowed(cpu, door);
  return door === DOOR_OPEN || isPrivileged(cpu.hypervisor, cpu.slot) ? 0 : countDenied(cpu);
};

/**
 * As above, of a domain that the operator's policy took something from. Where the domain acted upon decides, the handler
 * looks, and answers in the operation's own way; it also looks at the commands that stand in memory.
 */
const authoriseNarrowed = (cpu: Cpu, door: number): number => {
  const { operation } = cpu;
  if (operation === abi.__HYPERVISOR_domctl || operation === abi.__HYPERVISOR_sysctl) return 0;
  const row = byNumber[operation]!;
  cpu.command = (cpu.command & masks[operation]!) >>> 0;
  const listed = row.whole ?? row.commands?.[cpu.command] ?? "HOOK";
  if (door === DOOR_OPEN && (listed === "TARGET" || listed === "DM_PRIV")) return 0;
  const access = requiredAccess(cpu, listed);
  return mayAct(cpu.hypervisor, cpu.slot, cpu.slot, access) ? 0 : countDenied(cpu);
};

const noteUnknown = (cpu: Cpu, number: number, command: number): void => {
  const { domains, platform } = cpu.hypervisor;
  domains.trace.note(cpu.slot, "unknown-hypercall", { nowNs: platform.now(), first: number, second: command });
};
