/**
 * The operator's policy: rules that take operations from domains. The hypervisor's own table says who may do what; a
 * policy can only make that stricter, and of several rules about one domain the strictest counts.
 */
import { XenolithError } from "@xenolith/abi";
import {
  type Access,
  DOMID_RULES_MAX,
  type Hypervisor,
  NARROW_DENIED,
  NARROW_MIDDLE,
  NARROW_PRIVILEGED,
  type Narrowing,
  OPERATION_COUNT_MAX,
  operationNames,
  operations,
} from "@xenolith/core";

/** What an operation can be made to want: a class of the table, or that nobody makes it. */
export type PolicyRequirement = "DM_PRIV" | "XS_PRIV" | "PRIV" | "NOBODY";

/** One rule. */
export interface PolicyRule {
  /** Constants of the interface ("XENMEM_populate_physmap"), or hypercalls with all that they do ("grant_table_op"). */
  readonly operations: readonly string[];
  /** Callers that it is about: names, domids, "*" for every domain but the control domain. */
  readonly domains?: readonly (string | number)[];
  /** Callers by their label. */
  readonly labels?: readonly string[];
  /** What the operations want from now on. */
  readonly require: PolicyRequirement;
}

/** A policy, as it stands in a JSON file. */
export interface PolicyDocument {
  readonly rules: readonly PolicyRule[];
}

const EVERYONE = "*";
const DOMID_MAX = 0x7fef;
const RULE_KEYS: readonly string[] = ["operations", "domains", "labels", "require"];
const REQUIREMENTS: readonly string[] = ["DM_PRIV", "XS_PRIV", "PRIV", "NOBODY"];

/** A policy that was checked. */
export class HostPolicy {
  readonly #everyone = emptyNarrowing();
  readonly #byDomid = new Map<number, Narrowing>();
  readonly #byName = new Map<string, Narrowing>();
  readonly #byLabel = new Map<string, Narrowing>();

  /** @throws XenolithError `CONFIG_INVALID`: it is not a policy, or a rule of it takes nothing. */
  constructor(document: unknown) {
    if (document === undefined) return;
    if (!isRecord(document) || !Array.isArray(document["rules"])) throw invalid("it must be an object with `rules`");
    refuseUnknown(document, ["rules"], "policy");
    const names = operationNames();
    for (const [index, rule] of document["rules"].entries()) this.#add(rule, `rule ${index}`, names);
    if (this.#byDomid.size > DOMID_RULES_MAX)
      throw invalid(`it names ${this.#byDomid.size} domids, the limit is ${DOMID_RULES_MAX}`);
  }

  /** Gives the hypervisor what concerns domains of any name. Before the first domain is created. */
  install(hypervisor: Hypervisor): void {
    hypervisor.domains.narrowing.setDefaults(this.#everyone, this.#byDomid);
  }

  /** What a new domain loses because of its name and label; undefined: nothing. */
  narrowingOf({ name, label }: { readonly name?: string; readonly label?: string }): Narrowing | undefined {
    const byName = name === undefined ? undefined : this.#byName.get(name);
    const byLabel = label === undefined ? undefined : this.#byLabel.get(label);
    if (byName === undefined || byLabel === undefined) return byName ?? byLabel;
    return byName.map((cell, index) => Math.max(cell, byLabel[index]!));
  }

  #add(rule: unknown, where: string, names: readonly string[]): void {
    if (!isRecord(rule)) throw invalid(`${where} is no object`);
    refuseUnknown(rule, RULE_KEYS, where);
    const wanted = rule["require"];
    if (!isRequirement(wanted))
      throw invalid(`${where}: \`require\` is ${text(wanted)}, not one of ${REQUIREMENTS.join(", ")}`);
    const cells = listOf(rule["operations"], `${where}: operations`).flatMap((operation) =>
      cellsOf(operation, wanted, where, names),
    );
    const { domains, labels } = rule;
    if (domains === undefined && labels === undefined) throw invalid(`${where} names neither domains nor labels`);
    const rows = [
      ...(domains === undefined
        ? []
        : listOf(domains, `${where}: domains`).map((one) => this.#rowOfDomain(one, where))),
      ...(labels === undefined ? [] : listOf(labels, `${where}: labels`).map((one) => this.#rowOfLabel(one, where))),
    ];
    for (const row of rows) {
      for (const [index, cell] of cells) row[index] = Math.max(row[index]!, cell);
    }
  }

  #rowOfDomain(domain: unknown, where: string): Narrowing {
    if (domain === EVERYONE) return this.#everyone;
    if (typeof domain === "string" && domain !== "") return rowOf(this.#byName, domain);
    if (typeof domain !== "number" || !Number.isInteger(domain) || domain < 1 || domain > DOMID_MAX)
      throw invalid(`${where}: ${text(domain)} is neither a name nor a domid from 1 to ${DOMID_MAX}`);
    return rowOf(this.#byDomid, domain);
  }

  #rowOfLabel(label: unknown, where: string): Narrowing {
    if (typeof label !== "string" || label === "" || label === EVERYONE)
      throw invalid(`${where}: ${text(label)} is no label`);
    return rowOf(this.#byLabel, label);
  }
}

/** The cells that a rule sets for one operation, or for all of a hypercall that it makes stricter. */
const cellsOf = (
  operation: unknown,
  wanted: PolicyRequirement,
  where: string,
  names: readonly string[],
): readonly (readonly [index: number, cell: number])[] => {
  const isNamed = (index: number): boolean => names[index] === operation || operations[index]!.hypercall === operation;
  const found = [...operations.keys()].filter(isNamed);
  if (found.length === 0) throw invalid(`${where}: there is no operation ${text(operation)}`);
  const cells = found.flatMap((index) => {
    const cell = cellOf(operations[index]!.access, wanted);
    return cell === undefined ? [] : [[index, cell] as const];
  });
  if (cells.length > 0) return cells;
  const { access } = operations[found[0]!]!;
  throw invalid(`${where}: ${text(operation)} wants ${access}, ${wanted} takes nothing from that`);
};

/** What stands for `wanted` in the row of a domain, if that is stricter than what the table says. */
const cellOf = (access: Access, wanted: PolicyRequirement): number | undefined => {
  if (access === "ABSENT") return undefined;
  if (wanted === "NOBODY") return NARROW_DENIED;
  if (access === "PRIV") return undefined;
  if (wanted === "PRIV") return NARROW_PRIVILEGED;
  const isMiddle = wanted === "DM_PRIV" ? access === "TARGET" : access === "HOOK" || access === "TEXT";
  return isMiddle ? NARROW_MIDDLE : undefined;
};

const emptyNarrowing = (): Narrowing => new Uint8Array(OPERATION_COUNT_MAX);

const rowOf = <Key>(rows: Map<Key, Narrowing>, key: Key): Narrowing => {
  const row = rows.get(key) ?? emptyNarrowing();
  rows.set(key, row);
  return row;
};

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const isRequirement = (value: unknown): value is PolicyRequirement =>
  typeof value === "string" && REQUIREMENTS.includes(value);

/** A list with something in it: a rule about nothing is a mistake. */
const listOf = (value: unknown, where: string): readonly unknown[] => {
  if (!Array.isArray(value) || value.length === 0) throw invalid(`${where} must be a list that is not empty`);
  return value;
};

const refuseUnknown = (record: Readonly<Record<string, unknown>>, known: readonly string[], where: string): void => {
  const unknown = Object.keys(record).find((key) => !known.includes(key));
  if (unknown !== undefined) throw invalid(`${where} has ${text(unknown)}, known are ${known.join(", ")}`);
};

const text = (value: unknown): string => JSON.stringify(value) ?? String(value);

const invalid = (reason: string): XenolithError => new XenolithError("CONFIG_INVALID", `policy: ${reason}`);
