import { linkFound, lookupDestination } from "./destination.ts";
import { EAGAIN, EDEADLK, EEXIST, EINVAL, ENOENT, ENOKEY, ENOTDIR, EPERM } from "./errno.ts";
import { type Key, KEY_KEEP, KEY_ROOT_CAN_CLEAR } from "./key.ts";
import type { KeyType } from "./key-type.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { clearKeyring, link as linkKey, move as moveKey, MOVE_EXCLUSIVE, unlink as unlinkKey } from "./links.ts";
import { lookup, LOOKUP, LOOKUP_CREATE, LOOKUP_PARTIAL } from "./lookup.ts";
import { KEY_LINK, KEY_SEARCH, KEY_SETATTR, KEY_WRITE, NEED_OVERRIDE, NEED_UNLINK } from "./permission.ts";
import type { Process } from "./process.ts";
import { WAIT } from "./pending.ts";
import { rejectAll, type Restriction } from "./restriction.ts";
import { exactly, type Manner, Search, SEARCHING, type Wanted } from "./search.ts";
import type { KeyState } from "./state.ts";
import { byteString, type KeyText, typeName } from "./text.ts";

/** What a caller looks for, with the type's own way of comparing: or what the type refuses. */
export const wantedOf = (type: KeyType, description: string, manner: Manner, domain = ""): Wanted | number => {
  const wanted = exactly(type, description, manner, domain);
  const refusal = type.matchPreparse?.(wanted.match) ?? 0;
  return refusal < 0 ? refusal : wanted;
};

/** keyctl_clear(3): 0. */
export const clear = (state: KeyState, process: Process, id: number): number => {
  let keyring = lookup(state, process, id, KEY_WRITE, LOOKUP_CREATE);
  if (typeof keyring === "number") {
    if (keyring === WAIT || !process.sysAdmin) return keyring;
    const override = lookup(state, process, id, NEED_OVERRIDE, LOOKUP);
    if (typeof override === "number" || (override.flags & KEY_ROOT_CAN_CLEAR) === 0) return keyring;
    keyring = override;
  }
  if ((keyring.flags & KEY_KEEP) !== 0) return -EPERM;
  if (!isKeyring(keyring)) return -ENOTDIR;
  clearKeyring(state, keyring);
  return 0;
};

/** keyctl_link(3): 0. */
export const link = (state: KeyState, process: Process, id: number, ring: number): number => {
  const keyring = lookup(state, process, ring, KEY_WRITE, LOOKUP_CREATE);
  if (typeof keyring === "number") return keyring;
  const key = lookup(state, process, id, KEY_LINK, LOOKUP_CREATE);
  return typeof key === "number" ? key : linkKey(state, keyring, key);
};

/** keyctl_unlink(3): 0. What goes is the link of the same type and description, whichever key it leads to. */
export const unlink = (state: KeyState, process: Process, id: number, ring: number): number => {
  const keyring = lookup(state, process, ring, KEY_WRITE, LOOKUP);
  if (typeof keyring === "number") return keyring;
  const key = lookup(state, process, id, NEED_UNLINK, LOOKUP_PARTIAL);
  if (typeof key === "number") return key;
  if ((keyring.flags & KEY_KEEP) !== 0 && (key.flags & KEY_KEEP) !== 0) return -EPERM;
  return unlinkKey(state, keyring, key);
};

/** Where a key moves. */
export interface Rings {
  readonly from: number;
  readonly to: number;
}

/** keyctl_move(3): 0. */
export const move = (state: KeyState, process: Process, id: number, rings: Rings, flags: number): number => {
  if ((flags & ~MOVE_EXCLUSIVE) !== 0) return -EINVAL;
  const key = lookup(state, process, id, KEY_LINK, LOOKUP_CREATE);
  if (typeof key === "number") return key;
  const from = lookup(state, process, rings.from, KEY_WRITE, LOOKUP);
  if (typeof from === "number") return from;
  const to = lookup(state, process, rings.to, KEY_WRITE, LOOKUP_CREATE);
  return typeof to === "number" ? to : moveKey(state, key, { from, to }, flags);
};

/** What is searched for, in which keyring, and where it is linked then (0: nowhere). */
export interface SearchRequest {
  readonly ring: number;
  readonly type: KeyText;
  readonly description: KeyText;
  readonly destination: number;
}

/** keyctl_search(3): the serial of what was found. */
export const search = (state: KeyState, process: Process, request: SearchRequest): number => {
  const name = typeName(request.type);
  if (typeof name === "number") return name;
  const description = byteString(request.description);
  if (typeof description === "number") return description;
  const keyring = lookup(state, process, request.ring, KEY_SEARCH, LOOKUP);
  if (typeof keyring === "number") return keyring;
  const { possessed } = state;
  const destination = lookupDestination(state, process, request.destination);
  if (typeof destination === "number") return destination;
  const type = state.types.get(name);
  if (type === undefined) return -ENOKEY;
  if (!isKeyring(keyring)) return -ENOTDIR;
  const wanted = wantedOf(type, description, SEARCHING);
  if (typeof wanted === "number") return wanted;
  const walk = new Search(state, process, wanted, state.errorPriority);
  if (!walk.tree(keyring, possessed)) return walk.error === -EAGAIN ? -ENOKEY : walk.error;
  const key = walk.key!;
  const refusal = linkFound(state, process, { key, possessed: walk.possessed }, destination);
  return refusal < 0 ? refusal : key.serial;
};

/** What a keyring is restricted to: keys of a type, as that type's text says; nothing at all without both. */
export interface RestrictRequest {
  readonly ring: number;
  readonly type: KeyText | null;
  readonly restriction: KeyText | null;
}

/** keyctl_restrict_keyring(3): 0. */
export const restrict = (state: KeyState, process: Process, request: RestrictRequest): number => {
  const keyring = lookup(state, process, request.ring, KEY_SETATTR, LOOKUP);
  if (typeof keyring === "number") return keyring;
  if ((request.type === null) !== (request.restriction === null)) return -EINVAL;
  let restriction: Restriction | number = rejectAll;
  if (request.type === null || request.restriction === null) {
    if (!isKeyring(keyring)) return -ENOTDIR;
  } else {
    const name = typeName(request.type);
    if (typeof name === "number") return name;
    const text = byteString(request.restriction);
    if (typeof text === "number") return text;
    if (!isKeyring(keyring)) return -ENOTDIR;
    restriction = restrictionFor(state, name, text);
  }
  if (typeof restriction === "number") return restriction;
  const links = linksOf(keyring);
  if (links.restriction !== undefined) return -EEXIST;
  if (leadsBack(keyring, restriction)) return -EDEADLK;
  links.restriction = restriction;
  if (restriction.trusted !== undefined) state.get(restriction.trusted);
  return 0;
};

const restrictionFor = (state: KeyState, name: string, text: string): Restriction | number => {
  const type = state.types.get(name);
  if (type === undefined) return -ENOKEY;
  return type.lookupRestriction?.(text, state.context) ?? -ENOENT;
};

/** Whether a chain of restrictions leads back to the keyring, so that neither could ever be freed. */
const leadsBack = (keyring: Key, restriction: Restriction): boolean => {
  let next = restriction.trusted;
  while (next !== undefined && isKeyring(next)) {
    if (next === keyring) return true;
    next = linksOf(next).restriction?.trusted;
  }
  return false;
};
