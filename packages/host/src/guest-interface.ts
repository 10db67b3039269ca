/**
 * What a guest can import as a table, for the loader to check images against. The control domain's: a vCPU thread makes
 * the functions themselves (guest-imports.ts).
 */
import { hypercalls } from "@xenolith/abi";
import type { FunctionImport } from "@xenolith/loader";
import { HYPERCALL_NAMESPACE, THREAD_NAMESPACE, THREAD_SPAWN } from "./guest-imports.ts";
import { WASI_MODULES, wasiSignatures } from "./wasi/index.ts";

const hypercallImport = (name: string, parameterCount: number): FunctionImport => ({
  module: HYPERCALL_NAMESPACE,
  name,
  params: Array.from({ length: parameterCount }, () => "i32" as const),
  results: ["i32"],
});

/** Every function that a guest may import, with its signature. */
export const guestInterface: readonly FunctionImport[] = [
  ...Object.entries(hypercalls).map(([name, { parameters }]) => hypercallImport(name, parameters.length)),
  hypercallImport("hypercall", 6),
  { module: THREAD_NAMESPACE, name: THREAD_SPAWN, params: ["i32"], results: ["i32"] },
  ...WASI_MODULES.flatMap((module) => wasiSignatures(module).map((signature) => ({ module, ...signature }))),
];
