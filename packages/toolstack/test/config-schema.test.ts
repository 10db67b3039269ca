/**
 * The published schema says what the validator does, but for what a schema cannot say. A validator of the few keywords
 * that the schema uses is part of the test.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import { CONFIG_KEYS, configOf, configSchema } from "../src/config/index.ts";

type Schema = Readonly<Record<string, unknown>>;
type Rule = (value: unknown, limit: never) => boolean;

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const TYPES: Readonly<Record<string, (value: unknown) => boolean>> = {
  string: (value) => typeof value === "string",
  number: (value) => typeof value === "number",
  integer: (value) => Number.isInteger(value),
  boolean: (value) => typeof value === "boolean",
  array: (value) => Array.isArray(value),
  object: isObject,
};

/** Keywords of JSON Schema 2020-12; one that is missing here fails the test. */
const RULES: Readonly<Record<string, Rule>> = {
  type: (value, type: string) => TYPES[type]!(value),
  enum: (value, values: readonly unknown[]) => values.includes(value),
  pattern: (value, source: string) => typeof value !== "string" || new RegExp(source, "u").test(value),
  minLength: (value, least: number) => typeof value !== "string" || Array.from(value).length >= least,
  maxLength: (value, most: number) => typeof value !== "string" || Array.from(value).length <= most,
  minimum: (value, least: number) => typeof value !== "number" || value >= least,
  exclusiveMinimum: (value, least: number) => typeof value !== "number" || value > least,
  maximum: (value, most: number) => typeof value !== "number" || value <= most,
  maxItems: (value, most: number) => !Array.isArray(value) || value.length <= most,
  items: (value, schema: Schema) => !Array.isArray(value) || value.every((item) => accepts(schema, item)),
  maxProperties: (value, most: number) => !isObject(value) || Object.keys(value).length <= most,
  propertyNames: (value, schema: Schema) => !isObject(value) || Object.keys(value).every((key) => accepts(schema, key)),
  required: (value, keys: readonly string[]) => !isObject(value) || keys.every((key) => Object.hasOwn(value, key)),
  anyOf: (value, schemas: readonly Schema[]) => schemas.some((schema) => accepts(schema, value)),
};
const ANNOTATIONS: readonly string[] = ["$schema", "title", "description", "default"];

const accepts = (schema: Schema, value: unknown): boolean => {
  const { properties = {}, additionalProperties, ...rest } = schema;
  const known = properties as Readonly<Record<string, Schema>>;
  const members = isObject(value) ? Object.entries(value) : [];
  const isInside = members.every(([key, member]) => {
    if (Object.hasOwn(known, key)) return accepts(known[key]!, member);
    return isObject(additionalProperties) ? accepts(additionalProperties, member) : additionalProperties !== false;
  });
  return (
    isInside &&
    Object.entries(rest)
      .filter(([keyword]) => !ANNOTATIONS.includes(keyword))
      .every(([keyword, limit]) => RULES[keyword]!(value, limit as never))
  );
};

const schema = configSchema();

const refusal = (document: unknown): string | undefined => {
  try {
    configOf(document, { label: "it", directory: "/" });
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
};

/** Refusals that a schema cannot say: ranges of sizes in text, bytes of UTF-8, keys beside each other. */
const BEYOND_SCHEMA = /size "|bytes long|is below memory|is above memory|cmdline stands beside|: not yet/;

const anyValue = fc.oneof(
  fc.constantFrom<unknown>(0, 1, 32, 33, 64, 256, 4096, 4097, -1, 0.5, 65_536, true, false, null, "", "64", "64M", "0"),
  fc.constantFrom<unknown>("9G", "off", "zero-pages", "destroy", "restart", "coredump-restart", "web", "a/b", "/a::/b"),
  fc.constantFrom<unknown>([], ["a"], ["/a::/b:ro"], [1], {}, { A: "b" }, { "A=B": "c" }, { A: 1 }, { "": "" }),
  fc.string(),
  fc.jsonValue({ maxDepth: 2 }),
);
const anyDocument = fc
  .dictionary(fc.constantFrom(...Object.keys(CONFIG_KEYS), "memroy"), anyValue, { maxKeys: 6 })
  .chain((over) => fc.constantFrom({ name: "web", kernel: "web.wasm", ...over }, over));

describe("the schema of a configuration", () => {
  it("accepts what the validator accepts, and refuses what it refuses but for what no schema can say", () => {
    const verdicts = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(anyDocument, (document) => {
        const reason = refusal(document);
        if (reason === undefined) {
          verdicts.accepted += 1;
          assert.ok(accepts(schema, document), "the validator takes it, the schema does not");
        } else if (!reason.split("\n").every((line) => BEYOND_SCHEMA.test(line))) {
          verdicts.refused += 1;
          assert.ok(!accepts(schema, document), reason);
        }
      }),
      { numRuns: 3000 },
    );
    assert.ok(verdicts.accepted > 50 && verdicts.refused > 50, JSON.stringify(verdicts));
  });
  it("has defaults that it accepts itself, and that the validator fills in", () => {
    const properties = schema["properties"] as Readonly<Record<string, Schema>>;
    const defaults = Object.entries(properties).filter(([, each]) => Object.hasOwn(each, "default"));
    for (const [key, each] of defaults) assert.ok(accepts(each, each["default"]), key);
    const least = { name: "web", kernel: "web.wasm" };
    const filled = { ...least, ...Object.fromEntries(defaults.map(([key, each]) => [key, each["default"]])) };
    const origin = { label: "it", directory: "/" };
    assert.deepEqual(configOf(filled, origin), configOf(least, origin));
  });
  it("is the one in the package", () => {
    const file = path.join(import.meta.dirname, "../../domain.schema.json");
    assert.deepEqual(JSON.parse(readFileSync(file, "utf8")), schema);
  });
});
