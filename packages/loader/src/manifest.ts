import type { DataSegment, ExternalKind } from "./module-shape.ts";
import type { Feature } from "./opcodes.ts";
import type { ServiceName } from "./services.ts";
import type { Signature, ValueType } from "./wasm-type.ts";

/** Changes whenever the loader's output for the same input changes: part of the cache key. */
export const LOADER_FORMAT = 2;

/** Namespace and name of the one memory that every image imports. */
export const MEMORY_IMPORT = { module: "xen", name: "memory" } as const;
/** Exported name of what was the start function. */
export const START_EXPORT = "xenolith.start";
/** All names that the loader adds begin with this. */
export const RESERVED_PREFIX = "xenolith.";

/** How the host runs an image: told apart by what it exports. */
export type ImageKind = "command" | "reactor" | "xen";

/** A function that the image imports. */
export interface FunctionImport extends Signature {
  readonly module: string;
  readonly name: string;
}

/** Something that the original module exports; the signature is there for functions. */
export interface ImageExport {
  readonly name: string;
  readonly kind: ExternalKind;
  readonly index: number;
  readonly signature: Signature | null;
}

/** What the module declared about its memory, in pages of 64 KiB. The image itself declares 0 to 65,536, shared. */
export interface ImageMemory {
  readonly minimumPages: number;
  readonly maximumPages: number | null;
  readonly shared: boolean;
  readonly imported: boolean;
  /** Names under which it is exported. */
  readonly exportNames: readonly string[];
}

/** A global or a table that belongs to the state of a running image, and under which name the image exports it. */
export interface ExportedState {
  readonly index: number;
  readonly type: ValueType;
  readonly exportName: string;
}

/** Everything that the host needs to know about an image besides its code and data. Plain data, fit for JSON. */
export interface ImageManifest {
  readonly format: number;
  readonly kind: ImageKind;
  readonly originalSizeBytes: number;
  readonly moduleSizeBytes: number;
  readonly memory: ImageMemory | null;
  readonly imports: readonly FunctionImport[];
  /** Imports that no image may have: globals, tables, tags. Empty in what `paravirtualise` returns. */
  readonly refusedImports: readonly string[];
  readonly exports: readonly ImageExport[];
  /** Services that the host must put into the exported table; if there are none, there is no table. */
  readonly services: readonly ServiceName[];
  /** True when the host must call the export `xenolith.start` after instantiation and before anything else. */
  readonly hasStart: boolean;
  /** True when the image must run in a process that was started with V8's `--no-liftoff`. */
  readonly usesAtomics: boolean;
  readonly isPolled: boolean;
  readonly features: readonly Feature[];
  /** How often each instruction was replaced. */
  readonly replaced: Readonly<Record<string, number>>;
  /** Data segments in the order of their indices; the bytes are in `Image.data`. */
  readonly segments: readonly DataSegment[];
  /** Offset in the original module of the first byte of `Image.data`. */
  readonly dataFileOffset: number;
  readonly globals: readonly ExportedState[];
  readonly tables: readonly ExportedState[];
  /** Custom sections that were dropped because they describe code positions that have moved. */
  readonly droppedSections: readonly string[];
  /** Why a running instance could not be saved or moved; empty if nothing stands in the way. */
  readonly obstacles: readonly string[];
}

/** A bootable image. */
export interface Image {
  readonly manifest: ImageManifest;
  /** The rewritten module. */
  readonly module: Uint8Array;
  /** The data section's content of the original module: the bytes of all segments lie in it. */
  readonly data: Uint8Array;
}

/** The bytes of one data segment. */
export function segmentBytes(image: Image, segment: DataSegment): Uint8Array {
  const start = segment.fileOffset - image.manifest.dataFileOffset;
  return image.data.subarray(start, start + segment.length);
}
