import { inspect } from "node:util";
import { EKEYREVOKED } from "./errno.ts";
import type { Key } from "./key.ts";
import type { KeyType } from "./key-type.ts";
import type { Credentials } from "./process.ts";

/**
 * The right to build one key, with the rights of whoever asked for it first. It is the payload of an authorisation key;
 * types that build their keys themselves are given it.
 */
export class Authority {
  /** The key to be built. */
  readonly target: Key;
  /** Where it was asked to be linked. */
  readonly destination: Key | undefined;
  /** The first requester's rights and keyrings, as they were. */
  readonly requester: Credentials;
  /** The first requester's process. */
  readonly pid: number;
  /** What the requester said about the key that it wants; the authority's own, wiped when it ends. */
  readonly callout: Uint8Array;
  /** What is to be done; "create". */
  readonly operation = "create";
  /** Its authorisation key; set when that exists. */
  key: Key | undefined = undefined;

  constructor(facts: Pick<Authority, "target" | "destination" | "requester" | "pid" | "callout">) {
    this.target = facts.target;
    this.destination = facts.destination;
    this.requester = facts.requester;
    this.pid = facts.pid;
    this.callout = facts.callout;
  }

  [inspect.custom](): string {
    return `Authority { for ${this.target.serial} }`;
  }

  /** Every key that it holds a reference to. */
  get held(): readonly Key[] {
    const { thread, process, session } = this.requester;
    return [this.target, this.destination, thread, process, session].filter((key) => key !== undefined);
  }
}

/** The authority that an authorisation key carries; none once it was revoked. */
export const authorityOf = (key: Key): Authority | undefined =>
  key.payload instanceof Authority ? key.payload : undefined;

/** Authorisation keys. They cannot be made or found by name; only the service makes them. Source: keyrings(7). */
export const authorityType: KeyType = {
  name: ".request_key_auth",
  describe: (key) => {
    const authority = authorityOf(key);
    if (authority === undefined) return `key:${key.description}`;
    return `key:${key.description} pid:${authority.pid} ci:${authority.callout.length}`;
  },
  read: (key, target) => {
    const authority = authorityOf(key);
    if (authority === undefined) return -EKEYREVOKED;
    const { callout } = authority;
    if (target !== undefined && target.length >= callout.length) target.set(callout);
    return callout.length;
  },
};
