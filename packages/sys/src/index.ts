export { exactProcessMemory, mappingsIn, processMemory, vmaCount, vmaCountMax } from "./address-space.ts";
export type { ExactProcessMemory, Mapping, ProcessMemory } from "./address-space.ts";
export {
  linkBeneath,
  makeDirectoryBeneath,
  readLinkBeneath,
  removeDirectoryBeneath,
  renameBeneath,
  symlinkBeneath,
  unlinkBeneath,
} from "./beneath.ts";
export type { Place } from "./beneath.ts";
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
export { directMap } from "./direct-map.ts";
export type { DirectMap, DirectMapPlace } from "./direct-map.ts";
export { EntryType, readDirectory } from "./directory.ts";
export type { DirectoryEntry } from "./directory.ts";
export { setTimes, setTimesBeneath, statusBeneath, statusOf } from "./file-status.ts";
export type { FileStatus, TimeChange, TimeChanges } from "./file-status.ts";
export { IoVector } from "./io-vector.ts";
export { exitGuard, useExitGuard } from "./exit-guard.ts";
export { addonPath, addressOf, NativeBuffer, useAddon } from "./libc.ts";
export {
  forbidCoreDumps,
  machineMemory,
  memfdResidentBytes,
  openDescriptorCount,
  overcommitMode,
  resourceLimit,
} from "./machine.ts";
export type { MachineMemory, OvercommitMode, Resource, ResourceLimit } from "./machine.ts";
export { lockedBytes, lockMemory, mayLockBeyondLimit, sealMapping } from "./locked-memory.ts";
export {
  Advice,
  advise,
  mapAnywhere,
  mapCopies,
  mapFrames,
  mapScratch,
  mapZeros,
  PROT_NONE,
  PROT_READ,
  PROT_READ_WRITE,
  protect,
  reserve,
  reserveAnywhere,
  unmap,
} from "./mapping.ts";
export type { FileRun, Protection } from "./mapping.ts";
export { controlGroupMemory, memoryPressure, parsePressure } from "./memory-pressure.ts";
export type { ControlGroupMemory, ControlGroupPlace, MemoryPressure, PressureLine } from "./memory-pressure.ts";
export { createMemfd, createSecretMemfd, Seal, sealsOf } from "./memfd.ts";
export type { MemfdOptions } from "./memfd.ts";
export { baseAddress, viewMemory, copyMemory } from "./memory-view.ts";
export { NativePath } from "./native-path.ts";
export type { PathText } from "./native-path.ts";
export { openBeneath, OpenFlag, withParent } from "./open-beneath.ts";
export type { OpenOptions } from "./open-beneath.ts";
export { peerCredentials } from "./peer-credentials.ts";
export { canStartPrograms, programEnd, startProgram } from "./program.ts";
export type { Program, ProgramEnd } from "./program.ts";
export type { PeerCredentials } from "./peer-credentials.ts";
export type { Platform } from "./platform.ts";
export { capabilities } from "./probe.ts";
export type { Capability, CapabilityState } from "./probe.ts";
export { PAGE_BYTES, platformRefusal, thisPlatform } from "./platform.ts";
export { PollSet, Readiness } from "./poll-set.ts";
export { check, errnoName, SystemCallError } from "./system-call-error.ts";
export type { SystemCallArguments } from "./system-call-error.ts";
export { NICE_MAX, setThreadNice, threadCpuTimeNs, threadId } from "./thread.ts";
export { releaseThreadMemory, threadMemory } from "./thread-memory.ts";
export type { ThreadMemory } from "./thread-memory.ts";
export { tryTraps } from "./trap-probe.ts";
export type { TrapOutcome } from "./trap-probe.ts";
