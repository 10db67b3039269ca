import type { Key } from "./key.ts";
import type { PayloadStore, PayloadTarget } from "./payload-store.ts";
import type { Restriction } from "./restriction.ts";
import type { Authority } from "./authority.ts";

/** A payload on its way into a key. `preparse` fills it in; `instantiate` and `update` take it over. */
export interface Preparsed {
  /** The bytes that the caller gave, none for null. They are only valid during the operation. */
  readonly bytes: Uint8Array;
  /** Who pays for what is kept of them: the owner of the key, as far as it is known. */
  readonly uid: number;
  /** What the type made of them. Whoever takes it over sets it to undefined. */
  payload: unknown;
  /** The description that the type proposes when the caller gave none: a byte string. */
  description: string | undefined;
  /** Bytes to be charged to the owner of the key. */
  quotaBytes: number;
  /** Second from which the key is expired, or NEVER. */
  expiry: number;
}

/** A description that is looked for. `matchPreparse` may change how. */
export interface Match {
  /** What was asked for: a byte string. */
  readonly description: string;
  /** Whether a key of the type is wanted; undefined: one of exactly that description. */
  compare: ((key: Key) => boolean) | undefined;
  /** Whether every key of a keyring is compared, not only the one of that description. */
  iterate: boolean;
}

/** What a type may use of the service. */
export interface TypeContext {
  readonly payloads: PayloadStore;
  /** Charges a key for a payload of this size instead of its present one: 0, or -EDQUOT. */
  readonly reserve: (key: Key, bytes: number) => number;
  /** The key with this serial, for restrictions that name a keyring. */
  readonly find: (serial: number) => Key | undefined;
  /** The current second. */
  readonly now: () => number;
}

/**
 * A type of keys: what their payloads are and what can be done with them. Functions answer 0 or a negated error number.
 * What a type has no function for is refused: no `read`, and reading is -EOPNOTSUPP.
 */
export interface KeyType {
  /** 1 to 31 bytes. Callers cannot name one that begins with a dot. */
  readonly name: string;
  /** Bytes charged for every key beside its description and payload. */
  readonly baseBytes?: number;
  /** Whether expired keys are collected without the usual delay. */
  readonly reapsAtOnce?: boolean;
  /** Checks a description: 0 or a negated error number. */
  vetDescription?(description: string): number;
  /** Checks a payload and makes something of it, before anything is changed. */
  preparse?(prepared: Preparsed, context: TypeContext): number;
  /** Drops what `preparse` made, if nobody took it over. Called after every preparse that succeeded. */
  freePreparse?(prepared: Preparsed, context: TypeContext): void;
  /** Gives the key its first payload. */
  instantiate?(key: Key, prepared: Preparsed, context: TypeContext): number;
  /** Replaces the payload. Without it a key that is added again is replaced by a new one. */
  update?(key: Key, prepared: Preparsed, context: TypeContext): number;
  /** Decides how keys are compared with what is looked for. */
  matchPreparse?(match: Match): number;
  /** The key is given to another user: its payload too, before anything is changed. Nothing is changed if that fails. */
  changeUser?(key: Key, uid: number, context: TypeContext): number;
  /** Lets go of the payload of a key that was revoked. */
  revoke?(key: Key, context: TypeContext): void;
  /** Lets go of the payload of a key that is gone; only called for keys that were instantiated. */
  destroy?(key: Key, context: TypeContext): void;
  /** What the list of keys says of a key: a byte string. */
  describe?(key: Key): string;
  /** The size of the payload; gives it to the target, by its `set`, if there is room for all of it. */
  read?(key: Key, target: PayloadTarget | undefined, context: TypeContext): number;
  /**
   * Builds a key instead of the helper program. It must settle the key, through the service, before it returns or its
   * promise fulfils; `aux` is what `requestKeyWithAuxdata` was given.
   */
  requestKey?(authority: Authority, aux: unknown): Promise<void> | void;
  /** Understands the text of a restriction of a keyring to keys of this type. */
  lookupRestriction?(text: string, context: TypeContext): Restriction | number;
}
