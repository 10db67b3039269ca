import type { ImageExport, ImageKind } from "./manifest.ts";
import { refuseEntry } from "./refusal.ts";
import { formatSignature, sameSignature, type Signature } from "./wasm-type.ts";

const NOTHING: Signature = { params: [], results: [] };

/** Functions that the host itself calls, by exported name, and the type that it calls them with. */
const entryPoints: Readonly<Record<string, Signature>> = {
  _start: NOTHING,
  _initialize: NOTHING,
  xen_start: { params: ["i32"], results: [] },
  xen_upcall: NOTHING,
  xen_vcpu_start: { params: ["i32", "i32"], results: [] },
  wasi_thread_start: { params: ["i32", "i32"], results: [] },
};

/** Refuses a module of which the host would call a function with the wrong arguments. */
export function checkEntryPoints(exports: readonly ImageExport[]): void {
  for (const { name, signature } of exports) {
    const expected = Object.hasOwn(entryPoints, name) ? entryPoints[name] : undefined;
    if (signature === null || expected === undefined || sameSignature(signature, expected)) continue;
    refuseEntry(name, formatSignature(signature), formatSignature(expected));
  }
}

/** How a module with these exports runs. */
export function kindOf(exports: readonly ImageExport[]): ImageKind {
  const isExported = (wanted: string): boolean =>
    exports.some(({ name, signature }) => signature !== null && name === wanted);
  if (isExported("xen_start")) return "xen";
  return isExported("_start") ? "command" : "reactor";
}
