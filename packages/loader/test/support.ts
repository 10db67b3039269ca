import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

import wabtInit from "wabt";

import type { FunctionImport, Image, ServiceFunctions } from "../src/index.ts";
import { START_EXPORT, bindServices, rewriteModule, segmentBytes } from "../src/index.ts";

type Wabt = Awaited<ReturnType<typeof wabtInit>>;
const wabt: Wabt = await wabtInit();

/** Everything that wabt can assemble, so that refusals are ours and not wabt's. */
const features = {
  threads: true,
  exceptions: true,
  simd: true,
  bulk_memory: true,
  reference_types: true,
  multi_value: true,
  tail_call: true,
  extended_const: true,
  relaxed_simd: true,
  memory64: true,
  multi_memory: true,
  sign_extension: true,
  sat_float_to_int: true,
  mutable_globals: true,
};

/** Assembles a module from its text. */
export function assembleWat(text: string): Uint8Array {
  const module = wabt.parseWat("test.wat", text, features);
  try {
    return module.toBinary({ write_debug_names: true }).buffer;
  } finally {
    module.destroy();
  }
}

/** The text of a module, for golden files. */
export function disassemble(bytes: Uint8Array): string {
  const module = wabt.readWasm(bytes, { readDebugNames: true, ...features });
  try {
    module.applyNames();
    return module.toText({ foldExprs: false, inlineExport: false });
  } finally {
    module.destroy();
  }
}

/** A running instance of a rewritten module with a memory of its own, all of it populated. */
export interface Booted {
  readonly exports: WebAssembly.Exports;
  readonly memory: WebAssembly.Memory;
  /** Bytes that a guest may use, as the services report them. */
  readonly pages: { current: number };
}

/** Services over a memory that is populated throughout: what the module would see on its own. */
export function plainServices(image: Image, memory: WebAssembly.Memory, pages: { current: number }): ServiceFunctions {
  const bytes = new Uint8Array(memory.buffer);
  const maximum = image.manifest.memory?.maximumPages ?? 65_536;
  const dropped = new Set<number>();
  const words = new Int32Array(memory.buffer);
  return {
    memory_size: () => pages.current,
    memory_grow: (delta) => {
      const grown = pages.current + (delta >>> 0);
      if (grown > maximum) return -1;
      const before = pages.current;
      pages.current = grown;
      return before;
    },
    atomic_wait32: (address, expected, timeoutNs) => {
      if (Atomics.load(words, (address >>> 0) / 4) !== expected) return 1;
      return timeoutNs < 0n ? 0 : 2;
    },
    atomic_wait64: (address, expected, timeoutNs) => {
      const longs = new BigInt64Array(memory.buffer);
      if (Atomics.load(longs, (address >>> 0) / 8) !== expected) return 1;
      return timeoutNs < 0n ? 0 : 2;
    },
    atomic_notify: () => 0,
    memory_init: (segment, destination, source, length) => {
      const entry = image.manifest.segments[segment];
      if (entry === undefined) return 1;
      const isGone = dropped.has(segment) || entry.address !== null;
      const content = isGone ? new Uint8Array(0) : segmentBytes(image, entry);
      const [to, from, count] = [destination >>> 0, source >>> 0, length >>> 0];
      if (from + count > content.length || to + count > pages.current * 65_536) return 1;
      bytes.set(content.subarray(from, from + count), to);
      return 0;
    },
    data_drop: (segment) => void dropped.add(segment),
    poll: () => 1_000,
  };
}

/** Instantiates an image over a memory of 4 GiB, with its data in place, and runs its start function. */
export function boot(image: Image, imports: WebAssembly.Imports = {}, adapt = (own: ServiceFunctions) => own): Booted {
  const memory = new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true });
  const bytes = new Uint8Array(memory.buffer);
  for (const segment of image.manifest.segments) {
    if (segment.address !== null) bytes.set(segmentBytes(image, segment), segment.address);
  }
  const pages = { current: image.manifest.memory?.minimumPages ?? 0 };
  const module = new WebAssembly.Module(image.module);
  const { exports } = new WebAssembly.Instance(module, { ...imports, xen: { ...imports["xen"], memory } });
  bindServices(image, exports, adapt(plainServices(image, memory, pages)));
  if (image.manifest.hasStart) callExport(exports, START_EXPORT);
  return { exports, memory, pages };
}

/** Calls an exported function. */
export function callExport(exports: WebAssembly.Exports, name: string, ...parameters: unknown[]): unknown {
  const exported = exports[name];
  if (typeof exported !== "function") throw new TypeError(`${name} is not an exported function`);
  return exported(...parameters);
}

/** The original and the rewritten module, both running. */
export function bootBoth(text: string): {
  readonly native: WebAssembly.Exports;
  readonly booted: Booted;
  readonly image: Image;
} {
  const bytes = assembleWat(text);
  const native = new WebAssembly.Instance(new WebAssembly.Module(bytes), {}).exports;
  const image = rewriteModule(bytes);
  return { native, booted: boot(image), image };
}

/** Offers exactly what a module imports. */
export const offerAll = (image: Image): readonly FunctionImport[] => image.manifest.imports;

/** What a call comes to: its result, or that it trapped. */
export function outcome(call: () => unknown): string {
  try {
    return String(call());
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) return `trap`;
    throw error;
  }
}

const require = createRequire(import.meta.url);

/** Path of a file in an installed package, exported by it or not. */
export function packageFile(name: string, path: string): string {
  const directories = require.resolve.paths(name) ?? [];
  const found = directories.map((directory) => join(directory, name, path)).find((candidate) => existsSync(candidate));
  if (found === undefined) throw new Error(`package ${name} with ${path} is not installed`);
  return found;
}

/** Directory of the test sources (tests run from `dist`). */
export const sourceDirectory = join(dirname(new URL(import.meta.url).pathname), "..", "..", "test");

/** A custom section with four bytes of content. */
export function customSection(name: string): Uint8Array {
  return Uint8Array.from([0, name.length + 5, name.length, ...Buffer.from(name), 1, 2, 3, 4]);
}

/** Bodies of a module's functions, with their sizes in front. */
export function bodies(module: Uint8Array): Buffer[] {
  const buffer = Buffer.from(module);
  let at = 8;
  const number = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = buffer[at++]!;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < buffer.length) {
    const id = buffer[at++]!;
    const end = number() + at;
    if (id !== 10) {
      at = end;
      continue;
    }
    return Array.from({ length: number() }, () => {
      const start = at;
      const size = number();
      at += size;
      return buffer.subarray(start, at);
    });
  }
  return [];
}
