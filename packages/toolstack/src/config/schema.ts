/**
 * The JSON Schema of a configuration, and its reference table, from the table of keys. What a schema cannot say (the
 * range of a size in text, keys beside each other) only the validator checks.
 */
import { CONFIG_KEYS, type KeySpec, type TextForm, type ValueForm } from "./keys.ts";

type Schema = Readonly<Record<string, unknown>>;

const SIZE_MIB_MAX = 4096;
const SIZE_PATTERN = "^\\s*[0-9]+(\\.[0-9]+)?\\s*([kKmMgG]([iI][bB])?)?\\s*$";

/** The schema, as it is published in `domain.schema.json`. */
export const configSchema = (): Schema => ({
  $schema: "https://json-schema.org/draft/2020-12/schema",
  title: "A domain of Xenolith",
  description: "What `xl create` makes a domain from. Sizes without a unit are MiB.",
  type: "object",
  additionalProperties: false,
  required: entries()
    .filter(([, spec]) => spec.required)
    .map(([key]) => key),
  properties: Object.fromEntries(
    entries().map(([key, spec]) => [
      key,
      {
        description: spec.description,
        ...formSchema(spec.form),
        ...(spec.default === undefined ? {} : { default: JSON.parse(spec.default) }),
      },
    ]),
  ),
});

const entries = (): readonly [string, KeySpec][] => Object.entries(CONFIG_KEYS);

const formSchema = (form: ValueForm): Schema => {
  switch (form.kind) {
    case "text":
      return textSchema(form);
    case "texts":
      return { type: "array", maxItems: form.countMax, items: textSchema(form.item) };
    case "variables":
      return {
        type: "object",
        maxProperties: form.countMax,
        propertyNames: textSchema(form.key),
        additionalProperties: textSchema(form.value),
      };
    case "size":
      return {
        anyOf: [
          { type: "number", ...(form.zero ? { minimum: 0 } : { exclusiveMinimum: 0 }), maximum: SIZE_MIB_MAX },
          { type: "string", pattern: SIZE_PATTERN },
        ],
      };
    case "count":
      return { type: "integer", minimum: form.from, maximum: form.to };
    case "flag":
      return { type: "boolean" };
    case "choice":
      return { type: "string", enum: form.values };
  }
};

const textSchema = ({ bytesMax, empty, pattern }: TextForm): Schema => ({
  type: "string",
  ...(empty === true ? {} : { minLength: 1 }),
  maxLength: bytesMax,
  ...(pattern === undefined ? {} : { pattern: pattern.source }),
});

/** The rows of the reference page, in Markdown. */
export const configReference = (): string => {
  const rows = entries().map(([key, spec]) => {
    const fallback = spec.required === true ? "required" : spec.default === undefined ? "" : `\`${spec.default}\``;
    return `| \`${key}\` | ${valueText(spec.form)} | ${fallback} | ${spec.description} |`;
  });
  return ["| key | value | default | meaning |", "|---|---|---|---|", ...rows].join("\n");
};

const valueText = (form: ValueForm): string => {
  switch (form.kind) {
    case "text":
      return `text, at most ${form.bytesMax} bytes${form.pattern === undefined || form.empty === true ? "" : `: ${form.pattern.meaning}`}`;
    case "texts":
      return `list of at most ${form.countMax} texts`;
    case "variables":
      return `table of at most ${form.countMax} texts`;
    case "size":
      return `size, ${form.zero ? "0" : "above 0"} to 4 GiB`;
    case "count":
      return `${form.from} to ${form.to}`;
    case "flag":
      return "`true` or `false`";
    case "choice":
      return form.values.map((value) => `\`"${value}"\``).join(", ");
  }
};
