import { inspect } from "node:util";

/** What one user has in the service. Source: keyrings(7), /proc/key-users. */
export class UserRecord {
  readonly uid: number;
  /** Keys whose owner it is, in whatever state. */
  keyCount = 0;
  /** Those of them that are instantiated, positively or negatively. */
  instantiatedCount = 0;
  /** Keys that count in its quota. */
  quotaKeys = 0;
  /** Bytes of its quota that are used. */
  quotaBytes = 0;

  constructor(uid: number) {
    this.uid = uid;
  }

  [inspect.custom](): string {
    return `UserRecord { ${this.uid}: ${this.quotaKeys} keys, ${this.quotaBytes} bytes }`;
  }
}
