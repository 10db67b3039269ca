import { importProblems } from "./import-check.ts";
import type { FunctionImport, ImageManifest } from "./manifest.ts";
import type { ImageOptions } from "./paravirtualise.ts";
import { rewriteModule } from "./paravirtualise.ts";

/** What a module is and what would become of it. */
export interface Inspection {
  readonly manifest: ImageManifest;
  /** One line for each import that the host does not offer; such a module does not boot. */
  readonly importProblems: readonly string[];
}

/** Options of `inspectImage`. */
export interface InspectOptions extends ImageOptions {
  /** Every function that the host offers. Without this, only imports that no host can offer are reported. */
  readonly imports?: readonly FunctionImport[];
}

/** Describes a module without refusing it for what it imports. Fails as `paravirtualise` does for everything else. */
export function inspectImage(bytes: Uint8Array, options: InspectOptions = {}): Inspection {
  const { manifest } = rewriteModule(bytes, options);
  return { manifest, importProblems: importProblems(manifest, options.imports ?? manifest.imports) };
}
