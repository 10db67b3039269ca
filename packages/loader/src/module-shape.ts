import { ByteReader } from "./byte-reader.ts";
import type { Signature, ValueType } from "./wasm-type.ts";
import { readType } from "./wasm-type.ts";

/** What every module begins with: magic number and version 1. */
export const MODULE_HEADER: Uint8Array = Uint8Array.of(0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00);

/** The sections of a module, by their ids. */
export const SectionId = {
  custom: 0,
  type: 1,
  import: 2,
  function: 3,
  table: 4,
  memory: 5,
  global: 6,
  export: 7,
  start: 8,
  element: 9,
  code: 10,
  data: 11,
  dataCount: 12,
  tag: 13,
} as const;

/** The order in which sections may stand. Custom sections may stand anywhere. */
export const sectionOrder: readonly number[] = [
  SectionId.type,
  SectionId.import,
  SectionId.function,
  SectionId.table,
  SectionId.memory,
  SectionId.tag,
  SectionId.global,
  SectionId.export,
  SectionId.start,
  SectionId.element,
  SectionId.dataCount,
  SectionId.code,
  SectionId.data,
];

/** The kinds of things that are imported and exported, in the order of their codes. */
export const externalKinds = ["function", "table", "memory", "global", "tag"] as const;
/** One kind of import or export. */
export type ExternalKind = (typeof externalKinds)[number];

/** A section as it stands in the input. */
export interface Section {
  readonly id: number;
  /** Name of a custom section, empty for others. */
  readonly name: string;
  /** Where its content begins and ends. For lists: behind the count. */
  readonly start: number;
  readonly end: number;
  /** Number of entries, for sections that are lists. */
  readonly count: number;
}

export interface Import {
  readonly kind: ExternalKind;
  readonly module: string;
  readonly name: string;
  /** Only for functions. */
  readonly typeIndex: number;
}

export interface Table {
  readonly elementType: ValueType;
  readonly minimum: number;
  readonly maximum: number | null;
  readonly imported: boolean;
}

export interface Global {
  readonly type: ValueType;
  readonly mutable: boolean;
  readonly imported: boolean;
}

/** The one memory as the module declares it, in pages of 64 KiB. */
export interface DeclaredMemory {
  readonly minimumPages: number;
  readonly maximumPages: number | null;
  readonly shared: boolean;
  /** Where its import entry stands, if it is imported. */
  readonly importEntry: {
    readonly start: number;
    readonly end: number;
    readonly module: string;
    readonly name: string;
  } | null;
}

export interface Export {
  readonly name: string;
  readonly kind: ExternalKind;
  readonly index: number;
}

/** A data segment. Offsets and lengths are in bytes. */
export interface DataSegment {
  /** Where it goes in memory; null for a passive one, which `memory.init` copies on demand. */
  readonly address: number | null;
  /** Where its bytes begin in the original module. */
  readonly fileOffset: number;
  readonly length: number;
}

/** Everything about a module that is known before its code is read. */
export class ModuleShape {
  readonly bytes: Uint8Array;
  readonly sections: Section[] = [];
  /** Where each type begins. */
  typeOffsets = new Uint32Array(0);
  readonly imports: Import[] = [];
  /** Type index of each function, imported ones first. */
  functionTypes = new Uint32Array(0);
  importedFunctionCount = 0;
  readonly tables: Table[] = [];
  memory: DeclaredMemory | null = null;
  readonly globals: Global[] = [];
  readonly exports: Export[] = [];
  startFunction: number | null = null;
  tagCount = 0;
  readonly segments: DataSegment[] = [];
  /** Data segments as announced before the code. */
  announcedSegmentCount: number | null = null;
  /** Bits of `featureBits`. */
  features = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** Parameters and results of a type. */
  signatureOfType(typeIndex: number): Signature {
    const reader = new ByteReader(this.bytes, this.typeOffsets[typeIndex]! + 1, this.bytes.length);
    const list = (): ValueType[] => Array.from({ length: reader.u32("type") }, () => readType(reader, "type"));
    return { params: list(), results: list() };
  }

  /** Parameters and results of a function. */
  signatureOf(functionIndex: number): Signature {
    return this.signatureOfType(this.functionTypes[functionIndex]!);
  }

  section(id: number): Section | undefined {
    return this.sections.find((section) => section.id === id);
  }
}
