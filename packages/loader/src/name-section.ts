import { ByteReader } from "./byte-reader.ts";
import { unsigned } from "./assembler.ts";
import { SectionId } from "./module-shape.ts";
import { invalid, tooLarge } from "./refusal.ts";
import { HEADER_BYTES } from "./section-reader.ts";

/** Name of the custom section that holds names. */
export const NAME_SECTION = "name";

/** Parts of the name section. */
const MODULE_NAME = 0;
const FUNCTION_NAMES = 1;
const DATA_SEGMENT_NAMES = 9;
/**
 * Longest name of a function or a module that an image keeps, in bytes. V8 makes strings of names for each frame of a
 * stack trace, at once: a few of many megabytes would end the process for want of heap.
 */
const NAME_BYTES_MAX = 4_096;

interface Part {
  readonly id: number;
  readonly start: number;
  readonly end: number;
}

/** The parts of a name section. Throws if it is malformed. */
function readParts(bytes: Uint8Array, start: number, end: number): Part[] {
  const reader = new ByteReader(bytes, start, end);
  const parts: Part[] = [];
  while (!reader.atEnd) {
    const id = reader.byte("name part");
    const sizeBytes = reader.u32("name part size");
    const partStart = reader.position;
    reader.skip(sizeBytes, "name part");
    parts.push({ id, start: partStart, end: reader.position });
  }
  return parts;
}

/**
 * The content of a name section with `added` function names behind its own, and without names for data segments, which
 * the module no longer has. The added functions have higher indices than all others. Of a section that is malformed or
 * holds a name that is too long nothing is kept: engines read such a section as far as they understand it.
 */
export function extendNames(bytes: Uint8Array, start: number, end: number, added: readonly Uint8Array[]): Uint8Array[] {
  try {
    const parts = readParts(bytes, start, end);
    for (const part of parts) checkNames(new ByteReader(bytes, part.start, part.end), part.id);
    return extendParts(bytes, parts, added);
  } catch {
    return added.length === 0 ? [] : functionNames(added);
  }
}

/** Throws if one of the names that engines show is malformed or too long. */
function checkNames(reader: ByteReader, id: number): void {
  if (id === MODULE_NAME) reader.name("module name", NAME_BYTES_MAX);
  if (id !== FUNCTION_NAMES) return;
  for (let left = reader.u32("function name count"); left > 0; left--) {
    reader.u32("function index");
    const sizeBytes = reader.u32("function name length");
    if (sizeBytes > NAME_BYTES_MAX) tooLarge("function name length", sizeBytes, NAME_BYTES_MAX);
    reader.skip(sizeBytes, "function name");
  }
  if (!reader.atEnd) invalid(reader.position, "function names have bytes after the last one");
}

function extendParts(bytes: Uint8Array, parts: readonly Part[], added: readonly Uint8Array[]): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  let isPending = added.length > 0;
  for (const part of parts) {
    if (isPending && part.id > FUNCTION_NAMES) {
      pieces.push(...functionNames(added));
      isPending = false;
    }
    if (part.id === DATA_SEGMENT_NAMES) continue;
    if (isPending && part.id === FUNCTION_NAMES) {
      const reader = new ByteReader(bytes, part.start, part.end);
      const count = reader.u32("function name count");
      pieces.push(...functionNames(added, { count, entries: bytes.subarray(reader.position, part.end) }));
      isPending = false;
    } else {
      pieces.push(header(part.id, part.end - part.start), bytes.subarray(part.start, part.end));
    }
  }
  if (isPending) pieces.push(...functionNames(added));
  return pieces;
}

const header = (id: number, sizeBytes: number): Uint8Array => Uint8Array.from([id, ...unsigned(sizeBytes)]);

const noNames: { readonly count: number; readonly entries: Uint8Array } = { count: 0, entries: new Uint8Array(0) };

/** The part of a name section that names functions. */
export function functionNames(added: readonly Uint8Array[], present = noNames): Uint8Array[] {
  const count = Uint8Array.from(unsigned(present.count + added.length));
  const sizeBytes = added.reduce((sum, entry) => sum + entry.length, count.length + present.entries.length);
  return [header(FUNCTION_NAMES, sizeBytes), count, present.entries, ...added];
}

/**
 * The name of a function according to the module's name section, or undefined if it has none. Reads the section anew at
 * each call: meant for the rare report of a trap.
 */
export function functionName(module: Uint8Array, functionIndex: number): string | undefined {
  try {
    const section = findNameSection(module);
    if (section === undefined) return undefined;
    const part = readParts(module, section.start, section.end).find(({ id }) => id === FUNCTION_NAMES);
    return part === undefined ? undefined : findName(new ByteReader(module, part.start, part.end), functionIndex);
  } catch {
    return undefined;
  }
}

function findName(reader: ByteReader, functionIndex: number): string | undefined {
  for (let left = reader.u32("function name count"); left > 0; left--) {
    const index = reader.u32("function index");
    if (index === functionIndex) return reader.name("function name", NAME_BYTES_MAX);
    reader.skip(reader.u32("function name length"), "function name");
  }
  return undefined;
}

function findNameSection(module: Uint8Array): { start: number; end: number } | undefined {
  const reader = new ByteReader(module, HEADER_BYTES, module.length);
  while (!reader.atEnd) {
    const id = reader.byte("section id");
    const sizeBytes = reader.u32("section size");
    const section = new ByteReader(module, reader.position, reader.position + sizeBytes);
    reader.skip(sizeBytes, "section");
    if (id === SectionId.custom && section.name("section name", NAME_BYTES_MAX) === NAME_SECTION) {
      return { start: section.position, end: section.end };
    }
  }
  return undefined;
}
