export type { WasiContext, WasiPreopen, WasiStdio } from "./context.ts";
export { STREAM_HANGUP, STREAM_READABLE, STREAM_WRITABLE } from "./context.ts";
export { DESCRIPTOR_COUNT_DEFAULT, DESCRIPTOR_COUNT_MAX, DescriptorTable } from "./descriptor-table.ts";
export { wasiErrno } from "./errno.ts";
export { createWasi } from "./functions.ts";
export { Filetype } from "./layouts.ts";
export { WASI_MODULES, wasiSignatures } from "./signatures.ts";
export type { WasiModule } from "./signatures.ts";
export { attachDescriptors, createDescriptorBuffer, openInitialDescriptors } from "./start.ts";
