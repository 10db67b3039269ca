/**
 * Checks a configuration against the table of keys. All that is wrong is said at once.
 */
import { XenolithError } from "@xenolith/abi/error";
import { parseSize } from "../quantity.ts";
import { CONFIG_KEYS, type ConfigDocument, type TextForm, type ValueForm } from "./keys.ts";
import { adviceFor } from "./suggest.ts";

/** One thing that is wrong. */
export interface Problem {
  /** Where: keys and indices from the top. */
  readonly path: readonly string[];
  readonly message: string;
}

/** What is wrong with each value by itself; nothing: it is a `ConfigDocument`. */
export const problemsOf = (document: unknown): readonly Problem[] => {
  if (!isTable(document)) return [{ path: [], message: `a configuration is a table of keys, not ${show(document)}` }];
  return [...unknownKeys(document), ...missingKeys(document), ...badValues(document)];
};

/** Whether a document has nothing wrong with any value. */
export const isConfigDocument = (document: unknown): document is ConfigDocument => problemsOf(document).length === 0;

const isTable = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);

const unknownKeys = (document: Readonly<Record<string, unknown>>): Problem[] =>
  Object.keys(document)
    .filter((key) => !Object.hasOwn(CONFIG_KEYS, key))
    .map((key) => ({ path: [key], message: `unknown key ${show(key)}: ${adviceFor(key)}` }));

const missingKeys = (document: Readonly<Record<string, unknown>>): Problem[] =>
  Object.entries(CONFIG_KEYS)
    .filter(([key, { required }]) => required === true && !Object.hasOwn(document, key))
    .map(([key, { description }]) => ({ path: [key], message: `${key} is missing: ${description}` }));

const badValues = (document: Readonly<Record<string, unknown>>): Problem[] =>
  Object.entries(CONFIG_KEYS).flatMap(([key, { form }]) =>
    Object.hasOwn(document, key) ? checkValue([key], document[key], form) : [],
  );

const checkValue = (path: readonly string[], value: unknown, form: ValueForm): Problem[] => {
  switch (form.kind) {
    case "text":
      return checkText(path, value, form);
    case "texts":
      return checkTexts(path, value, form);
    case "variables":
      return checkVariables(path, value, form);
    case "size":
      return checkSize(path, value, form.zero);
    case "count": {
      const isFine = Number.isInteger(value) && Number(value) >= form.from && Number(value) <= form.to;
      return isFine ? [] : wrong(path, value, `a whole number from ${form.from} to ${form.to}`);
    }
    case "flag":
      return typeof value === "boolean" ? [] : wrong(path, value, "true or false");
    case "choice": {
      const isFine = typeof value === "string" && form.values.includes(value);
      return isFine ? [] : wrong(path, value, form.values.map((each) => `"${each}"`).join(", "));
    }
  }
};

const checkText = (path: readonly string[], value: unknown, form: TextForm): Problem[] => {
  if (typeof value !== "string") return wrong(path, value, "text in quotes");
  const bytes = Buffer.byteLength(value);
  if (bytes > form.bytesMax) {
    return [{ path, message: `${nameOf(path)} is ${bytes} bytes long, the limit is ${form.bytesMax}` }];
  }
  if (value === "" && form.empty !== true) return wrong(path, value, "text that is not empty");
  const isFine = form.pattern === undefined || new RegExp(form.pattern.source, "u").test(value);
  return isFine ? [] : wrong(path, value, form.pattern.meaning);
};

const checkTexts = (path: readonly string[], value: unknown, form: ValueForm & { kind: "texts" }): Problem[] => {
  if (!Array.isArray(value)) return wrong(path, value, "a list of texts");
  if (value.length > form.countMax) return tooMany(path, value.length, form.countMax);
  return value.flatMap((item, index) => checkText([...path, String(index)], item, form.item));
};

const checkVariables = (
  path: readonly string[],
  value: unknown,
  form: ValueForm & { kind: "variables" },
): Problem[] => {
  if (!isTable(value)) return wrong(path, value, "a table of texts by name");
  const entries = Object.entries(value);
  if (entries.length > form.countMax) return tooMany(path, entries.length, form.countMax);
  return entries.flatMap(([key, text]) => {
    const keyProblems = checkText([...path, key], key, form.key);
    return keyProblems.length > 0 ? keyProblems : checkText([...path, key], text, form.value);
  });
};

const checkSize = (path: readonly string[], value: unknown, zero: boolean): Problem[] => {
  if (typeof value !== "string" && typeof value !== "number") {
    return wrong(path, value, 'a size: a number of MiB, or text such as "64M" or "1GiB"');
  }
  if (zero && isZero(value)) return [];
  try {
    parseSize(String(value));
    return [];
  } catch (error) {
    if (!(error instanceof XenolithError)) throw error;
    return [{ path, message: `${nameOf(path)}: ${error.message}` }];
  }
};

/** Whether a size is zero, with or without a unit. */
export const isZero = (value: number | string): boolean =>
  value === 0 || /^0+(?:\.0+)?\s*(?:[kmg]|[kmg]ib)?$/i.test(String(value).trim());

const wrong = (path: readonly string[], value: unknown, expected: string): Problem[] => [
  { path, message: `${nameOf(path)} is ${show(value)}, it must be ${expected}` },
];

const tooMany = (path: readonly string[], count: number, limit: number): Problem[] => [
  { path, message: `${nameOf(path)} has ${count} entries, the limit is ${limit}` },
];

/** `environment.LANG`, `args[2]`. */
const nameOf = (path: readonly string[]): string =>
  path.reduce((text, part) => (/^\d+$/.test(part) ? `${text}[${part}]` : `${text}.${part}`));

const SHOWN_LENGTH_MAX = 60;

/** A value in a message: short whatever it is. */
const show = (value: unknown): string => {
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  const text = value instanceof Date ? value.toISOString() : (JSON.stringify(value) ?? String(value));
  return text.length <= SHOWN_LENGTH_MAX ? text : `${text.slice(0, SHOWN_LENGTH_MAX - 3)}...`;
};
