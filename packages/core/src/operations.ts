/**
 * Every operation of the policy (policy-table.ts) as a number, in the order of the table: what a narrowing is indexed by.
 */
import * as abi from "@xenolith/abi";
import type { HypercallName } from "@xenolith/abi";
import { policy } from "./policy-table.ts";
import type { Access } from "./policy-table.ts";

/** One operation. */
export interface Operation {
  readonly hypercall: HypercallName;
  /** Number of the hypercall. */
  readonly number: number;
  /** Its command, or undefined: the hypercall has none. */
  readonly command: number | undefined;
  readonly access: Access;
}

const commandsOf = (hypercall: HypercallName): readonly Operation[] => {
  const { whole, commands = {} } = policy[hypercall];
  const { number } = abi.hypercalls[hypercall];
  if (whole !== undefined) return [{ hypercall, number, command: undefined, access: whole }];
  return Object.entries(commands).map(([command, access]) => ({ hypercall, number, command: Number(command), access }));
};

const isHypercallName = (name: string): name is HypercallName => Object.hasOwn(policy, name);

/** All operations; the position of one is its index. */
export const operations: readonly Operation[] = Object.keys(policy).filter(isHypercallName).flatMap(commandsOf);

const COMMAND_SPAN = 0x1_0000;
const indexes: ReadonlyMap<number, number> = new Map(
  operations.map(({ number, command }, index) => [number * COMMAND_SPAN + (command ?? 0), index]),
);
const wholes: ReadonlySet<number> = new Set(
  operations.filter(({ command }) => command === undefined).map(({ number }) => number),
);

/** Index of an operation, or -1: there is none. */
export const operationIndex = (number: number, command: number): number => {
  if (wholes.has(number)) return indexes.get(number * COMMAND_SPAN)!;
  return command < COMMAND_SPAN ? (indexes.get(number * COMMAND_SPAN + command) ?? -1) : -1;
};

/** The constants that name the commands of each hypercall. */
const commandNames: Readonly<Partial<Record<HypercallName, RegExp>>> = {
  memory_op: /^XENMEM_(?!resource_)[a-z]/,
  xen_version: /^XENVER_/,
  console_io: /^CONSOLEIO_/,
  grant_table_op: /^GNTTABOP_/,
  vcpu_op: /^VCPUOP_/,
  sched_op: /^SCHEDOP_/,
  event_channel_op: /^EVTCHNOP_/,
  physdev_op: /^PHYSDEVOP_/,
  hvm_op: /^HVMOP_/,
  sysctl: /^XEN_SYSCTL_[a-z]/,
  domctl: /^XEN_DOMCTL_[a-z]/,
  secret_op: /^XENSECRET_[a-z]/,
  key_op: /^XENKEY_[a-z]/,
};

/**
 * Names of all operations, in the order of `operations`: the constant of the public interface that is the command, or the
 * hypercall's own name. Computed anew: only a program that loads a policy wants them.
 */
export const operationNames = (): readonly string[] => {
  const constants = Object.entries(abi).filter((entry): entry is [string, number] => typeof entry[1] === "number");
  return operations.map(({ hypercall, command }) => {
    const pattern = commandNames[hypercall];
    if (command === undefined || pattern === undefined) return hypercall;
    const found = constants.find(([name, value]) => value === command && pattern.test(name));
    return found?.[0] ?? `${hypercall}(${command})`;
  });
};
