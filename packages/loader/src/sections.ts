import type { ByteReader } from "./byte-reader.ts";
import { readConstant } from "./const-expression.ts";
import type { Limits } from "./limits.ts";
import type { DataSegment, ExternalKind, ModuleShape, Table } from "./module-shape.ts";
import { externalKinds } from "./module-shape.ts";
import { featureBits } from "./opcodes.ts";
import { invalid, tooLarge, unsupported } from "./refusal.ts";
import { readType } from "./wasm-type.ts";

/** Pages of 64 KiB in the largest memory. */
const MEMORY_PAGES_MAX = 65_536;
/** Parameters of a function, and its results. */
const SIGNATURE_LENGTH_MAX = 1_000;

/** Reads the entries of one section into the shape. Sections that are lists get the reader behind their count. */
export type SectionParser = (reader: ByteReader, count: number, shape: ModuleShape, limits: Limits) => void;

export const parseTypes: SectionParser = (reader, count, shape) => {
  shape.typeOffsets = new Uint32Array(count);
  for (let index = 0; index < count; index++) {
    shape.typeOffsets[index] = reader.position;
    const form = reader.byte("type");
    if (form !== 0x60)
      unsupported(`type form 0x${form.toString(16)} (garbage collection) is not supported`, reader.position - 1);
    skipTypes(reader, "parameter");
    if (skipTypes(reader, "result") > 1) shape.features |= featureBits["multi-value"];
  }
};

function skipTypes(reader: ByteReader, what: string): number {
  const count = reader.count(what, SIGNATURE_LENGTH_MAX);
  for (let left = count; left > 0; left--) readType(reader, what);
  return count;
}

export const parseImports: SectionParser = (reader, count, shape, limits) => {
  const functionTypes: number[] = [];
  for (let index = 0; index < count; index++) {
    const start = reader.position;
    const module = reader.name("import module name", limits.nameSizeBytes);
    const name = reader.name("import name", limits.nameSizeBytes);
    const kind = externalKind(reader);
    const typeIndex = parseImported(reader, kind, shape, { start, module, name });
    shape.imports.push({ kind, module, name, typeIndex });
    if (kind === "function") functionTypes.push(typeIndex);
  }
  shape.importedFunctionCount = functionTypes.length;
  shape.functionTypes = Uint32Array.from(functionTypes);
};

interface ImportEntry {
  readonly start: number;
  readonly module: string;
  readonly name: string;
}

/** The description of one import; returns its type index if it is a function. */
function parseImported(reader: ByteReader, kind: ExternalKind, shape: ModuleShape, entry: ImportEntry): number {
  switch (kind) {
    case "function":
      return typeIndexOf(reader, shape, "imported function type");
    case "table":
      shape.tables.push(readTable(reader, true));
      break;
    case "memory":
      addMemory(reader, shape, entry);
      break;
    case "global":
      addGlobal(reader, shape, true);
      break;
    case "tag":
      readTag(reader, shape);
  }
  return -1;
}

function externalKind(reader: ByteReader): ExternalKind {
  const at = reader.position;
  const code = reader.byte("kind of import or export");
  return externalKinds[code] ?? invalid(at, `unknown kind of import or export ${code}`);
}

function typeIndexOf(reader: ByteReader, shape: ModuleShape, what: string): number {
  const at = reader.position;
  const index = reader.u32(what);
  if (index >= shape.typeOffsets.length) invalid(at, `${what} ${index} of ${shape.typeOffsets.length}`);
  return index;
}

export const parseFunctions: SectionParser = (reader, count, shape, limits) => {
  const imported = shape.importedFunctionCount;
  if (imported + count > limits.functionCount) tooLarge("function count", imported + count, limits.functionCount);
  const functionTypes = new Uint32Array(imported + count);
  functionTypes.set(shape.functionTypes);
  for (let index = 0; index < count; index++)
    functionTypes[imported + index] = typeIndexOf(reader, shape, "function type");
  shape.functionTypes = functionTypes;
};

interface RangeLimits {
  readonly flags: number;
  readonly minimum: number;
  readonly maximum: number | null;
}

/** The size limits of a table or a memory. Flags: 1 has a maximum, 2 shared, 4 64-bit indices, 8 custom page size. */
function readLimits(reader: ByteReader, what: string): RangeLimits {
  const at = reader.position;
  const flags = reader.u32(`${what} limits`);
  if (flags > 15) invalid(at, `unknown flags ${flags} of ${what} limits`);
  if ((flags & 8) !== 0) unsupported("custom page sizes are not supported", at);
  if ((flags & 4) !== 0) unsupported(`memory64 (a ${what} with 64-bit addresses) is not supported`, at);
  const minimum = reader.u32(`${what} minimum`);
  const maximum = (flags & 1) === 0 ? null : reader.u32(`${what} maximum`);
  if (maximum !== null && maximum < minimum) invalid(at, `${what} maximum ${maximum} is below its minimum ${minimum}`);
  return { flags, minimum, maximum };
}

function readTable(reader: ByteReader, imported: boolean): Table {
  const at = reader.position;
  if (reader.bytes[at] === 0x40)
    unsupported("tables with an initial value (typed function references) are not supported", at);
  const elementType = readType(reader, "table element type");
  const { flags, minimum, maximum } = readLimits(reader, "table");
  if (flags > 1) unsupported("shared tables are not supported", at);
  return { elementType, minimum, maximum, imported };
}

export const parseTables: SectionParser = (reader, count, shape, limits) => {
  let entryCount = 0;
  for (let index = 0; index < count; index++) {
    const table = readTable(reader, false);
    entryCount += table.minimum;
    if (entryCount > limits.tableEntryCount) tooLarge("table entry count", entryCount, limits.tableEntryCount);
    shape.tables.push(table);
  }
  if (shape.tables.length > 1) shape.features |= featureBits["reference-types"];
};

export const parseMemories: SectionParser = (reader, count, shape) => {
  for (let index = 0; index < count; index++) addMemory(reader, shape, null);
};

function addMemory(reader: ByteReader, shape: ModuleShape, entry: ImportEntry | null): void {
  const at = reader.position;
  if (shape.memory !== null) unsupported("multi-memory (more than one memory) is not supported", at);
  const { flags, minimum, maximum } = readLimits(reader, "memory");
  if (minimum > MEMORY_PAGES_MAX) invalid(at, `memory minimum is ${minimum} pages, the limit is ${MEMORY_PAGES_MAX}`);
  if (maximum !== null && maximum > MEMORY_PAGES_MAX) {
    invalid(at, `memory maximum is ${maximum} pages, the limit is ${MEMORY_PAGES_MAX}`);
  }
  const shared = (flags & 2) !== 0;
  if (shared) shape.features |= featureBits.threads;
  const importEntry = entry === null ? null : { ...entry, end: reader.position };
  shape.memory = { minimumPages: minimum, maximumPages: maximum, shared, importEntry };
}

function readTag(reader: ByteReader, shape: ModuleShape): void {
  if (reader.byte("tag") !== 0) invalid(reader.position - 1, "unknown kind of tag");
  typeIndexOf(reader, shape, "tag type");
  shape.tagCount++;
}

export const parseTags: SectionParser = (reader, count, shape) => {
  for (let index = 0; index < count; index++) readTag(reader, shape);
};

function addGlobal(reader: ByteReader, shape: ModuleShape, imported: boolean): void {
  const type = readType(reader, "global type");
  const at = reader.position;
  const mutability = reader.byte("global mutability");
  if ((mutability & 2) !== 0) unsupported("shared globals are not supported", at);
  if (mutability > 1) invalid(at, `unknown mutability ${mutability}`);
  shape.globals.push({ type, mutable: mutability === 1, imported });
}

export const parseGlobals: SectionParser = (reader, count, shape) => {
  for (let index = 0; index < count; index++) {
    addGlobal(reader, shape, false);
    shape.features |= readConstant(reader, "global initial value").features;
  }
};

export const parseExports: SectionParser = (reader, count, shape, limits) => {
  for (let index = 0; index < count; index++) {
    const name = reader.name("export name", limits.nameSizeBytes);
    const kind = externalKind(reader);
    const at = reader.position;
    const exported = reader.u32("export index");
    const available = spaceSize(shape, kind);
    if (exported >= available) invalid(at, `export of ${kind} ${exported} of ${available}`);
    shape.exports.push({ name, kind, index: exported });
    if (kind === "global" && shape.globals[exported]!.mutable) shape.features |= featureBits["mutable-globals"];
  }
};

function spaceSize(shape: ModuleShape, kind: ExternalKind): number {
  switch (kind) {
    case "function":
      return shape.functionTypes.length;
    case "table":
      return shape.tables.length;
    case "memory":
      return shape.memory === null ? 0 : 1;
    case "global":
      return shape.globals.length;
    case "tag":
      return shape.tagCount;
  }
}

/** The start section, which is one number and no list. */
export function parseStart(reader: ByteReader, shape: ModuleShape): void {
  const at = reader.position;
  const index = reader.u32("start function");
  if (index >= shape.functionTypes.length) invalid(at, `start function ${index} of ${shape.functionTypes.length}`);
  shape.startFunction = index;
}

/** Element segments stay as they are: tables are the engine's own. Only the features in them are noted. */
export const parseElements: SectionParser = (reader, count, shape) => {
  for (let index = 0; index < count; index++) {
    const at = reader.position;
    const flags = reader.u32("element segment");
    if (flags > 7) invalid(at, `unknown flags ${flags} of an element segment`);
    if (flags !== 0) shape.features |= featureBits["bulk-memory"];
    const isActive = (flags & 1) === 0;
    const hasIndexOrIsDeclared = (flags & 2) !== 0;
    const hasExpressions = (flags & 4) !== 0;
    if (isActive && hasIndexOrIsDeclared) reader.u32("element segment table");
    if (isActive) shape.features |= readConstant(reader, "element segment offset").features;
    if ((flags & 3) !== 0) skipElementType(reader, hasExpressions);
    const entryCount = reader.count("element", 2 ** 32);
    for (let left = entryCount; left > 0; left--) {
      if (hasExpressions) shape.features |= readConstant(reader, "element").features;
      else reader.u32("element");
    }
  }
};

function skipElementType(reader: ByteReader, hasExpressions: boolean): void {
  const at = reader.position;
  if (hasExpressions) readType(reader, "element segment type");
  else if (reader.byte("element segment type") !== 0) invalid(at, "unknown kind of an element segment");
}

/** The data count section, which is one number and no list. */
export function parseDataCount(reader: ByteReader, shape: ModuleShape, limits: Limits): void {
  const count = reader.u32("data segment count");
  if (count > limits.dataSegmentCount) tooLarge("data segment count", count, limits.dataSegmentCount);
  shape.announcedSegmentCount = count;
  shape.features |= featureBits["bulk-memory"];
}

export const parseData: SectionParser = (reader, count, shape) => {
  for (let index = 0; index < count; index++) {
    const at = reader.position;
    const flags = reader.u32("data segment");
    if (flags > 2) invalid(at, `unknown flags ${flags} of a data segment`);
    if (flags === 2 && reader.u32("data segment memory") !== 0)
      unsupported("multi-memory (a data segment for a memory other than 0) is not supported", at);
    const address = flags === 1 ? null : readAddress(reader, shape);
    const length = reader.u32("data segment length");
    const fileOffset = reader.position;
    reader.skip(length, "data segment");
    shape.segments.push(checkedSegment(shape, { address, fileOffset, length }, at));
  }
};

function readAddress(reader: ByteReader, shape: ModuleShape): number {
  const at = reader.position;
  const constant = readConstant(reader, "data segment offset");
  shape.features |= constant.features;
  // A module that imports globals is refused as a whole, with all such imports listed.
  if (constant.global !== null && shape.globals[constant.global]?.imported === true) return 0;
  if (constant.global !== null)
    unsupported(`data segment offset taken from global ${constant.global} is not supported`, at);
  if (constant.i32 === null) invalid(at, "data segment offset is not an i32 number");
  return constant.i32 >>> 0;
}

/** What instantiation would check: an active segment must lie inside the memory's declared minimum. */
function checkedSegment(shape: ModuleShape, segment: DataSegment, at: number): DataSegment {
  if (segment.address === null) return segment;
  if (shape.memory === null) invalid(at, "data segment without a memory");
  const limit = shape.memory.minimumPages * 65_536;
  const end = segment.address + segment.length;
  if (end > limit) invalid(at, `data segment ends at address ${end}, the memory's declared size is ${limit} bytes`);
  return segment;
}
