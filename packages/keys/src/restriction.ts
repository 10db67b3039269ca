import { EPERM } from "./errno.ts";
import type { Key } from "./key.ts";
import type { KeyType } from "./key-type.ts";

/** What may be linked into a keyring. */
export interface Restriction {
  /** The type whose restriction it is; undefined for the one that refuses everything. */
  readonly type: KeyType | undefined;
  /** The keyring or key that it consults, if it names one other than the restricted keyring itself. The restriction holds a reference. */
  readonly trusted: Key | undefined;
  /** 0, or why a key with this type and payload may not be linked into the keyring: a negated error number. */
  check(keyring: Key, type: KeyType, payload: unknown): number;
}

/** Refuses every link. Source: keyctl_restrict_keyring(3), a null type. */
export const rejectAll: Restriction = { type: undefined, trusted: undefined, check: () => -EPERM };
