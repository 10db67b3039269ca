export { ImageCache } from "./image-cache.ts";
export type { ImageCacheOptions } from "./image-cache.ts";
export { checkImports, importProblems } from "./import-check.ts";
export { inspectImage } from "./inspect.ts";
export type { InspectOptions, Inspection } from "./inspect.ts";
export { defaultLimits } from "./limits.ts";
export type { Limits } from "./limits.ts";
export { LOADER_FORMAT, MEMORY_IMPORT, RESERVED_PREFIX, START_EXPORT, segmentBytes } from "./manifest.ts";
export type {
  ExportedState,
  FunctionImport,
  Image,
  ImageExport,
  ImageKind,
  ImageManifest,
  ImageMemory,
} from "./manifest.ts";
export type { DataSegment, ExternalKind } from "./module-shape.ts";
export { functionName } from "./name-section.ts";
export type { Feature } from "./opcodes.ts";
export { paravirtualise, rewriteModule } from "./paravirtualise.ts";
export type { ImageOptions, ParavirtualiseOptions } from "./paravirtualise.ts";
export { bindServices } from "./service-table.ts";
export type { ServiceFunctions } from "./service-table.ts";
export { SERVICE_TABLE_EXPORT, SERVICE_TABLE_SIZE, services } from "./services.ts";
export type { Service, ServiceName } from "./services.ts";
export { formatSignature, sameSignature } from "./wasm-type.ts";
export type { Signature, ValueType } from "./wasm-type.ts";
