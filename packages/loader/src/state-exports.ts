import type { ExportedState } from "./manifest.ts";
import { RESERVED_PREFIX } from "./manifest.ts";
import type { ExternalKind, ModuleShape } from "./module-shape.ts";
import type { ValueType } from "./wasm-type.ts";

/** Types of globals whose value JavaScript can read and write back. */
const readableTypes: ReadonlySet<ValueType> = new Set<ValueType>(["i32", "i64", "f32", "f64", "funcref", "externref"]);

/** The state of an instance that lies outside its memory, and whether the image must export it anew. */
export interface StateExports {
  readonly globals: readonly ExportedState[];
  readonly tables: readonly ExportedState[];
  /** Indices of those that the original module does not export. */
  readonly addedGlobals: readonly ExportedState[];
  readonly addedTables: readonly ExportedState[];
}

/** Finds mutable globals and tables, under the names that they have or the names that they are given. */
export function stateExports(shape: ModuleShape): StateExports {
  const globalNames = exportNames(shape, "global");
  const tableNames = exportNames(shape, "table");
  const globals: ExportedState[] = [];
  for (const [index, { type, mutable, imported }] of shape.globals.entries()) {
    if (imported || !mutable || !readableTypes.has(type)) continue;
    globals.push({ index, type, exportName: globalNames.get(index) ?? `${RESERVED_PREFIX}global.${index}` });
  }
  const tables: ExportedState[] = [];
  for (const [index, { elementType, imported }] of shape.tables.entries()) {
    if (imported || !readableTypes.has(elementType)) continue;
    tables.push({ index, type: elementType, exportName: tableNames.get(index) ?? `${RESERVED_PREFIX}table.${index}` });
  }
  return {
    globals,
    tables,
    addedGlobals: globals.filter(({ index }) => !globalNames.has(index)),
    addedTables: tables.filter(({ index }) => !tableNames.has(index)),
  };
}

/** One name for each exported thing of a kind. */
function exportNames(shape: ModuleShape, kind: ExternalKind): Map<number, string> {
  const names = new Map<number, string>();
  for (const entry of shape.exports) {
    if (entry.kind === kind && !names.has(entry.index)) names.set(entry.index, entry.name);
  }
  return names;
}
