// The library: hosts, domains, and what guests can import.

export { Host } from "./host.ts";
export type { HostInfo } from "./host.ts";
export type { HostOptions } from "./host-options.ts";
export { Domain } from "./domain.ts";
export type { DomainEventMap } from "./domain.ts";
export type { DomainOptions, SharedDirectory } from "./domain-options.ts";
export { MEMORY_BYTES_DEFAULT } from "./domain-options.ts";
export { EXIT_CODE_CRASHED, EXIT_CODE_DESTROYED } from "./domain-exit.ts";
export type { DomainExit } from "./domain-exit.ts";
export type { DomainStats } from "./domain-stats.ts";
export type { ActionOptions } from "./action.ts";
export type { CallResult } from "./domain-calls.ts";
export type { GuestValue } from "./protocol.ts";
export type { GuestOutput, StdioMode, StdioModes } from "./stdio.ts";
export type { BootImage, ImageSource } from "./image.ts";
export type { Dom0Events, EventHandler } from "./dom0-events.ts";
export { Share } from "./share.ts";
export type { MapOptions, ShareAccess, ShareEventMap, ShareLoss } from "./share.ts";
export type { ShareSource } from "./shares.ts";
export type { Dom0Space } from "./dom0-space.ts";
export { InterruptSource } from "./interrupt-source.ts";
export type { OfferedFunction, OfferedImports } from "./offered-functions.ts";
export { readModule } from "./image.ts";
export { guestInterface } from "./guest-imports.ts";
