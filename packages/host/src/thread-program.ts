/**
 * The program of vCPU threads as one script. Node loads each ES module of a Worker by itself, which costs more than
 * starting the Worker; so the modules that the entry point needs are linked once, on the control domain's thread, into
 * one script with V8's code cache, and threads run that. A module runs when another one that runs imports it; an import
 * that is named as a late one is a function that runs its module when it is first called.
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

/** What is done differently from what the modules say. */
export interface LinkOptions {
  readonly substitutes?: readonly Substitute[];
  /** Names of exports that are imported late: functions that no module calls while it runs. */
  readonly late?: readonly string[];
}

/** An expression of some module, and what stands in its place in the program: work that is done when it is linked. */
interface Substitute {
  readonly expression: string;
  readonly text: string;
}

/** Where an export that is passed on comes from. */
interface Origin {
  readonly from: string;
  readonly name: string;
}

/** A module that is being linked. */
interface SourceModule {
  readonly path: string;
  readonly text: string;
}

/** Thrown and caught here only: the textual linker met something that it does not know. */
class NotLinkable extends Error {}

const IMPORT = /^import (?:(?<names>[\s\S]+?) from )?"(?<from>[^"]+)";$/gm;
const EXPORT_FROM = /^export \{(?<names>[^}]*)\} from "(?<from>[^"]+)";$/gm;
const EXPORT_LIST = /^export \{(?<names>[^}]*)\};$/gm;
const EXPORT_DECLARATION = /^export (?<kind>const|class|function\*?|async function\*?) (?<name>[A-Za-z_$][\w$]*)/gm;
/** Comments that stand alone on their lines: a third of the text, which every thread would keep. */
const COMMENT = /^[ \t]*(?:\/\*\*(?:[^*]|\*(?!\/))*\*\/[ \t]*|\/\/.*)\n/gm;
/** An export that is a number: it stands for itself wherever it is imported, and its module need not run for it. */
const EXPORT_NUMBER =
  /^export const (?<name>[A-Za-z_$][\w$]*) = (?<value>(?:0x[\da-fA-F_]+|\d[\d_]*| << | \| |[()])+);$/gm;
const ANY_MODULE_SYNTAX = /^(?:import|export)\b/m;

/** Runs a module when it is first asked for. */
const ONCE = "const once = (run) => { let exported; return () => (exported ??= run()); };";

/**
 * Links the module at `entry` with all that it imports; undefined when that is not possible. The program's `runAll` runs
 * the modules that have not run yet.
 */
export const linkProgram = (entry: URL, options: LinkOptions = {}): ThreadProgram | undefined => {
  try {
    const linker = new Linker(options);
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
  readonly #numbers = new Map<string, ReadonlyMap<string, string>>();
  /** Name of each of Node's own modules in the program: asking for one takes longer than many of our modules do. */
  readonly #builtins = new Map<string, string>();
  readonly #texts: string[] = [];
  readonly #substitutes: readonly Substitute[];
  readonly #late: ReadonlySet<string>;

  constructor({ substitutes = [], late = [] }: LinkOptions) {
    this.#substitutes = substitutes;
    this.#late = new Set(late);
  }

  /** The program whose entry is the module in file `path`. */
  program(path: string): string {
    const entry = this.#link(path);
    const builtins = [...this.#builtins].map(([from, name]) => `const ${name} = require(${JSON.stringify(from)});`);
    const all = `const runAll = () => void [${[...this.#names.values()].join(", ")}].forEach((run) => run());`;
    const body = [ONCE, ...builtins, ...this.#texts, all].join("\n");
    return `(function (require) { "use strict";\n${body}\nreturn { ...${entry}(), runAll };\n})`;
  }

  /** Adds the module in file `path` and all that it needs; returns its name in the program. */
  #link(path: string): string {
    const known = this.#names.get(path);
    if (known !== undefined) return known;
    if (this.#inProgress.has(path)) throw new NotLinkable(`${path} imports itself in a circle`);
    this.#inProgress.add(path);
    const text = this.#transform(path);
    const name = `module$${this.#texts.length}`;
    this.#texts.push(`const ${name} = once(() => {\n${text}\n});`);
    this.#names.set(path, name);
    return name;
  }

  #transform(path: string): string {
    const exported: string[] = [];
    const original = readFileSync(path, "utf8").replaceAll(COMMENT, "");
    const text = original
      .replaceAll(EXPORT_FROM, (_, names: string, from: string) => {
        for (const [name, alias] of pairs(names)) exported.push(`${alias}: ${this.#memberOf(path, from, name)}`);
        return "";
      })
      .replaceAll(IMPORT, (_, names: string | undefined, from: string) =>
        this.#importOf({ path, text: original }, names, from),
      )
      .replaceAll(EXPORT_LIST, (_, names: string) => {
        for (const [name, alias] of pairs(names)) exported.push(`${alias}: ${name}`);
        return "";
      })
      .replaceAll(EXPORT_DECLARATION, (_, kind: string, name: string) => {
        exported.push(name);
        return `${kind} ${name}`;
      })
      .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(path).href));
    if (ANY_MODULE_SYNTAX.test(text) || text.includes("import.meta")) throw new NotLinkable(path);
    const final = this.#substitutes.reduce((now, { expression, text: by }) => now.replace(expression, () => by), text);
    return `${final}\nreturn { ${exported.join(", ")} };`;
  }

  #importOf({ path, text }: SourceModule, names: string | undefined, from: string): string {
    if (names === undefined) return `${this.#resolve(path, from)};`;
    const isBuiltin = from.startsWith("node:");
    const clause = /^(?:(?<whole>[\w$]+)(?:, )?)?(?:\* as (?<all>[\w$]+))?(?:\{(?<list>[^}]*)\})?$/.exec(
      names.trim(),
    )?.groups;
    if (clause === undefined) throw new NotLinkable(`${path}: import ${names}`);
    const { whole, all, list } = clause;
    if (whole !== undefined && !isBuiltin) throw new NotLinkable(`${path}: default import of ${from}`);
    const parts: string[] = [];
    if (whole !== undefined) parts.push(`const ${whole} = ${this.#resolve(path, from)};`);
    if (all !== undefined) parts.push(`const ${all} = ${this.#namespaceOf({ path, text }, all, from)};`);
    for (const [name, alias] of pairs(list ?? "")) parts.push(this.#bindingOf(path, from, { name, alias }));
    return parts.join(" ");
  }

  /** The declaration of `alias`, which is what `from` exports as `name`. */
  #bindingOf(path: string, from: string, { name, alias }: { name: string; alias: string }): string {
    const member = this.#memberOf(path, from, name);
    if (!this.#late.has(name)) return `const ${alias} = ${member};`;
    return `let late$${alias}; const ${alias} = (...values) => (late$${alias} ??= ${member})(...values);`;
  }

  /** The expression for all that `from` exports; of a module that only passes on, what this one uses of it. */
  #namespaceOf({ path, text }: SourceModule, all: string, from: string): string {
    const used = new Set<string>();
    const rest = text
      .replaceAll(IMPORT, "")
      .replaceAll(new RegExp(`\\b${all}\\.([\\w$]+)`, "g"), (_, name: string) => (used.add(name), ""))
      .replaceAll(new RegExp(`\\{([^{}]*)\\} = ${all};`, "g"), (_, list: string) => {
        for (const entry of list.split(",")) used.add(entry.split(":")[0]!.trim());
        return "";
      });
    const isPassing = !from.startsWith("node:") && this.#passedOn(this.#fileOf(path, from)) !== undefined;
    if (!isPassing || new RegExp(`\\b${all}\\b`).test(rest)) return this.#resolve(path, from);
    const members = [...used]
      .filter((name) => name !== "")
      .map((name) => `${name}: ${this.#memberOf(path, from, name)}`);
    return `{ ${members.join(", ")} }`;
  }

  /** The expression for what `from` exports as `name`. A module that only passes on the exports of others is not run. */
  #memberOf(path: string, from: string, name: string): string {
    if (!from.startsWith("node:")) {
      const file = this.#fileOf(path, from);
      const origin = this.#passedOn(file)?.get(name);
      if (origin !== undefined) return this.#memberOf(file, origin.from, origin.name);
      const number = this.#numbersOf(file).get(name);
      if (number !== undefined) return `(${number})`;
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
      .replaceAll(COMMENT, "")
      .replaceAll(/^\/\/.*$/gm, "")
      .trim();
    this.#passingOn.set(file, rest === "" ? origins : undefined);
    return this.#passingOn.get(file);
  }

  /** The numbers that the module in `file` exports, as they are written. */
  #numbersOf(file: string): ReadonlyMap<string, string> {
    const known = this.#numbers.get(file);
    if (known !== undefined) return known;
    const found = [...readFileSync(file, "utf8").matchAll(EXPORT_NUMBER)];
    const numbers = new Map(found.map(({ groups }) => [groups!["name"]!, groups!["value"]!]));
    this.#numbers.set(file, numbers);
    return numbers;
  }

  #builtin(from: string): string {
    const name = this.#builtins.get(from) ?? `node$${this.#builtins.size}`;
    this.#builtins.set(from, name);
    return name;
  }

  /** The expression that stands for the module `from`, imported by the file `path`. */
  #resolve(path: string, from: string): string {
    if (from.startsWith("node:")) return this.#builtin(from);
    return `${this.#link(this.#fileOf(path, from))}()`;
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
