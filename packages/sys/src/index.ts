export {
  adviseFile,
  allocate,
  closeDescriptor,
  createPipe,
  descriptorFlags,
  duplicate,
  FileAdvice,
  punchHole,
  read,
  readAt,
  seek,
  setDescriptorFlags,
  synchronize,
  truncate,
  Whence,
  write,
  writeAt,
} from "./descriptor.ts";
export type { ByteRange, MemoryRange, Pipe } from "./descriptor.ts";
export { addressOf, NativeBuffer } from "./libc.ts";
export {
  Advice,
  advise,
  mapAnywhere,
  mapFrames,
  PROT_NONE,
  PROT_READ,
  PROT_READ_WRITE,
  protect,
  reserve,
  reserveAnywhere,
  unmap,
} from "./mapping.ts";
export type { FileRun, Protection } from "./mapping.ts";
export { createMemfd, createSecretMemfd, Seal, sealsOf } from "./memfd.ts";
export type { MemfdOptions } from "./memfd.ts";
export { baseAddress, viewMemory } from "./memory-view.ts";
export { isSupportedPlatform, PAGE_BYTES } from "./platform.ts";
export { check, errnoName, SystemCallError } from "./system-call-error.ts";
export type { SystemCallArguments } from "./system-call-error.ts";
