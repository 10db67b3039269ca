/**
 * What the loader accepts at most. Every list that a module can make long has a limit here, checked before anything is
 * allocated for it. The defaults are V8's own limits or below them.
 * Source: https://webassembly.github.io/spec/js-api/#limits
 */
export interface Limits {
  /** Bytes of the module as given. */
  readonly moduleSizeBytes: number;
  /** Bytes of the module after rewriting. */
  readonly outputSizeBytes: number;
  readonly typeCount: number;
  /** Imports of every kind together. */
  readonly importCount: number;
  /** Functions, imported ones included. */
  readonly functionCount: number;
  /** Bytes of one function body after rewriting. */
  readonly bodySizeBytes: number;
  /** Parameters excluded. */
  readonly localCount: number;
  readonly tableCount: number;
  /**
   * Entries of all tables together: what they have at first, and what they may grow to. V8 keeps a table in a few pieces
   * on a thread's JavaScript heap, up to 32 bytes for each entry; one allocation that goes 16 MiB over the heap's limit
   * ends the process instead of the thread. The largest published program that was looked at has 37,270 entries.
   */
  readonly tableEntryCount: number;
  readonly globalCount: number;
  readonly tagCount: number;
  readonly exportCount: number;
  readonly elementSegmentCount: number;
  readonly dataSegmentCount: number;
  /** Sections of every kind, custom ones included. */
  readonly sectionCount: number;
  /** Bytes of one import or export name in UTF-8. */
  readonly nameSizeBytes: number;
}

const MIB = 2 ** 20;

/** The limits that apply when the caller names none. */
export const defaultLimits: Limits = {
  moduleSizeBytes: 512 * MIB,
  outputSizeBytes: 640 * MIB,
  typeCount: 1_000_000,
  importCount: 100_000,
  functionCount: 1_000_000,
  // Compiling one function cannot be interrupted, and stopping its guest waits for it. The largest body of the published
  // modules in the tests has 318,398 bytes; V8 itself allows 7,654,321.
  bodySizeBytes: 2 * MIB,
  localCount: 50_000,
  tableCount: 1_000,
  tableEntryCount: 250_000,
  globalCount: 100_000,
  tagCount: 100_000,
  exportCount: 100_000,
  elementSegmentCount: 1_000_000,
  dataSegmentCount: 100_000,
  sectionCount: 10_000,
  nameSizeBytes: 100_000,
};
