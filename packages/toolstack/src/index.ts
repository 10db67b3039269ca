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
export type {
  ApiFailure,
  AuditView,
  BalloonView,
  ClaimsView,
  CreateRequest,
  DefineRequest,
  DefinitionView,
  DefinitionsView,
  DmesgLine,
  DmesgView,
  DomainFlags,
  DomainView,
  DomainsView,
  ExitView,
  HealthView,
  HostView,
  MemoryRequest,
  MemoryView,
  RenameRequest,
  ServiceEvent,
  ServiceEventType,
  ShutdownRequest,
  UpdateRequest,
  VcpuView,
  VcpusView,
} from "./daemon/api-types.ts";
