/**
 * The options of `xl run`, checked before anything is opened.
 */
import { XenolithError } from "@xenolith/abi/error";
import type { DomainOptions, SharedDirectory } from "@xenolith/host";
import type { KeyFlags } from "./key-options.ts";
import { parseDuration, parseSize } from "./quantity.ts";
import type { SecretFlags } from "./secret-options.ts";

/** Options as the command line gives them. */
export interface RunFlags extends KeyFlags, SecretFlags {
  readonly name?: string;
  readonly memory?: string;
  readonly maxmem?: string;
  readonly vcpus?: string;
  readonly dir: readonly string[];
  readonly env: readonly string[];
  readonly socket?: string;
  readonly xenstoreSocket?: string;
  readonly timeout?: string;
  readonly invoke?: string;
  readonly preemptible?: boolean;
  readonly stats?: boolean;
  readonly json?: boolean;
}

/** What a run is like. */
export interface RunPlan {
  readonly domain: DomainOptions;
  /** Memory that the domain may own once it runs, in bytes; undefined: what it was built with. */
  readonly memoryBytesMax: number | undefined;
  readonly timeoutMs: number | undefined;
  /** Export to call instead of running the program. */
  readonly invoke: string | undefined;
  readonly values: readonly string[];
}

const VCPU_COUNT_MAX = 32;

/** `HOST::GUEST[:ro]`. Fails with CONFIG_INVALID. */
export const parseDirectory = (text: string): SharedDirectory => {
  const match = /^(.+?)::(.+?)(:ro|:rw)?$/.exec(text);
  if (match === null) {
    throw new XenolithError("CONFIG_INVALID", `directory "${text}" is not of the form HOST::GUEST or HOST::GUEST:ro`);
  }
  return { host: match[1]!, guest: match[2]!, readOnly: match[3] === ":ro" };
};

/** `NAME=VALUE` pairs. Fails with CONFIG_INVALID. */
export const parseEnvironment = (pairs: readonly string[]): Record<string, string> => {
  const entries = pairs.map((pair): [string, string] => {
    const at = pair.indexOf("=");
    if (at < 1) throw new XenolithError("CONFIG_INVALID", `variable "${pair}" is not of the form NAME=VALUE`);
    return [pair.slice(0, at), pair.slice(at + 1)];
  });
  return Object.fromEntries(entries);
};

const parseVcpus = (text: string): number => {
  const count = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(count >= 1 && count <= VCPU_COUNT_MAX)) {
    throw new XenolithError(
      "CONFIG_INVALID",
      `vcpus is "${text}", it must be a whole number from 1 to ${VCPU_COUNT_MAX}`,
    );
  }
  return count;
};

const memoryPlan = (flags: RunFlags): { start: number | undefined; most: number | undefined } => {
  const start = flags.memory === undefined ? undefined : parseSize(flags.memory);
  const most = flags.maxmem === undefined ? undefined : parseSize(flags.maxmem);
  if (start !== undefined && most !== undefined && most < start) {
    throw new XenolithError("CONFIG_INVALID", `maxmem "${flags.maxmem}" is below memory "${flags.memory}"`);
  }
  return { start: start ?? most, most };
};

/** Turns flags into a plan. Fails with INVALID_SIZE, INVALID_ARGUMENT or CONFIG_INVALID. */
export const planRun = (image: string, values: readonly string[], flags: RunFlags): RunPlan => {
  const { start, most } = memoryPlan(flags);
  const domain: DomainOptions = {
    image,
    arguments: [image, ...(flags.invoke === undefined ? values : [])],
    environment: parseEnvironment(flags.env),
    directories: flags.dir.map(parseDirectory),
    stdio: { stdin: "inherit", stdout: "inherit", stderr: "inherit" },
    commandLine: values.join(" "),
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.preemptible === undefined ? {} : { preemptible: flags.preemptible }),
    ...(flags.vcpus === undefined ? {} : { vcpus: parseVcpus(flags.vcpus) }),
    ...(start === undefined ? {} : { memoryBytesMax: start }),
  };
  return {
    domain,
    memoryBytesMax: most,
    timeoutMs: flags.timeout === undefined ? undefined : parseDuration(flags.timeout),
    invoke: flags.invoke,
    values,
  };
};
