import type { Parent } from "../process-operations.ts";
import type { Process } from "../process.ts";

/** What the kernel recorded about the other end of a connection when it was made. */
export interface PeerIdentity {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** A process that is connected, or was, and what the service keeps for it. */
export interface Caller {
  readonly pid: number;
  readonly uid: number;
  readonly process: Process;
  /** Its parent of this moment; undefined where there is none that could be given a keyring. */
  readonly parent: () => Parent | undefined;
}
