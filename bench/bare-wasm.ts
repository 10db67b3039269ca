/** Runs WebAssembly as any program does, in a BareThread: the same modules without Xenolith. */

/** What an unmodified module gets: functions that do next to nothing. */
export type BareImports = "trivial" | "wasi";

type Export = (...values: readonly (number | bigint)[]) => number | bigint | undefined;

let instance: WebAssembly.Instance | undefined;

/** Compiles and instantiates a module; returns the nanoseconds that took. */
export const load = (bytes: Uint8Array<ArrayBuffer>): number => {
  const start = process.hrtime.bigint();
  const module = new WebAssembly.Module(bytes);
  const imports: WebAssembly.Imports = Object.create(null);
  for (const { module: namespace, name } of WebAssembly.Module.imports(module)) {
    const functions: WebAssembly.ModuleImports = (imports[namespace] ??= Object.create(null) as WebAssembly.ModuleImports);
    functions[name] = (a: number, b: number) => (a + b) | 0;
  }
  instance = new WebAssembly.Instance(module, imports);
  (instance.exports["_initialize"] as Export | undefined)?.();
  return Number(process.hrtime.bigint() - start);
};

/** Calls an export of what was loaded. */
export const call = (name: string, ...values: readonly (number | bigint)[]): number | bigint | undefined =>
  (instance!.exports[name] as Export)(...values);
