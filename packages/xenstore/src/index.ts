export { XenstoreServer } from "./server.ts";
export type { XenstoreServerOptions } from "./server.ts";
export { listenXenstore } from "./socket-server.ts";
export type { XenstoreSocket } from "./socket-server.ts";
export type { Keeper, KeptChange } from "./keeper.ts";
export type { RingPage } from "./ring-channel.ts";
export { FakeRingPage } from "./fake-ring-page.ts";
export type { ByteChannel, ChannelState } from "./channel.ts";
export type { Connection } from "./connection.ts";
export { XenstoreClient } from "./client.ts";
export type { TransactionOptions, WatchOptions } from "./client.ts";
export { XenstoreError, isXenstoreError } from "./client-error.ts";
export type { ClientStream } from "./client-stream.ts";
export { openInProcess, openSocket } from "./client-stream.ts";
export { TreeAccess } from "./tree-access.ts";
export type { NodePermission } from "./tree-access.ts";
export { Watcher } from "./watcher.ts";
export type { Access } from "./permissions.ts";
export type { XenstoreErrorName } from "./refusal.ts";
export { defaultQuota } from "./quota.ts";
export type { Quota, QuotaName } from "./quota.ts";
export { domainPath, INTRODUCE_DOMAIN, RELEASE_DOMAIN } from "./path.ts";
export {
  XenbusDevice,
  XenbusState,
  backPath,
  createDevice,
  frontPath,
  parseXenbusState,
  removeDevice,
  shutdownFrontend,
} from "./xenbus.ts";
export type { DeviceName, DeviceNodes } from "./xenbus.ts";
export { guestOwnedNodes, removeDomainTree, requestShutdown, writeDomainTree } from "./domain-tree.ts";
export type { DomainTree, ShutdownRequest } from "./domain-tree.ts";
