/**
 * The program of vCPU threads as one script. Node loads each ES module of a Worker by itself, which costs more than
 * starting the Worker; so the modules that the entry point needs are linked once, on the control domain's thread, into
 * one script with V8's code cache, and threads run that.
 *
 * Linking is textual and relies on what our compiler emits: import and export statements begin a line, exports are never
 * reassigned, and modules do not import each other in circles (a rule of this project). Whatever it does not recognise
 * makes it give up, and threads load the modules one by one: the same program, started more slowly.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Script } from "node:vm";

/** A linked program, fit to be posted to a thread. It is a function of `require` that returns the entry's exports. */
export interface ThreadProgram {
  readonly source: string;
  readonly filename: string;
}

/** An expression of some module, and what stands in its place in the program: work that is done when it is linked. */
export interface Substitute {
  readonly expression: string;
  readonly text: string;
}

/** Where an export that is passed on comes from. */
interface Origin {
  readonly from: string;
  readonly name: string;
}

/** Thrown and caught here only: the textual linker met something that it does not know. */
class NotLinkable extends Error {}

const IMPORT = /^import (?:(?<names>[\s\S]+?) from )?"(?<from>[^"]+)";$/gm;
const EXPORT_FROM = /^export \{(?<names>[^}]*)\} from "(?<from>[^"]+)";$/gm;
const EXPORT_LIST = /^export \{(?<names>[^}]*)\};$/gm;
const EXPORT_DECLARATION = /^export (?<kind>const|class|function\*?|async function\*?) (?<name>[A-Za-z_$][\w$]*)/gm;
/** Comments that stand alone on their lines: a third of the text, which every thread would keep. */
const COMMENT = /^[ \t]*(?:\/\*\*(?:[^*]|\*(?!\/))*\*\/[ \t]*|\/\/.*)\n/gm;
const ANY_MODULE_SYNTAX = /^(?:import|export)\b/m;

/** Links the module at `entry` with all that it imports; undefined when that is not possible. */
export const linkProgram = (entry: URL, substitutes: readonly Substitute[] = []): ThreadProgram | undefined => {
  try {
    const linker = new Linker(substitutes);
    const filename = fileURLToPath(entry);
    const source = linker.program(filename);
    // Compiled here once, so that a mistake of the linker's shows before threads depend on it.
    void new Script(source, { filename });
    return { source, filename };
  } catch (error) {
    if (error instanceof NotLinkable || error instanceof SyntaxError) return undefined;
    throw error;
  }
};

/** Collects modules in the order in which they must run. */
class Linker {
  /** Name of each module in the program, by its file. */
  readonly #names = new Map<string, string>();
  readonly #inProgress = new Set<string>();
  readonly #packages = new Map<string, string>();
  readonly #passingOn = new Map<string, ReadonlyMap<string, Origin> | undefined>();
  /** Name of each of Node's own modules in the program: asking for one takes longer than many of our modules do. */
  readonly #builtins = new Map<string, string>();
  readonly #texts: string[] = [];
  readonly #substitutes: readonly Substitute[];

  constructor(substitutes: readonly Substitute[]) {
    this.#substitutes = substitutes;
  }

  /** The program whose entry is the module in file `path`. */
  program(path: string): string {
    const entry = this.#link(path);
    const builtins = [...this.#builtins].map(([from, name]) => `const ${name} = require(${JSON.stringify(from)});`);
    return `(function (require) { "use strict";\n${[...builtins, ...this.#texts].join("\n")}\nreturn ${entry};\n})`;
  }

  /** Adds the module in file `path` and all that it needs; returns its name in the program. */
  #link(path: string): string {
    const known = this.#names.get(path);
    if (known !== undefined) return known;
    if (this.#inProgress.has(path)) throw new NotLinkable(`${path} imports itself in a circle`);
    this.#inProgress.add(path);
    const text = this.#transform(path);
    const name = `module$${this.#texts.length}`;
    this.#texts.push(`const ${name} = (() => {\n${text}\n})();`);
    this.#names.set(path, name);
    return name;
  }

  #transform(path: string): string {
    const exported: string[] = [];
    const text = readFileSync(path, "utf8")
      .replaceAll(EXPORT_FROM, (_, names: string, from: string) => {
        const source = this.#resolve(path, from);
        for (const [name, alias] of pairs(names)) exported.push(`${alias}: ${source}.${name}`);
        return "";
      })
      .replaceAll(IMPORT, (_, names: string | undefined, from: string) => this.#importOf(path, names, from))
      .replaceAll(EXPORT_LIST, (_, names: string) => {
        for (const [name, alias] of pairs(names)) exported.push(`${alias}: ${name}`);
        return "";
      })
      .replaceAll(EXPORT_DECLARATION, (_, kind: string, name: string) => {
        exported.push(name);
        return `${kind} ${name}`;
      })
      .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(path).href))
      .replaceAll(COMMENT, "");
    if (ANY_MODULE_SYNTAX.test(text) || text.includes("import.meta")) throw new NotLinkable(path);
    const final = this.#substitutes.reduce((now, { expression, text: by }) => now.replace(expression, () => by), text);
    return `${final}\nreturn { ${exported.join(", ")} };`;
  }

  #importOf(path: string, names: string | undefined, from: string): string {
    if (names === undefined) {
      this.#resolve(path, from);
      return "";
    }
    const isBuiltin = from.startsWith("node:");
    const clause = /^(?:(?<whole>[\w$]+)(?:, )?)?(?:\* as (?<all>[\w$]+))?(?:\{(?<list>[^}]*)\})?$/.exec(
      names.trim(),
    )?.groups;
    if (clause === undefined) throw new NotLinkable(`${path}: import ${names}`);
    const { whole, all, list } = clause;
    if (whole !== undefined && !isBuiltin) throw new NotLinkable(`${path}: default import of ${from}`);
    const parts: string[] = [];
    if (whole !== undefined) parts.push(`const ${whole} = ${this.#resolve(path, from)};`);
    if (all !== undefined) parts.push(`const ${all} = ${this.#resolve(path, from)};`);
    for (const [name, alias] of pairs(list ?? "")) parts.push(`const ${alias} = ${this.#memberOf(path, from, name)};`);
    return parts.join(" ");
  }

  /** The expression for what `from` exports as `name`. A module that only passes on the exports of others is not run. */
  #memberOf(path: string, from: string, name: string): string {
    if (!from.startsWith("node:")) {
      const file = this.#fileOf(path, from);
      const origin = this.#passedOn(file)?.get(name);
      if (origin !== undefined) return this.#memberOf(file, origin.from, origin.name);
    }
    return `${this.#resolve(path, from)}.${name}`;
  }

  /** The file that `from` means in the module `path`. Packages are looked up once: there is one version of each. */
  #fileOf(path: string, from: string): string {
    if (from.startsWith(".")) return join(dirname(path), from);
    const known = this.#packages.get(from) ?? createRequire(path).resolve(from);
    this.#packages.set(from, known);
    return known;
  }

  /** What the module in `file` passes on, by exported name; undefined when it does anything else. */
  #passedOn(file: string): ReadonlyMap<string, Origin> | undefined {
    if (this.#passingOn.has(file)) return this.#passingOn.get(file);
    const origins = new Map<string, Origin>();
    const rest = readFileSync(file, "utf8")
      .replaceAll(EXPORT_FROM, (_, names: string, from: string) => {
        for (const [name, alias] of pairs(names)) origins.set(alias, { from, name });
        return "";
      })
      .replaceAll(/^\/\/.*$/gm, "")
      .trim();
    this.#passingOn.set(file, rest === "" ? origins : undefined);
    return this.#passingOn.get(file);
  }

  #builtin(from: string): string {
    const name = this.#builtins.get(from) ?? `node$${this.#builtins.size}`;
    this.#builtins.set(from, name);
    return name;
  }

  /** The expression that stands for the module `from`, imported by the file `path`. */
  #resolve(path: string, from: string): string {
    if (from.startsWith("node:")) return this.#builtin(from);
    return this.#link(this.#fileOf(path, from));
  }
}

/** `a, b as c` as [name, alias] pairs. */
const pairs = (list: string): (readonly [string, string])[] =>
  list
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "")
    .map((entry) => {
      const [name, alias] = entry.split(/\s+as\s+/);
      return [name!, alias ?? name!] as const;
    });
