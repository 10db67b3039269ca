export { startDaemon } from "./daemon.ts";
export type { Machine, RunningDaemon } from "./daemon.ts";
export { parseDaemonOptions } from "./options.ts";
export type { DaemonOptions } from "./options.ts";
export { loadPeerCredentials } from "./peer-credentials.ts";
export { loadQuickLaunch } from "./quick-launch.ts";
export type { PeerIdentity } from "./caller.ts";
