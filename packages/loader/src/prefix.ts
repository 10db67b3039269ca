import type { Code } from "./assembler.ts";
import { assemble, end, i32Const, nameBytes, unsigned } from "./assembler.ts";
import type { HelperSet } from "./helper-set.ts";
import type { Limits } from "./limits.ts";
import { MEMORY_IMPORT, START_EXPORT } from "./manifest.ts";
import type { ModuleShape, Section, Table } from "./module-shape.ts";
import { SectionId, sectionOrder } from "./module-shape.ts";
import { SERVICE_TABLE_EXPORT, SERVICE_TABLE_SIZE } from "./services.ts";
import type { StateExports } from "./state-exports.ts";
import { typeCode } from "./wasm-type.ts";

/** What is appended to the lists of a module. */
export interface Appended {
  readonly shape: ModuleShape;
  readonly helpers: HelperSet;
  readonly state: StateExports;
  readonly isPolled: boolean;
  readonly limits: Limits;
}

/** What becomes of a custom section: its encoding, or nothing. */
export type CustomEncoder = (section: Section) => readonly Uint8Array[];

/** An encoded section: its parts in order. */
type Parts = readonly Uint8Array[];

/** A section with its id and size in front. */
export function encodeSection(id: number, content: Parts): Uint8Array[] {
  const sizeBytes = content.reduce((sum, part) => sum + part.length, 0);
  return [Uint8Array.from([id, ...unsigned(sizeBytes)]), ...content];
}

/** A list section: the original entries, and more behind them. */
function encodeList(id: number, count: number, original: Parts, added: Parts): Uint8Array[] {
  const total = count + added.length;
  if (total === 0) return [];
  return encodeSection(id, [Uint8Array.from(unsigned(total)), ...original, ...added]);
}

/** Not `push(...more)`: a list may be as long as a module's, and arguments stand on the stack. */
function append(parts: Uint8Array[], more: Parts): void {
  for (const part of more) parts.push(part);
}

/** Sections that are gone from an image, or stand after the code and are not handled here. */
const omitted: ReadonlySet<number> = new Set([SectionId.memory, SectionId.start, SectionId.dataCount, SectionId.data]);

/**
 * The sections before the code, in order, with everything appended: `before` are the original ones that stand there.
 * Sections that the original lacks and that now have entries are put in where they belong.
 */
export function encodePrefix(
  before: readonly Section[],
  appended: Appended,
  encodeCustom: CustomEncoder,
): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const missing = [...listEncoders.keys()].filter((id) => appended.shape.section(id) === undefined);
  const flush = (rankLimit: number): void => {
    while (missing.length > 0 && sectionOrder.indexOf(missing[0]!) < rankLimit)
      append(parts, encodeMissing(missing.shift()!, appended));
  };
  for (const section of before) {
    if (section.id !== SectionId.custom) flush(sectionOrder.indexOf(section.id));
    if (section.id === SectionId.custom) {
      append(parts, encodeCustom(section));
    } else if (!omitted.has(section.id)) {
      append(parts, encodeKnown(section, appended));
    }
  }
  flush(Infinity);
  return parts;
}

interface ListEncoder {
  /** The original entries as they are to be kept, and how many. */
  readonly original: (section: Section, appended: Appended) => { readonly count: number; readonly parts: Parts };
  readonly added: (appended: Appended) => Parts;
}

const unchanged = (section: Section, { shape }: Appended) => ({
  count: section.count,
  parts: [shape.bytes.subarray(section.start, section.end)],
});

const listEncoders: ReadonlyMap<number, ListEncoder> = new Map<number, ListEncoder>([
  [SectionId.type, { original: unchanged, added: ({ helpers }) => helpers.types }],
  [SectionId.import, { original: importsWithoutMemory, added: memoryImport }],
  [SectionId.function, { original: unchanged, added: ({ helpers }) => helpers.typeIndices }],
  [SectionId.table, { original: boundedTables, added: serviceTableEntry }],
  [SectionId.global, { original: unchanged, added: pollCounter }],
  [SectionId.export, { original: unchanged, added: addedExports }],
]);

function encodeKnown(section: Section, appended: Appended): Uint8Array[] {
  const encoder = listEncoders.get(section.id);
  if (encoder === undefined) {
    const { count, parts } = unchanged(section, appended);
    return encodeSection(section.id, [Uint8Array.from(unsigned(count)), ...parts]);
  }
  const { count, parts } = encoder.original(section, appended);
  return encodeList(section.id, count, parts, encoder.added(appended));
}

function encodeMissing(id: number, appended: Appended): Uint8Array[] {
  return encodeList(id, 0, [], listEncoders.get(id)!.added(appended));
}

function importsWithoutMemory(section: Section, { shape }: Appended): { count: number; parts: Parts } {
  const entry = shape.memory?.importEntry ?? null;
  if (entry === null) return { count: section.count, parts: [shape.bytes.subarray(section.start, section.end)] };
  const parts = [shape.bytes.subarray(section.start, entry.start), shape.bytes.subarray(entry.end, section.end)];
  return { count: section.count - 1, parts };
}

/** Kind memory; flags shared with a maximum; minimum 0, maximum 65,536. */
const MEMORY_TYPE: Code = [0x02, 0x03, unsigned(0), unsigned(65_536)];

function memoryImport({ shape }: Appended): Parts {
  if (shape.memory === null) return [];
  return [assemble([...nameBytes(MEMORY_IMPORT.module), ...nameBytes(MEMORY_IMPORT.name), MEMORY_TYPE])];
}

/** The original tables, none of which may grow beyond its share of the limit. */
function boundedTables(section: Section, { shape, limits }: Appended): { count: number; parts: Parts } {
  const share = Math.floor(limits.tableEntryCount / shape.tables.length);
  const own = shape.tables.filter((table) => !table.imported);
  return { count: section.count, parts: own.map((table) => encodeTable(table, Math.max(table.minimum, share))) };
}

function encodeTable(table: Table, maximumLimit: number): Uint8Array {
  const maximum = Math.min(table.maximum ?? maximumLimit, maximumLimit);
  return assemble([typeCode(table.elementType), 0x01, unsigned(table.minimum), unsigned(maximum)]);
}

function serviceTableEntry({ helpers }: Appended): Parts {
  if (helpers.services.length === 0) return [];
  return [assemble([typeCode("funcref"), 0x01, unsigned(SERVICE_TABLE_SIZE), unsigned(SERVICE_TABLE_SIZE)])];
}

/** Starts at 1, so that the first loop turn calls the host, which decides how often it wants to be called. */
function pollCounter({ isPolled }: Appended): Parts {
  return isPolled ? [assemble([typeCode("i32"), 0x01, i32Const(1), end])] : [];
}

function addedExports({ shape, helpers, state }: Appended): Parts {
  const entry = (name: string, kind: number, index: number): Uint8Array =>
    assemble([...nameBytes(name), kind, unsigned(index)]);
  const parts: Uint8Array[] = [];
  if (shape.startFunction !== null) parts.push(entry(START_EXPORT, 0, shape.startFunction));
  if (helpers.services.length > 0) parts.push(entry(SERVICE_TABLE_EXPORT, 1, shape.tables.length));
  for (const { exportName, index } of state.addedTables) parts.push(entry(exportName, 1, index));
  for (const { exportName, index } of state.addedGlobals) parts.push(entry(exportName, 3, index));
  return parts;
}
