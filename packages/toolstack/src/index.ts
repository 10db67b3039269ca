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
export {
  aimBalloon,
  balloonPages,
  balloonStatistics,
  parseTarget,
  restingBalloon,
  settleBalloon,
  targetDiff,
} from "./balloon.ts";
export type { Balloon, BalloonSleep, BalloonState } from "./balloon.ts";
export { BalloonDriver, driveBalloon, reactorBalloon } from "./balloon-driver.ts";
export type { BalloonedDomain, BalloonOptions, DrivenBalloon } from "./balloon-driver.ts";
export { admit } from "./memory-manager/admission.ts";
export type { Admission, MachineState, NewDomain } from "./memory-manager/admission.ts";
export { planMemory } from "./memory-manager/manager.ts";
export type { ManagedGuest, ManagerInput, ManagerPlan } from "./memory-manager/manager.ts";
export { guestBudget, PRESSURE_LEVELS, pressureLevel } from "./memory-manager/pressure.ts";
export type { HostReadings, PressureLevel } from "./memory-manager/pressure.ts";
export { sharePages } from "./memory-manager/share.ts";
export type { Claimant } from "./memory-manager/share.ts";
export { MemoryManager } from "./memory-manager/service.ts";
export type { Admitted, MemoryManagerOptions } from "./memory-manager/service.ts";
export type { GuestFigures, HostFigures, ManagerFigures } from "./memory-manager/figures.ts";
export type { BalloonKind, ReportedState } from "./memory-manager/managed-domain.ts";
export { checkMemory, WEIGHT_MAX } from "./memory-manager/memory-config.ts";
export type { CheckedMemory, MemoryConfig } from "./memory-manager/memory-config.ts";
export { hostReadings } from "./memory-manager/readings.ts";
export { nextTargets } from "./memory-manager/steps.ts";
export type { Mover } from "./memory-manager/steps.ts";
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
  MemoryAccountView,
  MemoryRequest,
  MemoryView,
  NodesView,
  RenameRequest,
  ServiceEvent,
  ServiceEventType,
  ShutdownRequest,
  UpdateRequest,
  VcpuView,
  VcpusView,
} from "./daemon/api-types.ts";
export { defaultStateDirectory, embedService, openService } from "./daemon/service.ts";
export type { Service, ServiceOptions } from "./daemon/service.ts";
export type { TcpOptions } from "./daemon/http-server.ts";
export type { LogLevel } from "./daemon/service-log.ts";
export { runService } from "./daemon/run-service.ts";
