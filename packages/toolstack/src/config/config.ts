/**
 * A domain's configuration: what is written, checked, and what follows from it.
 */
import path from "node:path";
import { XenolithError } from "@xenolith/abi/error";
import type { DomainName, DomainOptions, SharedDirectory } from "@xenolith/host";
import { parseSize } from "../quantity.ts";
import { parseDirectory } from "../run-options.ts";
import { isConfigDocument, isZero, type Problem, problemsOf } from "./check.ts";
import { type ConfigDocument, type EndAction, SECRET_MEMORY_DEFAULT, type Size, WEIGHT_DEFAULT } from "./keys.ts";

/** A checked configuration: plain data that survives JSON, all defaults filled in, sizes in bytes, paths absolute. */
export interface DomainConfig {
  readonly name: string;
  /** Path of the module. */
  readonly kernel: string;
  /** What it starts with and the memory manager gives it when there is enough. */
  readonly memoryBytes: number;
  /** Up to where its target may be raised; at least `memoryBytes`. */
  readonly memoryBytesMax: number;
  /** What the memory manager leaves it; at most `memoryBytes`. */
  readonly memoryBytesMin: number;
  readonly weight: number;
  readonly squeeze: "off" | "zero-pages";
  /** Secret memory that it may have. */
  readonly secretBytesMax: number;
  readonly deviceModelMemoryBytes: number;
  /** Name of the domain whose device model it is. */
  readonly deviceModelFor?: string;
  /** What the operator's policy knows it by, beside its name. */
  readonly label?: string;
  readonly vcpus: number;
  readonly commandLine: string;
  /** argv of a WASI guest, the program's name first. */
  readonly arguments: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly directories: readonly Required<SharedDirectory>[];
  /** Files of the keys that it is given, by description. */
  readonly keys: Readonly<Record<string, string>>;
  readonly onPoweroff: EndAction;
  readonly onReboot: EndAction;
  readonly onCrash: EndAction;
  readonly onWatchdog: EndAction;
  readonly autostart: boolean;
  readonly preemptible: boolean;
}

/** Where a configuration came from. */
export interface ConfigOrigin {
  /** What messages begin with: the path of a file, or what else it is. */
  readonly label: string;
  /** Where relative paths begin. */
  readonly directory: string;
  /** Line of a key, for messages. */
  readonly lineOf?: (path: readonly string[]) => number | undefined;
}

const MEMORY_DEFAULT: Size = 256;
const COMMAND_LINE_BYTES_MAX = 1023;

/**
 * Checks each value of a document, as TOML or JSON gives it.
 *
 * @throws XenolithError `CONFIG_INVALID`: everything that is wrong, one thing a line, with the line where it stands.
 */
export const documentOf = (document: unknown, origin: ConfigOrigin): ConfigDocument => {
  if (!isConfigDocument(document)) throw configError(problemsOf(document), origin);
  return document;
};

/**
 * Checks a document, its values beside each other too, and fills in what it leaves out.
 *
 * @throws XenolithError `CONFIG_INVALID`, as `documentOf`.
 */
export const configOf = (document: unknown, origin: ConfigOrigin): DomainConfig => {
  const checked = documentOf(document, origin);
  const config = fillIn(checked, origin.directory);
  const problems = contradictions(checked, config);
  if (problems.length > 0) throw configError(problems, origin);
  return config;
};

const configError = (problems: readonly Problem[], { label, lineOf }: ConfigOrigin): XenolithError => {
  const lines = problems.map((problem) => {
    const line = lineOf?.(problem.path);
    return { line: line ?? Infinity, text: `${label}${line === undefined ? "" : `:${line}`}: ${problem.message}` };
  });
  const sorted = lines.toSorted((a, b) => (a.line === b.line ? 0 : a.line - b.line));
  return new XenolithError("CONFIG_INVALID", sorted.map(({ text }) => text).join("\n"));
};

const sizeOf = (size: Size): number => (isZero(size) ? 0 : parseSize(String(size)));

const fillIn = (document: ConfigDocument, directory: string): DomainConfig => ({
  name: document.name,
  kernel: path.resolve(directory, document.kernel),
  ...memoryOf(document),
  ...(document.device_model_for === undefined ? {} : { deviceModelFor: document.device_model_for }),
  ...(document.seclabel === undefined ? {} : { label: document.seclabel }),
  vcpus: document.vcpus ?? 1,
  commandLine: commandLineOf(document),
  arguments: [document.kernel, ...(document.args ?? [])],
  environment: { ...document.environment },
  directories: (document.directories ?? []).map((text) => directoryOf(text, directory)),
  keys: Object.fromEntries(
    Object.entries(document.keys ?? {}).map(([name, file]) => [name, path.resolve(directory, file)]),
  ),
  ...endsOf(document),
  autostart: document.autostart ?? false,
  preemptible: document.preemptible ?? false,
});

/** How much memory of which kind, and how it may change. */
const memoryOf = (document: ConfigDocument) => {
  const memory = document.memory ?? document.maxmem ?? MEMORY_DEFAULT;
  return {
    memoryBytes: sizeOf(memory),
    memoryBytesMax: sizeOf(document.maxmem ?? memory),
    memoryBytesMin: sizeOf(document.memory_min ?? memory),
    weight: document.weight ?? WEIGHT_DEFAULT,
    squeeze: document.squeeze ?? "off",
    secretBytesMax: sizeOf(document.secret_memory ?? SECRET_MEMORY_DEFAULT),
    deviceModelMemoryBytes: sizeOf(document.device_model_memory ?? 0),
  };
};

/** What follows each kind of end. */
const endsOf = (document: ConfigDocument) => ({
  onPoweroff: document.on_poweroff ?? "destroy",
  onReboot: document.on_reboot ?? "restart",
  onCrash: document.on_crash ?? "destroy",
  onWatchdog: document.on_watchdog ?? "destroy",
});

const directoryOf = (text: string, from: string): Required<SharedDirectory> => {
  const { host, guest, readOnly } = parseDirectory(text);
  return { host: path.resolve(from, host), guest, readOnly: readOnly === true };
};

const commandLineOf = ({ cmdline, root, extra }: ConfigDocument): string =>
  cmdline ?? [root === undefined ? undefined : `root=${root}`, extra].filter((part) => part !== undefined).join(" ");

/** What is wrong with values beside each other. */
const contradictions = (document: ConfigDocument, config: DomainConfig): readonly Problem[] => {
  const problems: Problem[] = [];
  const refuse = (key: keyof ConfigDocument, message: string): void => void problems.push({ path: [key], message });
  const { memory, maxmem, memory_min: least } = document;
  if (config.memoryBytesMax < config.memoryBytes) {
    refuse("maxmem", `maxmem "${maxmem}" is below memory "${memory}"`);
  }
  if (config.memoryBytesMin > config.memoryBytes) {
    refuse("memory_min", `memory_min "${least}" is above memory "${memory ?? maxmem ?? MEMORY_DEFAULT}"`);
  }
  if (document.cmdline !== undefined && (document.extra ?? document.root) !== undefined) {
    refuse("cmdline", "cmdline stands beside extra or root: give it alone, or those without it");
  }
  const commandLineBytes = Buffer.byteLength(config.commandLine);
  if (commandLineBytes > COMMAND_LINE_BYTES_MAX) {
    refuse("extra", `the command line is ${commandLineBytes} bytes long, the limit is ${COMMAND_LINE_BYTES_MAX}`);
  }
  for (const key of ["on_poweroff", "on_reboot", "on_crash", "on_watchdog"] as const) {
    if (document[key]?.startsWith("coredump-") === true) {
      refuse(key, `${key} is "${document[key]}": not yet, there is no dump of memory; use "preserve" to look at it`);
    }
  }
  return problems;
};

/**
 * What the host creates the domain from: with `memoryBytes`; raising it up to `memoryBytesMax` is for `xl mem-set`.
 * `find` names the domain that a device model is for.
 *
 * @throws XenolithError `DOMAIN_NOT_FOUND`: there is no such domain.
 */
export const domainOptionsOf = (
  config: DomainConfig,
  find: (name: string) => DomainName | undefined = () => undefined,
): DomainOptions => ({
  image: config.kernel,
  name: config.name,
  memoryBytesMax: config.memoryBytes,
  secretBytesMax: config.secretBytesMax,
  deviceModelMemoryBytes: config.deviceModelMemoryBytes,
  vcpus: config.vcpus,
  commandLine: config.commandLine,
  arguments: config.arguments,
  environment: config.environment,
  directories: config.directories,
  preemptible: config.preemptible,
  ...(config.label === undefined ? {} : { label: config.label }),
  ...(config.deviceModelFor === undefined ? {} : { deviceModelFor: targetOf(config, find) }),
});

const targetOf = (
  { name, deviceModelFor }: DomainConfig,
  find: (name: string) => DomainName | undefined,
): DomainName => {
  const target = find(deviceModelFor!);
  if (target !== undefined) return { domid: target.domid, generation: target.generation };
  throw new XenolithError(
    "DOMAIN_NOT_FOUND",
    `${name} is to be the device model of "${deviceModelFor}": there is no such domain`,
  );
};
