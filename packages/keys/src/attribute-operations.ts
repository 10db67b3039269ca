import { EACCES, EDEADLK, EINVAL, ENOKEY, EOPNOTSUPP, EPERM } from "./errno.ts";
import { invalidate as invalidateKey, revoke as revokeKey } from "./instantiation.ts";
import { type Key, KEY_KEEP, KEY_ROOT_CAN_INVALIDATE, NEVER } from "./key.ts";
import { findAuthority, lookup, LOOKUP, LOOKUP_CREATE, LOOKUP_PARTIAL, validate } from "./lookup.ts";
import {
  KEY_READ,
  KEY_SEARCH,
  KEY_SETATTR,
  KEY_VIEW,
  KEY_WRITE,
  NEED_AUTHORITY,
  NEED_LATER,
  NEED_OVERRIDE,
  NO_GROUP,
  PERMISSION_BITS,
  permits,
} from "./permission.ts";
import { WAIT } from "./pending.ts";
import type { PayloadTarget } from "./payload-store.ts";
import type { Process } from "./process.ts";
import type { KeyState } from "./state.ts";

/** The id of a user or group that means: as it is. */
const KEEP_ID = -1;
const ID_MAX = 2 ** 32 - 2;
const SECONDS_MAX = 2 ** 32 - 1;
/** What is shown for a group that a key does not have. */
const OVERFLOW_GROUP = 65_534;

/** keyctl_revoke(3): 0. */
export const revoke = (state: KeyState, process: Process, id: number): number => {
  let key = lookup(state, process, id, KEY_WRITE, LOOKUP);
  if (key === -EACCES) key = lookup(state, process, id, KEY_SETATTR, LOOKUP);
  if (typeof key === "number") return key;
  if ((key.flags & KEY_KEEP) !== 0) return -EPERM;
  revokeKey(state, key);
  return 0;
};

/** keyctl_invalidate(3): 0. */
export const invalidate = (state: KeyState, process: Process, id: number): number => {
  let key = lookup(state, process, id, KEY_SEARCH, LOOKUP);
  if (typeof key === "number") {
    if (key === WAIT || !process.sysAdmin) return key;
    const override = lookup(state, process, id, NEED_OVERRIDE, LOOKUP);
    if (typeof override === "number" || (override.flags & KEY_ROOT_CAN_INVALIDATE) === 0) return key;
    key = override;
  }
  if ((key.flags & KEY_KEEP) !== 0) return -EPERM;
  invalidateKey(state, key);
  return 0;
};

/** To whom a key is given; -1 leaves the user or group as it is. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const isId = (id: number): boolean => Number.isInteger(id) && id >= KEEP_ID && id <= ID_MAX;

/** keyctl_chown(3): 0. */
export const chown = (state: KeyState, process: Process, id: number, { uid, gid }: Owner): number => {
  if (!isId(uid) || !isId(gid)) return -EINVAL;
  if (uid === KEEP_ID && gid === KEEP_ID) return 0;
  const key = lookup(state, process, id, KEY_SETATTR, LOOKUP_CREATE | LOOKUP_PARTIAL);
  if (typeof key === "number") return key;
  const changesUser = uid !== KEEP_ID && uid !== key.uid;
  const isMember = gid === process.fsgid || process.groups.includes(gid);
  const changesGroup = gid !== KEEP_ID && gid !== key.gid && !isMember;
  if ((changesUser || changesGroup) && !process.sysAdmin) return -EACCES;
  if (changesUser) {
    const refusal = state.changeOwner(key, uid);
    if (refusal < 0) return refusal;
  }
  if (gid !== KEEP_ID) key.gid = gid;
  return 0;
};

/** keyctl_setperm(3): 0. */
export const setPermissions = (state: KeyState, process: Process, id: number, mask: number): number => {
  if ((mask & ~PERMISSION_BITS) !== 0) return -EINVAL;
  const key = lookup(state, process, id, KEY_SETATTR, LOOKUP_CREATE | LOOKUP_PARTIAL);
  if (typeof key === "number") return key;
  if (key.uid !== process.fsuid && !process.sysAdmin) return -EACCES;
  key.permissions = mask;
  return 0;
};

/** A key that the caller may look at, or, without that right, one that it has the authority to build. */
const lookupWithAuthority = (
  state: KeyState,
  process: Process,
  id: number,
  need: number,
  how: number,
): Key | number => {
  const key = lookup(state, process, id, need, how);
  if (key !== -EACCES) return key;
  const authority = findAuthority(state, process, id);
  return typeof authority === "number" ? key : lookup(state, process, id, NEED_AUTHORITY, LOOKUP_PARTIAL);
};

/** keyctl_set_timeout(3): 0. */
export const setTimeout = (state: KeyState, process: Process, id: number, seconds: number): number => {
  if (!Number.isInteger(seconds) || seconds < 0 || seconds > SECONDS_MAX) return -EINVAL;
  const key = lookupWithAuthority(state, process, id, KEY_SETATTR, LOOKUP_CREATE | LOOKUP_PARTIAL);
  if (typeof key === "number") return key;
  if ((key.flags & KEY_KEEP) !== 0) return -EPERM;
  state.setExpiry(key, seconds === 0 ? NEVER : state.clock.seconds() + seconds);
  return 0;
};

/** "type;uid;gid;permissions;description" of a key, as a byte string. Source: keyctl_describe(3). */
export const descriptionOf = (key: Key): string => {
  const gid = key.gid === NO_GROUP ? OVERFLOW_GROUP : key.gid;
  return `${key.type.name};${key.uid};${gid};${hex8(key.permissions)};${key.description}`;
};

/** Eight hexadecimal digits. */
export const hex8 = (value: number): string => (value >>> 0).toString(16).padStart(8, "0");

/** Copies a text and a NUL if there is room; the length with the NUL. */
const fillText = (text: string, target: Uint8Array | undefined): number => {
  const size = text.length + 1;
  if (target === undefined || target.length < size) return size;
  for (let index = 0; index < text.length; index += 1) target[index] = text.charCodeAt(index);
  target[text.length] = 0;
  return size;
};

/** keyctl_describe(3): the length of the text with its NUL; it is there only if the target has room for all of it. */
export const describe = (state: KeyState, process: Process, id: number, target: Uint8Array | undefined): number => {
  const key = lookupWithAuthority(state, process, id, KEY_VIEW, LOOKUP_PARTIAL);
  return typeof key === "number" ? key : fillText(descriptionOf(key), target);
};

/**
 * keyctl_get_security(3): no key has a label, so that the text is empty and its length 1. Where `describe` answers -EACCES,
 * this says why there is no authority: -ENOKEY.
 */
export const getSecurity = (state: KeyState, process: Process, id: number, target: Uint8Array | undefined): number => {
  const key = lookupWithAuthority(state, process, id, KEY_VIEW, LOOKUP_PARTIAL);
  if (typeof key !== "number") return fillText("", target);
  const authority = key === -EACCES ? findAuthority(state, process, id) : key;
  return typeof authority === "number" ? authority : key;
};

/** keyctl_read(3): the size of the payload; it is copied only if the target has room for all of it. */
export const read = (state: KeyState, process: Process, id: number, target: PayloadTarget | undefined): number => {
  const key = lookup(state, process, id, NEED_LATER, LOOKUP);
  if (typeof key === "number") return key === WAIT || key === -EDEADLK ? key : -ENOKEY;
  if (key.state < 0) return key.state;
  if (!permits(key, KEY_READ, process, state.possessed) && !state.possessed) return -EACCES;
  if (key.type.read === undefined) return -EOPNOTSUPP;
  const refusal = validate(state, key);
  return refusal < 0 ? refusal : key.type.read(key, target, state.context);
};
