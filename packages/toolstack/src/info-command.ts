/**
 * `xl info`: what this machine offers, what is degraded and what would mend it.
 */
import { capabilities, machineMemory, vmaCount, vmaCountMax, type Capability } from "@xenolith/sys";
import { formatSize } from "./quantity.ts";
import { paint, table } from "./terminal.ts";

const COLOURS = { available: "green", degraded: "yellow", missing: "red" } as const;

const row = (capability: Capability): [string, string] => {
  const remedy = capability.remedy === undefined || capability.remedy === "" ? "" : ` (${capability.remedy})`;
  return [capability.name, `${paint(COLOURS[capability.state], capability.state)}: ${capability.detail}${remedy}`];
};

/** Runs `xl info`. */
export const infoCommand = async (options: { readonly json?: boolean }): Promise<void> => {
  const found = await capabilities();
  const memory = machineMemory();
  const mappings = { used: vmaCount(), max: vmaCountMax() };
  if (options.json === true) {
    const machine = { node: process.version, v8: process.versions.v8, arch: process.arch, memory, mappings };
    process.stdout.write(`${JSON.stringify({ machine, capabilities: found }, null, 2)}\n`);
    return;
  }
  const rows: [string, string][] = [
    ["node", `${process.version} (V8 ${process.versions.v8}, ${process.arch})`],
    ["memory", `${formatSize(memory.totalBytes)}, available ${formatSize(memory.availableBytes)}`],
    ["mappings", `${mappings.used} in use of ${mappings.max}`],
  ];
  process.stdout.write(`${table([...rows, ...found.map(row)])}\n`);
};
