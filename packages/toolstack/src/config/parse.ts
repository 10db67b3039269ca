/**
 * Reads configurations: TOML text, and `key=value` words of a command line on top of it.
 */
import path from "node:path";
import { XenolithError } from "@xenolith/abi/error";
import { parse, TomlError } from "smol-toml";
import { configOf, type ConfigOrigin, documentOf, type DomainConfig } from "./config.ts";
import { CONFIG_BYTES_MAX, CONFIG_KEYS, type ConfigDocument, type KeySpec } from "./keys.ts";
import { lineOf } from "./locate.ts";

type Table = Readonly<Record<string, unknown>>;

const keySpecs: Readonly<Record<string, KeySpec>> = CONFIG_KEYS;
const DEPTH_MAX = 16;
const OPTIONS = { integersAsBigInt: "asNeeded", maxDepth: DEPTH_MAX, useLegacyDate: true } as const;

/** A configuration that was read: as it is written, with absolute paths, and what it comes to. */
export interface ReadConfig {
  readonly document: ConfigDocument;
  readonly config: DomainConfig;
}

/**
 * The configuration in `text`, which came from `file`, with `overrides` (`key=value`) in place of what the file says.
 *
 * @throws XenolithError `CONFIG_INVALID`: everything that is wrong, one thing a line, as `file:line: what`.
 */
export const readConfig = (text: string, file: string, overrides: readonly string[] = []): ReadConfig => {
  const bytes = Buffer.byteLength(text);
  if (bytes > CONFIG_BYTES_MAX) throw invalid(`${file}: ${bytes} bytes long, the limit is ${CONFIG_BYTES_MAX}`);
  const written = overrides.map(parseOverride);
  const document = written.reduce(merge, parseToml(text, file));
  const origin: ConfigOrigin = {
    label: file,
    directory: path.dirname(path.resolve(file)),
    lineOf: (where) => (written.some((each) => where[0]! in each) ? undefined : lineOf(text, where)),
  };
  const config = configOf(document, origin);
  const { kernel, directories, keys } = config;
  const absolute = directories.map(({ host, guest, readOnly }) => `${host}::${guest}${readOnly ? ":ro" : ""}`);
  return { document: { ...documentOf(document, origin), kernel, directories: absolute, keys }, config };
};

/** What `readConfig` comes to. */
export const parseConfig = (text: string, file: string, overrides: readonly string[] = []): DomainConfig =>
  readConfig(text, file, overrides).config;

/**
 * What words `key=value` say, for a daemon that puts them on top of what it keeps: only their form is checked.
 *
 * @throws XenolithError `CONFIG_INVALID`: a word is not of that form.
 */
export const readAssignments = (words: readonly string[]): Readonly<Record<string, unknown>> =>
  words.map(parseOverride).reduce(merge, {});

const invalid = (message: string, cause?: unknown): XenolithError =>
  new XenolithError("CONFIG_INVALID", message, { cause });

const parseToml = (text: string, label: string): Table => {
  try {
    return parse(text, OPTIONS);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const reason = cause.message.split("\n")[0]!.replace(/^Invalid TOML document: /, "");
    throw invalid(`${label}:${cause.line}: ${reason} (column ${cause.column})`, cause);
  }
};

/**
 * One `key=value`. The value is TOML if it can be read as that, else text; where only text will do, quotes may be left
 * out around anything. A path begins where `xl` was called.
 */
const parseOverride = (word: string): Table => {
  const at = word.indexOf("=");
  const [key, value] = [word.slice(0, at).trim(), word.slice(at + 1).trim()];
  if (at < 1 || !/^[\w.-]+$/.test(key)) throw invalid(`"${word}" is not of the form key=value`);
  const root = key.split(".")[0]!;
  const isText = Object.hasOwn(keySpecs, root) && TEXT_KINDS.has(keySpecs[root]!.form.kind);
  const table = parseToml(`${key} = ${isText ? quote(value) : valueOr(value, quote)}`, `"${word}"`);
  return absolutePaths(table);
};

/** What is wrong here is left as it is, to be refused like the same in a file. */
const absolutePaths = (table: Table): Table => {
  const { kernel, directories, keys } = table;
  const absolute = (text: unknown): unknown => {
    const at = typeof text === "string" ? text.indexOf("::") : -1;
    return at > 0 ? `${path.resolve(String(text).slice(0, at))}${String(text).slice(at)}` : text;
  };
  return {
    ...table,
    ...(typeof kernel === "string" && kernel !== "" ? { kernel: path.resolve(kernel) } : {}),
    ...(Array.isArray(directories) ? { directories: directories.map(absolute) } : {}),
    ...(typeof keys === "object" && keys !== null && !Array.isArray(keys)
      ? { keys: mapValues(keys, absoluteFile) }
      : {}),
  };
};

const absoluteFile = (file: unknown): unknown => (typeof file === "string" && file !== "" ? path.resolve(file) : file);

const mapValues = (table: object, change: (value: unknown) => unknown): Record<string, unknown> =>
  Object.fromEntries(Object.entries(table).map(([name, value]) => [name, change(value)]));

const TEXT_KINDS: ReadonlySet<string> = new Set(["text", "choice", "variables"]);

/** `value` as TOML text; as it stands when it is in quotes, or a table, already. */
const quote = (value: string): string => (/^(?:"[^"]*"|'[^']*'|\{.*\})$/s.test(value) ? value : JSON.stringify(value));

const valueOr = (value: string, otherwise: (value: string) => string): string => {
  try {
    parse(`value = ${value}`, OPTIONS);
    return value;
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    return otherwise(value);
  }
};

/** `over` on top of `base`; tables are joined, everything else is replaced. */
const merge = (base: Table, over: Table): Table => {
  const entries = new Map(Object.entries(base));
  for (const [key, value] of Object.entries(over)) {
    const below = entries.get(key);
    entries.set(key, isTable(below) && isTable(value) ? { ...below, ...value } : value);
  }
  return Object.fromEntries(entries);
};

const isTable = (value: unknown): value is Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
