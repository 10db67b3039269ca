import { EDEADLK, EEXIST, EKEYREVOKED, ELOOP, ENOENT, ENOTDIR } from "./errno.ts";
import { addHolder, holds, type Key, KEY_REVOKED, type KeyIndex, NEVER, removeHolder } from "./key.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { isGone, type KeyState } from "./state.ts";

/** What a link charges to the owner of the keyring. */
export const LINK_BYTES = 4;

/** Keyrings below the root that a search goes down into. */
export const DEPTH_MAX = 6;

/** What `beginLink` found: a new link, for which it has charged, or one that takes the place of another. */
const FRESH = 0;
const REPLACES = 1;

/** Whether the caller asked `move` to leave alone what is at its destination. Source: keyctl_move(3), KEYCTL_MOVE_EXCL. */
export const MOVE_EXCLUSIVE = 1;

/** Makes room for a link with this index: what `cancelLink` must be told if it does not come, or -EKEYREVOKED or -EDQUOT. */
export const beginLink = (state: KeyState, keyring: Key, index: KeyIndex): number => {
  if ((keyring.flags & KEY_REVOKED) !== 0) return -EKEYREVOKED;
  if (linksOf(keyring).find(index) !== undefined) return REPLACES;
  const refusal = state.reserve(keyring, keyring.payloadBytes + LINK_BYTES);
  return refusal < 0 ? refusal : FRESH;
};

/** Gives back the room of a link that was begun. */
export const cancelLink = (state: KeyState, keyring: Key, begun: number): void => {
  if (begun === FRESH) state.reserve(keyring, keyring.payloadBytes - LINK_BYTES);
};

/** Makes the link that was begun. It displaces one of the same index. */
export const commitLink = (state: KeyState, keyring: Key, key: Key): void => {
  state.get(key);
  const displaced = linksOf(keyring).add(key);
  if (displaced !== undefined) {
    if (displaced !== key) removeHolder(displaced, keyring);
    state.put(displaced);
  }
  if (displaced !== key) addHolder(key, keyring);
  // The collector may have been past it already.
  if (key.expiry !== NEVER) state.setExpiry(key, key.expiry);
};

const checkRestriction = (keyring: Key, key: Key): number =>
  linksOf(keyring).restriction?.check(keyring, key.type, key.payload) ?? 0;

/** Links a key: 0, -ENOTDIR, -EKEYREVOKED, -EDQUOT, what the restriction answers, -EDEADLK or -ELOOP. */
export const link = (state: KeyState, keyring: Key, key: Key, options = { restricted: true }): number => {
  if (!isKeyring(keyring)) return -ENOTDIR;
  const begun = beginLink(state, keyring, key);
  if (begun < 0) return begun;
  let refusal = options.restricted ? checkRestriction(keyring, key) : 0;
  if (refusal === 0 && isKeyring(key)) refusal = detectCycle(keyring, key);
  if (refusal < 0) cancelLink(state, keyring, begun);
  else commitLink(state, keyring, key);
  return refusal;
};

/** Removes one link; what it charged comes back unless the collector removes it. */
export const dropLink = (state: KeyState, keyring: Key, key: Key, byCollector = false): void => {
  const links = linksOf(keyring);
  links.remove(key, byCollector);
  removeHolder(key, keyring);
  if (byCollector) links.leakedBytes += LINK_BYTES;
  else state.reserve(keyring, keyring.payloadBytes - LINK_BYTES);
  state.put(key);
};

/** Removes the link that has the index of this key, whatever key it leads to: 0, -ENOTDIR or -ENOENT. */
export const unlink = (state: KeyState, keyring: Key, key: Key): number => {
  if (!isKeyring(keyring)) return -ENOTDIR;
  const linked = linksOf(keyring).find(key);
  if (linked === undefined) return -ENOENT;
  dropLink(state, keyring, linked);
  return 0;
};

/** Moves a link: 0, -ENOTDIR, -ENOENT, -EKEYREVOKED, -EDQUOT, -EEXIST, the restriction's answer, -EDEADLK or -ELOOP. */
export const move = (
  state: KeyState,
  key: Key,
  rings: { readonly from: Key; readonly to: Key },
  flags: number,
): number => {
  const { from, to } = rings;
  if (from === to) return 0;
  if (!isKeyring(from) || !isKeyring(to)) return -ENOTDIR;
  const linked = linksOf(from).find(key);
  if (linked === undefined) return -ENOENT;
  const begun = beginLink(state, to, key);
  if (begun < 0) return begun;
  let refusal = begun === REPLACES && (flags & MOVE_EXCLUSIVE) !== 0 ? -EEXIST : checkRestriction(to, key);
  if (refusal === 0 && isKeyring(key)) refusal = detectCycle(to, key);
  if (refusal < 0) {
    cancelLink(state, to, begun);
    return refusal;
  }
  // The key must outlive the moment in which no keyring has it.
  state.get(key);
  dropLink(state, from, linked);
  commitLink(state, to, key);
  state.put(key);
  return 0;
};

/** Removes all links. */
export const dropAllLinks = (state: KeyState, keyring: Key): void => {
  for (const key of linksOf(keyring).clear()) {
    removeHolder(key, keyring);
    state.put(key);
  }
};

/** Removes all links, and gives back all that they charged. */
export const clearKeyring = (state: KeyState, keyring: Key): void => {
  dropAllLinks(state, keyring);
  linksOf(keyring).leakedBytes = 0;
  state.reserve(keyring, 0);
};

/**
 * Whether linking `key`, a keyring, into `keyring` would make a circle or reach too deep: 0, -EDEADLK or -ELOOP. Only what
 * is below `key` counts.
 */
export const detectCycle = (keyring: Key, key: Key): number =>
  key === keyring ? -EDEADLK : cycleBelow(key, keyring, 0, new Map());

/** `seen` keeps the depths at which a keyring was found harmless: keyrings can be reached on very many ways. */
const cycleBelow = (ring: Key, wanted: Key, depth: number, seen: Map<Key, number>): number => {
  if (isGone(ring)) return 0;
  if (holds(ring, wanted)) return -EDEADLK;
  const harmless = seen.get(ring) ?? 0;
  if ((harmless & (1 << depth)) !== 0) return 0;
  for (const child of linksOf(ring).keyrings()) {
    if (depth >= DEPTH_MAX) return -ELOOP;
    const found = cycleBelow(child, wanted, depth + 1, seen);
    if (found < 0) return found;
  }
  seen.set(ring, harmless | (1 << depth));
  return 0;
};
