export { CONFIG_KEYS, configOf, configReference, configSchema, domainOptionsOf, parseConfig } from "./config/index.ts";
export type {
  ConfigDocument,
  ConfigOrigin,
  DomainConfig,
  EndAction,
  KeySpec,
  Size,
  TextForm,
  ValueForm,
} from "./config/index.ts";
export { main } from "./program.ts";
export { formatSize, parseDuration, parseSize } from "./quantity.ts";
export { parseDirectory, parseEnvironment, planRun } from "./run-options.ts";
export type { RunFlags, RunPlan } from "./run-options.ts";
