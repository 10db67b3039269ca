export { configOf, domainOptionsOf } from "./config.ts";
export type { ConfigOrigin, DomainConfig } from "./config.ts";
export { CONFIG_KEYS } from "./keys.ts";
export type { ConfigDocument, EndAction, KeySpec, Size, TextForm, ValueForm } from "./keys.ts";
export { parseConfig, readAssignments, readConfig } from "./parse.ts";
export type { ReadConfig } from "./parse.ts";
export { configReference, configSchema } from "./schema.ts";
