import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import * as abi from "@xenolith/abi";
import type { Layout } from "@xenolith/abi";

/**
 * What the files of packages/abi/src declare, in the order in which they declare it. Values and layouts come from the
 * compiled package, the order and the comments from its source.
 */

export interface Constant {
  readonly kind: "constant";
  readonly name: string;
  readonly value: number;
  /** The value as the source spells it, without digit separators. */
  readonly spelling: string;
  readonly doc: string;
}

export interface Declared {
  readonly kind: "struct";
  readonly name: string;
  readonly layout: Layout<unknown>;
  readonly doc: string;
  /** Comment of each member that has one. */
  readonly memberDocs: ReadonlyMap<string, string>;
}

/** A gap between two groups of declarations. */
export interface Gap {
  readonly kind: "gap";
}

export type Item = Constant | Declared | Gap;

export interface SourceFile {
  /** Relative to packages/abi/src. */
  readonly file: string;
  /** The comment that opens the file. */
  readonly intro: string;
  readonly items: readonly Item[];
}

export const repositoryRoot = path.join(import.meta.dirname, "..", "..");

const constantPattern = /^export const (\w+) = (-?[\w ]+(?:<< \d+)?);$/;
const structPattern = /^export const (\w+) = (?:struct|namedUnion)\(/;
const memberPattern = /^ {2}(\w+): /;

const isLayout = (value: unknown): value is Layout<unknown> =>
  typeof value === "object" && value !== null && "shape" in value && "bind" in value;

const exported = (name: string): unknown => Reflect.get(abi, name);

/** The text of a run of comment lines, without the marks. */
const plain = (lines: readonly string[]): string =>
  lines
    .map((line) =>
      line
        .trim()
        .replace(/^(\/\*\*|\/\/|\*\/|\*) ?/, "")
        .replace(/ ?\*\/$/, ""),
    )
    .join(" ")
    .trim();

class Reader {
  readonly items: Item[] = [];
  intro = "";
  #doc: string[] = [];
  #open: { name: string; doc: string; memberDocs: Map<string, string> } | undefined;

  read(line: string): void {
    if (line.trim() === "") this.#gap();
    else if (/^\s*(\/\*\*|\*|\/\/)/.test(line)) this.#doc.push(line);
    else if (this.#open !== undefined) this.#insideStruct(line);
    else this.#outside(line);
  }

  #gap(): void {
    if (this.#open !== undefined) return;
    if (this.intro === "" && this.items.length === 0) this.intro = plain(this.#doc);
    this.#doc = [];
    if (this.items.length > 0 && this.items.at(-1)?.kind !== "gap") this.items.push({ kind: "gap" });
  }

  #takeDoc(): string {
    const text = plain(this.#doc);
    this.#doc = [];
    return text;
  }

  #outside(line: string): void {
    const doc = this.#takeDoc();
    const constant = constantPattern.exec(line);
    const value = exported(constant?.[1] ?? "");
    if (constant !== null && typeof value === "number") {
      const [, name = "", spelling = ""] = constant;
      this.items.push({ kind: "constant", name, value, spelling: spelling.replaceAll("_", ""), doc });
    }
    const name = structPattern.exec(line)?.[1];
    if (name === undefined) return;
    this.#open = { name, doc, memberDocs: new Map() };
    if (line.endsWith("});")) this.#close();
  }

  #insideStruct(line: string): void {
    const doc = this.#takeDoc();
    const member = memberPattern.exec(line)?.[1];
    if (member !== undefined && doc !== "") this.#open?.memberDocs.set(member, doc);
    if (line === "});") this.#close();
  }

  #close(): void {
    assert(this.#open !== undefined);
    const layout = exported(this.#open.name);
    assert(isLayout(layout), this.#open.name);
    this.items.push({ kind: "struct", layout, ...this.#open });
    this.#open = undefined;
  }
}

/** Reads one file of packages/abi/src. */
export const readSource = (file: string): SourceFile => {
  const reader = new Reader();
  const text = readFileSync(path.join(repositoryRoot, "packages/abi/src", file), "utf8");
  for (const line of text.split("\n")) {
    if (!line.startsWith("import ")) reader.read(line);
  }
  assert(
    reader.items.some((item) => item.kind !== "gap"),
    `${file} declares nothing`,
  );
  return { file, intro: reader.intro, items: reader.items };
};
