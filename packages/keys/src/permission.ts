/**
 * The permission mask of a key: one byte each for its possessor, its owner, its group and all others, and six rights in
 * each byte.
 *
 * ```
 *   bits   24-29       16-21    8-13    0-5
 *         +-----------+--------+-------+-------+
 *         | possessor | user   | group | other |   each: setattr link search write read view
 *         +-----------+--------+-------+-------+
 * ```
 * Source: keyrings(7), uapi/linux/keyctl.h.
 */
import type { Credentials } from "./process.ts";
import type { Key } from "./key.ts";

export const KEY_VIEW = 0x01;
export const KEY_READ = 0x02;
export const KEY_WRITE = 0x04;
export const KEY_SEARCH = 0x08;
export const KEY_LINK = 0x10;
export const KEY_SETATTR = 0x20;

/** All six rights. */
export const KEY_ALL = 0x3f;

/** Every bit that a mask may have. */
export const PERMISSION_BITS = 0x3f3f3f3f;

/** Needs that no mask decides: the operation has other grounds. */
export const NEED_UNLINK = 0x100;
export const NEED_OVERRIDE = 0x101;
export const NEED_AUTHORITY = 0x102;
export const NEED_LATER = 0x103;

/** The group of a key that has none; shown as the overflow group. */
export const NO_GROUP = -1;

/** A mask out of its four bytes. */
export const permissionMask = (rights: {
  readonly possessor: number;
  readonly user?: number;
  readonly group?: number;
  readonly other?: number;
}): number => (rights.possessor << 24) | ((rights.user ?? 0) << 16) | ((rights.group ?? 0) << 8) | (rights.other ?? 0);

/**
 * Whether these credentials have the right on the key. Exactly one of the classes user, group and other applies;
 * possession adds to it. No capability helps. Source: keyrings(7), "Possession" and "Access rights".
 */
export const permits = (key: Key, needed: number, who: Credentials, possessed: boolean): boolean => {
  if (needed > KEY_ALL) return true;
  const mask = key.permissions;
  let rights = 0;
  if (key.uid === who.fsuid) rights = mask >> 16;
  else if ((mask & 0x3f00) !== 0 && isMember(key.gid, who)) rights = mask >> 8;
  else rights = mask;
  if (possessed) rights |= mask >> 24;
  return (rights & needed) === needed;
};

/** Whether these credentials have any right at all on the key. */
export const permitsAny = (key: Key, who: Credentials, possessed: boolean): boolean =>
  [KEY_VIEW, KEY_READ, KEY_WRITE, KEY_SEARCH, KEY_LINK, KEY_SETATTR].some((right) =>
    permits(key, right, who, possessed),
  );

const isMember = (gid: number, who: Credentials): boolean =>
  gid !== NO_GROUP && (gid === who.fsgid || who.groups.includes(gid));
