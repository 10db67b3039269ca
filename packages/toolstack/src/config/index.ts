export { configOf, domainOptionsOf } from "./config.ts";
export type { ConfigOrigin, DomainConfig } from "./config.ts";
export { CONFIG_KEYS } from "./keys.ts";
export type { ConfigDocument, EndAction, KeySpec, Size, TextForm, ValueForm } from "./keys.ts";
export { parseConfig } from "./parse.ts";
export { configReference, configSchema } from "./schema.ts";
