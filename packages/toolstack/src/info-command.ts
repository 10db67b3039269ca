/**
 * `xl info`: what this machine offers, what is degraded and what would mend it; and what the daemon has, if there is one.
 */
import { XenolithError } from "@xenolith/abi/error";
import { capabilities, machineMemory, vmaCount, vmaCountMax, type Capability } from "@xenolith/sys";
import { type ClientFlags, isDaemonNamed } from "./client/choose-place.ts";
import { connect } from "./client/connection.ts";
import { formatUptime } from "./client/format.ts";
import type { HostView } from "./daemon/api-types.ts";
import { formatSize } from "./quantity.ts";
import { paint, printable, table } from "./terminal.ts";

const COLOURS = { available: "green", degraded: "yellow", missing: "red" } as const;

const row = (capability: Capability): [string, string] => {
  const remedy = capability.remedy === undefined || capability.remedy === "" ? "" : ` (${capability.remedy})`;
  return [capability.name, `${paint(COLOURS[capability.state], capability.state)}: ${capability.detail}${remedy}`];
};

const NO_DAEMON = "none answers: `xl daemon` starts one";

/** What the daemon has, in the words of Xen's xl where it has them; memory in MiB. */
const hostRows = (host: HostView | undefined): readonly [string, string][] => {
  if (host === undefined) return [["daemon", NO_DAEMON]];
  const mib = (bytes: number): string => String(Math.floor(bytes / 2 ** 20));
  return [
    ["daemon", `version ${host.version}, pid ${host.pid}, up ${formatUptime(host.uptimeSeconds)}`],
    ["host", printable(host.hostname)],
    ["nr_cpus", String(host.processors)],
    ["total_memory", mib(host.memoryBytes)],
    ["free_memory", mib(host.memoryFreeBytes)],
    ["outstanding_claims", mib(host.memoryClaimedBytes)],
    ["nr_domains", `${host.domainCount} of ${host.domainCountMax}`],
    ["daemon_mappings", `${host.vmas} in use of ${host.vmaLimit}`],
    ["memory_pressure", host.pressure ?? "not managed"],
  ];
};

/** The daemon's figures; undefined when there is none. */
const askHost = async (flags: ClientFlags): Promise<HostView | undefined> => {
  try {
    return await connect(flags).host();
  } catch (error) {
    if (error instanceof XenolithError && error.code === "DAEMON_UNREACHABLE" && !isDaemonNamed(flags)) return;
    throw error;
  }
};

/** Runs `xl info`. Unless one is named it does not matter whether there is a daemon. */
export const infoCommand = async (flags: ClientFlags): Promise<void> => {
  const [found, daemon] = await Promise.all([capabilities(), askHost(flags)]);
  const memory = machineMemory();
  const mappings = { used: vmaCount(), max: vmaCountMax() };
  if (flags.json === true) {
    const machine = { node: process.version, v8: process.versions.v8, arch: process.arch, memory, mappings };
    process.stdout.write(`${JSON.stringify({ machine, capabilities: found, daemon: daemon ?? null }, null, 2)}\n`);
    return;
  }
  const rows: [string, string][] = [
    ["node", `${process.version} (V8 ${process.versions.v8}, ${process.arch})`],
    ["memory", `${formatSize(memory.totalBytes)}, available ${formatSize(memory.availableBytes)}`],
    ["mappings", `${mappings.used} in use of ${mappings.max}`],
  ];
  process.stdout.write(`${table([...hostRows(daemon), ...rows, ...found.map(row)])}\n`);
};
