/**
 * `xl image inspect`: what a module is, what the loader would change, and what stands in the way.
 */
import { guestInterface, readModule } from "@xenolith/host";
import { formatSignature, inspectImage, type FunctionImport, type Inspection } from "@xenolith/loader";
import { formatSize } from "./quantity.ts";
import { printable, table } from "./terminal.ts";

const KINDS: Readonly<Record<string, string>> = {
  xen: "Xen-style guest (exports xen_start)",
  command: "WASI command (exports _start)",
  reactor: "reactor (exports that the host calls)",
};

/** Imports of one namespace on one line each. */
const listImports = (imports: readonly FunctionImport[]): string =>
  imports.map((entry) => `  ${entry.module}.${entry.name} ${formatSignature(entry)}`).join("\n");

const describeMemory = ({ manifest }: Inspection): string => {
  const { memory } = manifest;
  if (memory === null) return "none";
  const most = memory.maximumPages === null ? "no maximum" : `at most ${formatSize(memory.maximumPages * 65_536)}`;
  return `${formatSize(memory.minimumPages * 65_536)} at start, ${most}${memory.shared ? ", shared" : ""}`;
};

const listReasons = (reasons: readonly string[], none: string): string =>
  reasons.length === 0 ? none : `\n${reasons.map((reason) => `  ${reason}`).join("\n")}`;

/** The inspection for people. */
export const formatInspection = (inspection: Inspection): string => {
  const { manifest } = inspection;
  const replaced = Object.entries(manifest.replaced).filter(([, count]) => count > 0);
  const text = [
    table([
      ["kind", KINDS[manifest.kind] ?? manifest.kind],
      ["size", `${formatSize(manifest.originalSizeBytes)}, rewritten ${formatSize(manifest.moduleSizeBytes)}`],
      ["memory", describeMemory(inspection)],
      ["features", manifest.features.join(", ") || "MVP only"],
      ["atomics", manifest.usesAtomics ? "yes: runs compiled by V8's optimizing tier only" : "no"],
      ["data", `${manifest.segments.length} segments`],
      ["rewritten", replaced.map(([name, count]) => `${name} x${count}`).join(", ") || "nothing"],
    ]),
    `imports${manifest.imports.length === 0 ? "      none" : `\n${listImports(manifest.imports)}`}`,
    `exports\n${manifest.exports.map((entry) => `  ${entry.name} ${entry.signature === null ? entry.kind : formatSignature(entry.signature)}`).join("\n")}`,
    `boots        ${listReasons(inspection.importProblems, "yes").replace(/^\n/, "no:\n")}`,
    `saves, moves ${listReasons(manifest.obstacles, "yes").replace(/^\n/, "no:\n")}`,
  ];
  return printable(text.join("\n"));
};

/** Runs `xl image inspect IMAGE`. */
export const imageInspectCommand = async (path: string, options: { readonly json?: boolean }): Promise<void> => {
  const inspection = inspectImage(await readModule(path), { imports: guestInterface });
  const text = options.json === true ? JSON.stringify(inspection, null, 2) : formatInspection(inspection);
  process.stdout.write(`${text}\n`);
};
