/**
 * Runs WebAssembly as any program does, in a BareThread: a module as it was published, or an image that the loader made
 * of it on an ordinary memory, so that rewritten code can be measured apart from everything else.
 */
import assert from "node:assert/strict";
import {
  bindServices,
  type Image,
  MEMORY_IMPORT,
  rewriteModule,
  segmentBytes,
  type ServiceFunctions,
} from "@xenolith/loader";

type Export = (...values: readonly (number | bigint)[]) => number | bigint | undefined;
type Import = (a: number, b: number) => number;

const PAGES_MAX = 65_536;

let instance: WebAssembly.Instance | undefined;
let memory: WebAssembly.Memory | undefined;

const timed = (work: () => void): number => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
};

/** Every function that a module imports, as `stub`. */
const stubImports = (module: WebAssembly.Module, stub: Import): WebAssembly.Imports => {
  const imports: WebAssembly.Imports = Object.create(null);
  for (const { module: namespace, name, kind } of WebAssembly.Module.imports(module)) {
    const functions: WebAssembly.ModuleImports = (imports[namespace] ??= Object.create(
      null,
    ) as WebAssembly.ModuleImports);
    if (kind === "function") functions[name] = stub;
  }
  return imports;
};

/** Compiles and instantiates a module whose imports add their first two arguments; returns the nanoseconds. */
export const loadAdding = (bytes: Uint8Array<ArrayBuffer>): number => loadWith(bytes, (a, b) => (a + b) | 0);

/** As `loadAdding`, with imports that return 0. */
export const load = (bytes: Uint8Array<ArrayBuffer>): number => loadWith(bytes, () => 0);

const loadWith = (bytes: Uint8Array<ArrayBuffer>, stub: Import): number =>
  timed(() => {
    const module = new WebAssembly.Module(bytes);
    instance = new WebAssembly.Instance(module, stubImports(module, stub));
    memory = instance.exports["memory"] instanceof WebAssembly.Memory ? instance.exports["memory"] : undefined;
    (instance.exports["_initialize"] as Export | undefined)?.();
  });

/** As `load`, after the loader has rewritten the module; the time of the loader does not count. */
export const loadRewritten = (bytes: Uint8Array<ArrayBuffer>, poll: boolean): number => {
  const image = rewriteModule(bytes, { poll });
  const space = new WebAssembly.Memory({ initial: PAGES_MAX, maximum: PAGES_MAX, shared: true });
  fillMemory(image, space);
  memory = space;
  return timed(() => {
    const module = new WebAssembly.Module(new Uint8Array(image.module));
    const imports = stubImports(module, () => 0);
    (imports[MEMORY_IMPORT.module] ??= Object.create(null) as WebAssembly.ModuleImports)[MEMORY_IMPORT.name] = space;
    instance = new WebAssembly.Instance(module, imports);
    bindServices(image, instance.exports, plainServices(image));
    (instance.exports["_initialize"] as Export | undefined)?.();
  });
};

const fillMemory = (image: Image, space: WebAssembly.Memory): void => {
  for (const segment of image.manifest.segments) {
    if (segment.address !== null) new Uint8Array(space.buffer).set(segmentBytes(image, segment), segment.address);
  }
};

/** Services without a hypervisor: all of the memory is there. */
const plainServices = ({ manifest }: Image): ServiceFunctions => {
  let pages = manifest.memory?.minimumPages ?? 0;
  const absent = (): never => assert.fail("no program of the bench needs this service");
  return {
    memory_size: () => pages,
    memory_grow: (delta) => {
      pages += delta;
      return pages - delta;
    },
    atomic_wait32: absent,
    atomic_wait64: absent,
    atomic_notify: absent,
    memory_init: absent,
    data_drop: absent,
    poll: () => 10_000,
  };
};

/** Calls an export of what was loaded. */
export const call = (name: string, ...values: readonly (number | bigint)[]): number | bigint | undefined =>
  (instance!.exports[name] as Export)(...values);

/** Calls an export with one number; returns its answer and the nanoseconds. */
export const callTimed = (name: string, value: number): readonly [answer: number, elapsedNs: number] => {
  let answer = 0;
  const elapsedNs = timed(() => (answer = Number(call(name, value))));
  return [answer, elapsedNs];
};

/** Writes bytes into the memory of what was loaded. */
export const write = (address: number, bytes: Uint8Array): void => {
  new Uint8Array(memory!.buffer).set(bytes, address >>> 0);
};

/** Compiles a module and nothing else; returns the nanoseconds. */
export const compile = (bytes: Uint8Array<ArrayBuffer>): number => timed(() => void new WebAssembly.Module(bytes));
