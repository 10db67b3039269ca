import { ByteReader } from "./byte-reader.ts";
import type { Limits } from "./limits.ts";
import type { ModuleShape, Section } from "./module-shape.ts";
import { SectionId, sectionOrder } from "./module-shape.ts";
import { invalid, tooLarge, unsupported } from "./refusal.ts";
import type { SectionParser } from "./sections.ts";
import {
  parseData,
  parseDataCount,
  parseElements,
  parseExports,
  parseFunctions,
  parseGlobals,
  parseImports,
  parseMemories,
  parseStart,
  parseTables,
  parseTags,
  parseTypes,
} from "./sections.ts";

export const HEADER_BYTES = 8;
const MAGIC = 0x6d73_6100;
const VERSION = 1;
/** Version and layer of the component model. */
const COMPONENT_VERSION = 0x0001_000d;

interface ListSection {
  readonly what: string;
  readonly limit: keyof Limits | null;
  readonly parse: SectionParser;
}

/** Sections that are lists, apart from the code. */
const lists: ReadonlyMap<number, ListSection> = new Map<number, ListSection>([
  [SectionId.type, { what: "type", limit: "typeCount", parse: parseTypes }],
  [SectionId.import, { what: "import", limit: "importCount", parse: parseImports }],
  [SectionId.function, { what: "function", limit: "functionCount", parse: parseFunctions }],
  [SectionId.table, { what: "table", limit: "tableCount", parse: parseTables }],
  [SectionId.memory, { what: "memory", limit: null, parse: parseMemories }],
  [SectionId.tag, { what: "tag", limit: "tagCount", parse: parseTags }],
  [SectionId.global, { what: "global", limit: "globalCount", parse: parseGlobals }],
  [SectionId.export, { what: "export", limit: "exportCount", parse: parseExports }],
  [SectionId.element, { what: "element segment", limit: "elementSegmentCount", parse: parseElements }],
  [SectionId.data, { what: "data segment", limit: "dataSegmentCount", parse: parseData }],
]);

/** Checks the size and the first eight bytes. */
export function checkHeader(bytes: Uint8Array, limits: Limits): void {
  if (bytes.length > limits.moduleSizeBytes) tooLarge("module size in bytes", bytes.length, limits.moduleSizeBytes);
  if (bytes.length < HEADER_BYTES) invalid(bytes.length, "module ends inside its header");
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (view.getUint32(0, true) !== MAGIC) invalid(0, "not a WebAssembly module: it does not begin with \\0asm");
  const version = view.getUint32(4, true);
  if (version === COMPONENT_VERSION) unsupported("components (the component model) are not supported", 4);
  if (version !== VERSION) invalid(4, `unknown version ${version} of the binary format`);
}

/**
 * Goes through the sections in order, reads them into `shape`, and yields each when it was read. The code section is
 * yielded unread, with its count of bodies: whoever iterates reads it.
 */
export function* readSections(shape: ModuleShape, limits: Limits): Generator<Section> {
  const reader = new ByteReader(shape.bytes, HEADER_BYTES, shape.bytes.length);
  let rank = -1;
  for (let sectionCount = 1; !reader.atEnd; sectionCount++) {
    if (sectionCount > limits.sectionCount) tooLarge("section count", sectionCount, limits.sectionCount);
    const at = reader.position;
    const id = reader.byte("section id");
    const sizeBytes = reader.u32("section size");
    const start = reader.position;
    reader.skip(sizeBytes, "section");
    if (id !== SectionId.custom) rank = checkOrder(id, rank, at);
    const section = readSection(new ByteReader(shape.bytes, start, start + sizeBytes), id, shape, limits);
    shape.sections.push(section);
    yield section;
  }
  checkCounts(shape, reader.position);
}

function checkOrder(id: number, previousRank: number, at: number): number {
  const rank = sectionOrder.indexOf(id);
  if (rank < 0) unsupported(`section ${id} is not supported`, at);
  if (rank <= previousRank) invalid(at, `section ${id} is repeated or out of order`);
  return rank;
}

function readSection(reader: ByteReader, id: number, shape: ModuleShape, limits: Limits): Section {
  let name = "";
  let count = 0;
  if (id === SectionId.custom) name = customName(reader, limits);
  else if (id === SectionId.start) parseStart(reader, shape);
  else if (id === SectionId.dataCount) parseDataCount(reader, shape, limits);
  else count = reader.count(listName(id), listLimit(id, limits));
  const start = reader.position;
  const list = lists.get(id);
  if (list === undefined) {
    const isOpen = id === SectionId.custom || id === SectionId.code;
    if (!isOpen && !reader.atEnd) invalid(start, `section ${id} has bytes after its content`);
  } else {
    list.parse(reader, count, shape, limits);
    if (!reader.atEnd) invalid(reader.position, `${list.what} section has bytes after its last entry`);
  }
  return { id, name, start, end: reader.end, count };
}

const listName = (id: number): string => lists.get(id)?.what ?? "function body";

function listLimit(id: number, limits: Limits): number {
  const list = lists.get(id);
  if (list === undefined) return limits.functionCount;
  return list.limit === null ? 2 ** 32 : limits[list.limit];
}

function customName(reader: ByteReader, limits: Limits): string {
  return reader.name("custom section name", limits.nameSizeBytes);
}

/** Counts that two sections must agree on. */
function checkCounts(shape: ModuleShape, at: number): void {
  const declared = shape.functionTypes.length - shape.importedFunctionCount;
  const bodyCount = shape.section(SectionId.code)?.count ?? 0;
  if (declared !== bodyCount) invalid(at, `${declared} functions are declared, ${bodyCount} have a body`);
  const announced = shape.announcedSegmentCount;
  if (announced !== null && announced !== shape.segments.length) {
    invalid(at, `${announced} data segments are announced, ${shape.segments.length} are there`);
  }
}
