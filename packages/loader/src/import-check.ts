import { XenolithError } from "@xenolith/abi";

import type { FunctionImport, ImageManifest } from "./manifest.ts";
import { formatSignature, sameSignature } from "./wasm-type.ts";

/** Offending imports that a message lists one by one. */
const LISTED_MAX = 100;

/**
 * Checks that the host offers everything that an image imports, with the same signature. Fails with IMPORT_UNKNOWN,
 * listing all that it does not offer and what was expected.
 */
export function checkImports(manifest: ImageManifest, offered: readonly FunctionImport[]): void {
  const problems = importProblems(manifest, offered);
  if (problems.length === 0) return;
  const listed = problems.slice(0, LISTED_MAX).join("; ");
  const more = problems.length > LISTED_MAX ? `; and ${problems.length - LISTED_MAX} more` : "";
  throw new XenolithError("IMPORT_UNKNOWN", `the image cannot be linked: ${listed}${more}`);
}

/** One line for each import that the host does not offer. */
export function importProblems(manifest: ImageManifest, offered: readonly FunctionImport[]): string[] {
  const key = ({ module, name }: FunctionImport): string => JSON.stringify([module, name]);
  const known = new Map(offered.map((entry) => [key(entry), entry]));
  const namespaces = [...new Set(offered.map(({ module }) => module))].toSorted().join(", ");
  const problems = manifest.refusedImports.map((entry) => `${entry}: expected functions and one memory only`);
  for (const wanted of manifest.imports) {
    const text = `function ${printable(wanted.module)}.${printable(wanted.name)} ${formatSignature(wanted)}`;
    const entry = known.get(key(wanted));
    if (entry === undefined) {
      const isNamespaceKnown = offered.some(({ module }) => module === wanted.module);
      problems.push(
        `${text}: ${isNamespaceKnown ? "no such function" : `expected a function of ${namespaces || "no namespace"}`}`,
      );
    } else if (!sameSignature(wanted, entry)) {
      problems.push(`${text}: expected ${formatSignature(entry)}`);
    }
  }
  return problems;
}

/** Names come from the guest: control characters are escaped and length is bounded before they reach a message. */
function printable(name: string): string {
  const text = JSON.stringify(name.slice(0, 200)).slice(1, -1);
  return text.replaceAll(/[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
