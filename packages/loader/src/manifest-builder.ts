import type { CodeFindings } from "./code-rewriter.ts";
import { checkEntryPoints, kindOf } from "./entry-points.ts";
import type { HelperSet } from "./helper-set.ts";
import type { FunctionImport, Image, ImageExport, ImageMemory } from "./manifest.ts";
import { LOADER_FORMAT, RESERVED_PREFIX } from "./manifest.ts";
import type { ModuleShape } from "./module-shape.ts";
import { SectionId } from "./module-shape.ts";
import { findObstacles } from "./obstacles.ts";
import { featureNames } from "./opcodes.ts";
import type { StateExports } from "./state-exports.ts";

/** What the manifest of a rewritten module is made from. */
export interface Rewritten {
  readonly shape: ModuleShape;
  readonly state: StateExports;
  readonly findings: CodeFindings;
  readonly helpers: HelperSet;
  readonly module: Uint8Array;
  readonly isPolled: boolean;
  readonly dropped: readonly string[];
}

/** Puts a rewritten module, its data and its manifest together. */
export function describeImage({ shape, state, findings, helpers, module, isPolled, dropped }: Rewritten): Image {
  const features = shape.features | findings.features;
  const dataSection = shape.section(SectionId.data);
  const data = dataSection === undefined ? new Uint8Array(0) : shape.bytes.slice(dataSection.start, dataSection.end);
  const exports = exportsOf(shape);
  checkEntryPoints(exports);
  const manifest = {
    format: LOADER_FORMAT,
    kind: kindOf(exports),
    originalSizeBytes: shape.bytes.length,
    moduleSizeBytes: module.length,
    memory: memoryOf(shape),
    imports: functionImports(shape),
    refusedImports: refusedImports(shape),
    exports,
    services: helpers.services,
    hasStart: shape.startFunction !== null,
    usesAtomics: findings.usesAtomics,
    isPolled,
    features: featureNames(features),
    replaced: replacedInstructions(helpers),
    segments: shape.segments,
    dataFileOffset: dataSection?.start ?? 0,
    globals: state.globals,
    tables: state.tables,
    droppedSections: dropped,
    obstacles: findObstacles(shape, findings, features),
  };
  return { manifest, module, data };
}

function memoryOf({ memory, exports }: ModuleShape): ImageMemory | null {
  if (memory === null) return null;
  const { minimumPages, maximumPages, shared, importEntry } = memory;
  const exportNames = exports.filter(({ kind }) => kind === "memory").map(({ name }) => name);
  return { minimumPages, maximumPages, shared, imported: importEntry !== null, exportNames };
}

function functionImports(shape: ModuleShape): FunctionImport[] {
  return shape.imports
    .filter(({ kind }) => kind === "function")
    .map(({ module, name, typeIndex }) => ({ module, name, ...shape.signatureOfType(typeIndex) }));
}

function refusedImports(shape: ModuleShape): string[] {
  return shape.imports
    .filter(({ kind }) => kind !== "function" && kind !== "memory")
    .map(({ kind, module, name }) => `${kind} ${module}.${name}`);
}

function exportsOf(shape: ModuleShape): ImageExport[] {
  return shape.exports.map(({ name, kind, index }) => ({
    name,
    kind,
    index,
    signature: kind === "function" ? shape.signatureOf(index) : null,
  }));
}

function replacedInstructions(helpers: HelperSet): Record<string, number> {
  return Object.fromEntries([...helpers.useCounts].map(([name, count]) => [name.slice(RESERVED_PREFIX.length), count]));
}
