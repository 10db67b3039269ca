import { instantiateAndLink, withPreparsed } from "../instantiation.ts";
import { type Key, POSITIVE } from "../key.ts";
import { isKeyring, linksOf } from "../link-table.ts";
import { link } from "../links.ts";
import { rejectAll } from "../restriction.ts";
import { persistentRing, startKeyring } from "../rings.ts";
import { isGone, type KeyState } from "../state.ts";
import { keyringType } from "../type-keyring.ts";
import { bigKeyType, userType } from "../type-user.ts";
import type { SavedKey, SavedKeys } from "./persistent-record.ts";

/** Links that a keyring has in slots; one with more keeps them in order. */
const SLOTS = 16;
const PREFIX = "_persistent.";

/** Types whose payloads last, and what reads them: keys of type logon are as those of type user, but nobody else may read them. */
const readers = new Map([
  ["user", userType],
  ["logon", userType],
  ["big_key", bigKeyType],
]);

const lasts = (state: KeyState, key: Key): boolean =>
  key.state === POSITIVE &&
  !isGone(key) &&
  !state.isExpired(key) &&
  (key.type === keyringType || readers.has(key.type.name));

const payloadOf = (state: KeyState, key: Key): Buffer => {
  const reader = readers.get(key.type.name);
  const size = reader?.read?.(key, undefined, state.context) ?? 0;
  const bytes = Buffer.alloc(size);
  reader?.read?.(key, bytes, state.context);
  return bytes;
};

/** The persistent keyrings with all that can be reached from them, except for what would be of no use in another run. */
export const savePersistent = (state: KeyState): SavedKeys => {
  const register = state.persistentRegister;
  const roots =
    register === undefined
      ? []
      : linksOf(register)
          .list()
          .filter((key) => lasts(state, key));
  const places = new Map<Key, number>(roots.map((key, at) => [key, at]));
  const order = [...roots];
  const linksFrom = (key: Key): number[] => {
    const links: number[] = [];
    for (const child of linksOf(key).list()) {
      if (!lasts(state, child)) continue;
      let place = places.get(child);
      if (place === undefined) {
        place = order.push(child) - 1;
        places.set(child, place);
      }
      links.push(place);
    }
    return links;
  };
  const keys: SavedKey[] = [];
  // The list grows while it is gone through.
  for (const key of order) {
    const { uid, gid, permissions, expiry, description } = key;
    const isRing = isKeyring(key);
    const links = isRing ? linksFrom(key) : [];
    const payload = isRing ? Buffer.alloc(0) : payloadOf(state, key);
    const isRestricted = isRing && linksOf(key).restriction !== undefined;
    keys.push({ type: key.type.name, description, uid, gid, permissions, isRestricted, expiry, payload, links });
  }
  return { roots: roots.length, keys };
};

/** Makes the keys again. What cannot be made, for the lack of quota, say, is left out; the result is how many those were. */
export const restorePersistent = (state: KeyState, { roots, keys }: SavedKeys): number => {
  const made = keys.map((saved, at) => (at < roots ? restoreRoot(state, saved) : restoreKey(state, saved)));
  let missing = made.filter((key) => key === undefined).length;
  for (const [at, { links, isRestricted }] of keys.entries()) {
    const ring = made[at];
    if (ring === undefined || !isKeyring(ring)) continue;
    for (const place of inOrder(links)) {
      const child = made[place];
      if (child !== undefined && link(state, ring, child) < 0) missing += 1;
    }
    if (isRestricted) linksOf(ring).restriction = rejectAll;
  }
  // Links hold the keys from now on; this one reference was ours. Persistent keyrings are held by their register.
  for (const key of made.slice(roots)) if (key !== undefined) state.put(key);
  for (const [at, { expiry }] of keys.entries()) {
    const key = made[at];
    if (key !== undefined && key.usage > 0) state.setExpiry(key, expiry);
  }
  return missing;
};

/** Slots of a small keyring are filled from the ends: the first link, then the last one, and so on towards the first. */
const inOrder = (links: readonly number[]): readonly number[] =>
  links.length > SLOTS ? links : [...links.slice(0, 1), ...links.slice(1).toReversed()];

const restoreRoot = (state: KeyState, saved: SavedKey): Key | undefined => {
  const uid = Number(saved.description.slice(PREFIX.length));
  if (!saved.description.startsWith(PREFIX) || !Number.isInteger(uid)) return undefined;
  const ring = persistentRing(state, uid);
  if (typeof ring === "number") return undefined;
  ring.permissions = saved.permissions;
  return ring;
};

const restoreKey = (state: KeyState, { type: name, payload, ...saved }: SavedKey): Key | undefined => {
  const type = state.types.get(name);
  if (type === undefined) return undefined;
  const { description, uid, gid, permissions } = saved;
  const key = state.allocate({ type, description, domain: "", uid, gid, permissions, quota: "checked" });
  if (typeof key === "number") return undefined;
  if (type === keyringType) startKeyring(state, key);
  const bytes = type === keyringType ? null : payload;
  const result = withPreparsed(state, { type, bytes, uid }, (prepared) => instantiateAndLink(state, key, prepared, {}));
  if (result === 0) return key;
  state.put(key);
  return undefined;
};
