import { inspect } from "node:util";
import type { KeyType } from "./key-type.ts";
import type { UserRecord } from "./user-record.ts";

/** The state of a key that nobody has instantiated yet. */
export const UNINSTANTIATED = 0;
/** The state of a key that has a payload. Below zero: the negated error that a negative key answers with. */
export const POSITIVE = 1;

/** The expiry of a key that does not expire. */
export const NEVER = -1;

/** A reference count that has got here stays here: the key is never freed, instead of being freed too early. */
export const USAGE_MAX = 2 ** 31 - 1;

/** Bits of `Key.flags`. */
export const KEY_DEAD = 1;
export const KEY_REVOKED = 2;
export const KEY_IN_QUOTA = 4;
export const KEY_UNDER_CONSTRUCTION = 8;
export const KEY_ROOT_CAN_CLEAR = 16;
export const KEY_INVALIDATED = 32;
export const KEY_ROOT_CAN_INVALIDATE = 128;
export const KEY_KEEP = 256;
export const KEY_UID_KEYRING = 512;

/** What identifies a key within a keyring. */
export interface KeyIndex {
  readonly type: KeyType;
  /** Byte string: one character per byte, as all texts inside the service. */
  readonly description: string;
  /** Separates keys that are equal otherwise; empty for all that callers make. */
  readonly domain: string;
}

/** One key. Its fields belong to the service; types of one's own read them and change `payload` only. */
export class Key implements KeyIndex {
  readonly serial: number;
  /** It changes once at most: when the type is unregistered. */
  type: KeyType;
  readonly description: string;
  readonly domain: string;
  /** Whose quota it counts in. */
  user: UserRecord;
  uid: number;
  gid: number;
  permissions: number;
  /** UNINSTANTIATED, POSITIVE or a negated error number. */
  state = UNINSTANTIATED;
  flags = 0;
  /** Second of the wall clock from which it is expired, or NEVER; the time of revocation once it is revoked. */
  expiry = NEVER;
  /** Bytes that it has charged to its owner. */
  quotaBytes = 0;
  /** The part of them that is its payload. */
  payloadBytes = 0;
  /** References: links, credentials, authorisations, waits. */
  usage = 1;
  /** What its type made of its payload: a handle of the payload store, a table of links. */
  payload: unknown = undefined;
  /** The keyrings that it is linked in. */
  holders: Key | Set<Key> | undefined = undefined;

  constructor(
    serial: number,
    index: KeyIndex,
    owner: { readonly user: UserRecord; readonly uid: number; readonly gid: number },
    permissions: number,
  ) {
    this.serial = serial;
    this.type = index.type;
    this.description = index.description;
    this.domain = index.domain;
    this.user = owner.user;
    this.uid = owner.uid;
    this.gid = owner.gid;
    this.permissions = permissions;
  }

  /** What `console.log` shows: neither description nor payload. */
  [inspect.custom](): string {
    return `Key { ${this.serial} ${this.type.name} }`;
  }
}

/** Whether the keyring has a link to the key. */
export const holds = (keyring: Key, key: Key): boolean => {
  const { holders } = key;
  return holders === keyring || (holders instanceof Set && holders.has(keyring));
};

/** Notes that a keyring links the key. */
export const addHolder = (key: Key, keyring: Key): void => {
  const { holders } = key;
  if (holders === undefined) key.holders = keyring;
  else if (holders instanceof Set) holders.add(keyring);
  else key.holders = new Set([holders, keyring]);
};

/** Notes that a keyring links the key no more. */
export const removeHolder = (key: Key, keyring: Key): void => {
  const { holders } = key;
  if (holders === keyring) key.holders = undefined;
  else if (holders instanceof Set) {
    holders.delete(keyring);
    if (holders.size === 1) [key.holders] = holders;
  }
};

/** The keyrings that link the key, as they are now. */
export const holdersOf = (key: Key): readonly Key[] => {
  const { holders } = key;
  if (holders === undefined) return [];
  return holders instanceof Set ? [...holders] : [holders];
};
