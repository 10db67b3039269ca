/**
 * What a package exports says what it is: each function, class and type has a doc comment, and so has each public method
 * that its interface does not describe already. Constants of Xen's headers and error numbers are described in docs/abi.md.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";

const root = path.join(import.meta.dirname, "../..");
const DECLARATION = /^export (?:abstract )?(?:async )?(?:const|function|class|interface|type) (\w+)/;
const METHOD = /^ {2}(?:static |async |get |set )*([a-z]\w*)(?:<[^(]*>)?\(/;
/** GNTTABOP_copy, EINVAL, VIRQ_TIMER, gnttab_copy: names of Xen's. */
const XEN_NAME = /^[A-Z0-9]+$|_/;

/** Exported names by file, from the package's index. */
const exportsOf = (source: string): Map<string, Set<string>> => {
  const names = new Map<string, Set<string>>();
  const index = readFileSync(path.join(source, "index.ts"), "utf8");
  for (const [, list = "", file = ""] of index.matchAll(/export (?:type )?\{([^}]*)\} from "(\.\/.*?)"/g)) {
    const here = names.get(file) ?? new Set<string>();
    for (const word of list.split(","))
      here.add(
        word
          .trim()
          .replace(/^type /, "")
          .split(" as ")[0]!,
      );
    names.set(file, here);
  }
  return names;
};

const isDocumented = (lines: readonly string[], at: number): boolean => (lines[at - 1] ?? "").trimEnd().endsWith("*/");

/** Exports of one file, and methods of exported classes, that have no doc comment. */
const undocumented = (text: string, names: ReadonlySet<string>): string[] => {
  const lines = text.split("\n");
  const found: string[] = [];
  let className: string | undefined;
  for (const [at, line] of lines.entries()) {
    const name = DECLARATION.exec(line)?.[1];
    const method = METHOD.exec(line)?.[1];
    if (line.startsWith("}")) className = undefined;
    if (name !== undefined && names.has(name) && !XEN_NAME.test(name)) {
      // A class that implements an interface is described there.
      className = /^export (?:abstract )?class/.test(line) && !/ implements /.test(line) ? name : undefined;
      if (!isDocumented(lines, at)) found.push(name);
    } else if (
      className !== undefined &&
      method !== undefined &&
      method !== "constructor" &&
      !isDocumented(lines, at)
    ) {
      found.push(`${className}.${method}`);
    }
  }
  return found;
};

describe("doc comments", () => {
  it("are missed where there are none", () => {
    const text =
      "export const one = 1;\n/** It. */\nexport class Box {\n  open(): void {}\n  /** D. */\n  shut(): void {}\n}\n";
    assert.deepEqual(undocumented(text, new Set(["one", "Box"])), ["one", "Box.open"]);
  });

  for (const name of readdirSync(path.join(root, "packages"))) {
    it(`are there for all that ${name} exports`, () => {
      const source = path.join(root, "packages", name, "src");
      if (!existsSync(path.join(source, "index.ts"))) return;
      const missing = [...exportsOf(source)].flatMap(([file, names]) =>
        undocumented(readFileSync(path.join(source, file), "utf8"), names).map((each) => `${file}: ${each}`),
      );
      assert.deepEqual(missing, []);
    });
  }
});
