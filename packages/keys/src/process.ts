import { inspect } from "node:util";
import type { Key } from "./key.ts";

/** With what rights something is done, and where keys are looked for. */
export interface Credentials {
  readonly uid: number;
  readonly gid: number;
  readonly fsuid: number;
  readonly fsgid: number;
  readonly groups: readonly number[];
  readonly thread: Key | undefined;
  readonly process: Key | undefined;
  readonly session: Key | undefined;
}

/** User and group of a process. What is left out follows the real, then the effective one. */
export interface ProcessIds {
  readonly uid: number;
  readonly gid: number;
  readonly euid?: number;
  readonly egid?: number;
  readonly suid?: number;
  readonly sgid?: number;
  readonly fsuid?: number;
  readonly fsgid?: number;
  /** Supplementary groups. */
  readonly groups?: readonly number[];
}

/** A process that the service gets to know. */
export interface ProcessIdentity extends ProcessIds {
  readonly pid: number;
  /** CAP_SYS_ADMIN; by default user 0 has it. */
  readonly sysAdmin?: boolean;
  /** CAP_SETUID; by default user 0 has it. */
  readonly setUid?: boolean;
}

/** Where a requested key goes that has no destination of its own. Source: keyctl_set_reqkey_keyring(3). */
export const DEFAULT_RING = {
  default: 0,
  thread: 1,
  process: 2,
  session: 3,
  user: 4,
  userSession: 5,
  group: 6,
  requestor: 7,
} as const;

/**
 * The credential record of one process or thread: who it is and which keyrings it has. The service changes it; whoever
 * attached it says when it forks, executes and exits.
 */
export class Process implements Credentials {
  /** 0 while it is not known: a helper's, until it runs. */
  pid: number;
  uid: number;
  euid: number;
  suid: number;
  fsuid: number;
  gid: number;
  egid: number;
  sgid: number;
  fsgid: number;
  groups: readonly number[];
  sysAdmin: boolean;
  setUid: boolean;
  thread: Key | undefined = undefined;
  process: Key | undefined = undefined;
  session: Key | undefined = undefined;
  /** The authorisation key that it assumed. */
  authority: Key | undefined = undefined;
  /** The key whose construction it was started for, or its ancestor. No reference: once that is over, it means nothing. */
  helps: Key | undefined = undefined;
  /** One of DEFAULT_RING. */
  defaultRing: number = DEFAULT_RING.default;

  constructor(identity: ProcessIdentity) {
    this.pid = identity.pid;
    this.uid = identity.uid;
    this.gid = identity.gid;
    this.euid = identity.euid ?? identity.uid;
    this.egid = identity.egid ?? identity.gid;
    this.suid = identity.suid ?? this.euid;
    this.sgid = identity.sgid ?? this.egid;
    this.fsuid = identity.fsuid ?? this.euid;
    this.fsgid = identity.fsgid ?? this.egid;
    this.groups = identity.groups ?? [];
    this.sysAdmin = identity.sysAdmin ?? this.euid === 0;
    this.setUid = identity.setUid ?? this.euid === 0;
  }

  [inspect.custom](): string {
    return `Process { ${this.pid} uid ${this.uid} }`;
  }
}
