import { authorityOf } from "./authority.ts";
import { EBUSY, ENOTDIR, EPERM } from "./errno.ts";
import {
  holdersOf,
  type Key,
  KEY_INVALIDATED,
  KEY_KEEP,
  KEY_REVOKED,
  KEY_UNDER_CONSTRUCTION,
  NEVER,
  POSITIVE,
  UNINSTANTIATED,
} from "./key.ts";
import type { KeyType, Preparsed } from "./key-type.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { beginLink, cancelLink, clearKeyring, commitLink, dropLink } from "./links.ts";
import { isGone, type KeyState } from "./state.ts";

const NO_BYTES = new Uint8Array(0);

/** A payload that nothing has been made of yet. */
export const unparsed = (bytes: Uint8Array | null, uid: number): Preparsed => ({
  bytes: bytes ?? NO_BYTES,
  uid,
  payload: undefined,
  description: undefined,
  quotaBytes: 0,
  expiry: NEVER,
});

/** A payload that is to be made something of: what it is for, and who pays for it. */
interface Unparsed {
  readonly type: KeyType;
  readonly bytes: Uint8Array | null;
  readonly uid: number;
}

/** Has the type make something of a payload, passes that on, and lets go of what was not taken over. */
export const withPreparsed = (
  state: KeyState,
  { type, bytes, uid }: Unparsed,
  use: (prepared: Preparsed) => number,
): number => {
  const prepared = unparsed(bytes, uid);
  if (type.preparse === undefined) return use(prepared);
  try {
    const refusal = type.preparse(prepared, state.context);
    return refusal < 0 ? refusal : usePreparsed(state, { type, prepared }, use);
  } finally {
    // A user whose first key was refused has no owner for payloads either.
    if ((state.users.get(uid)?.keyCount ?? 0) === 0) state.payloads.forgetUser(uid);
  }
};

const usePreparsed = (
  state: KeyState,
  { type, prepared }: { readonly type: KeyType; readonly prepared: Preparsed },
  use: (prepared: Preparsed) => number,
): number => {
  try {
    return use(prepared);
  } finally {
    type.freePreparse?.(prepared, state.context);
  }
};

/** The key is built, or its construction failed for good: those who wait for it go on. */
const endConstruction = (state: KeyState, key: Key): void => {
  if ((key.flags & KEY_UNDER_CONSTRUCTION) === 0) return;
  key.flags &= ~KEY_UNDER_CONSTRUCTION;
  state.waits.built(key);
};

/**
 * Gives a key its payload, links it where that was prepared, and ends the authority to do so: 0, -EBUSY if it has one
 * already, or what its type answers. An expiry that was set before stays unless the payload brings its own.
 */
export const instantiateAndLink = (
  state: KeyState,
  key: Key,
  prepared: Preparsed,
  options: { readonly keyring?: Key | undefined; readonly authority?: Key | undefined },
): number => {
  if (key.state !== UNINSTANTIATED) return -EBUSY;
  const refusal = key.type.instantiate?.(key, prepared, state.context) ?? 0;
  if (refusal < 0) return refusal;
  key.user.instantiatedCount += 1;
  key.state = POSITIVE;
  const { keyring, authority } = options;
  if (keyring !== undefined) {
    if ((keyring.flags & KEY_KEEP) !== 0) key.flags |= KEY_KEEP;
    commitLink(state, keyring, key);
  }
  if (authority !== undefined) invalidate(state, authority);
  if (prepared.expiry !== NEVER) state.setExpiry(key, prepared.expiry);
  endConstruction(state, key);
  return 0;
};

/** Instantiates a key that is under construction. As above, or -ENOTDIR, -EKEYREVOKED, -EDQUOT, or what the restriction answers. */
export const instantiateInto = (
  state: KeyState,
  key: Key,
  bytes: Uint8Array | null,
  options: { readonly keyring: Key | undefined; readonly authority: Key },
): number =>
  withPreparsed(state, { type: key.type, bytes, uid: key.user.uid }, (prepared) => {
    const { keyring } = options;
    if (keyring === undefined) return instantiateAndLink(state, key, prepared, options);
    if (!isKeyring(keyring)) return -ENOTDIR;
    const begun = beginLink(state, keyring, key);
    if (begun < 0) return begun;
    let isLinked = false;
    try {
      const refusal = linksOf(keyring).restriction?.check(keyring, key.type, prepared.payload) ?? 0;
      if (refusal < 0) return refusal;
      const result = instantiateAndLink(state, key, prepared, options);
      isLinked = result === 0;
      return result;
    } finally {
      if (!isLinked) cancelLink(state, keyring, begun);
    }
  });

/** How a key is rejected: for how many seconds, with which error number. */
export interface Rejection {
  readonly seconds: number;
  readonly error: number;
  readonly keyring?: Key | undefined;
  readonly authority?: Key | undefined;
}

/**
 * Makes a key negative: 0, -EBUSY if it is built already, -EPERM for a keyring with a restriction, or why it could not
 * be linked, though it is negative then.
 */
export const rejectAndLink = (state: KeyState, key: Key, rejection: Rejection): number => {
  const { keyring, authority } = rejection;
  let begun: number | undefined;
  if (keyring !== undefined) {
    if (!isKeyring(keyring)) begun = -ENOTDIR;
    else if (linksOf(keyring).restriction !== undefined) return -EPERM;
    else begun = beginLink(state, keyring, key);
  }
  if (key.state !== UNINSTANTIATED) {
    if (keyring !== undefined && begun !== undefined && begun >= 0) cancelLink(state, keyring, begun);
    return -EBUSY;
  }
  key.user.instantiatedCount += 1;
  key.state = -rejection.error;
  state.setExpiry(key, state.clock.seconds() + rejection.seconds);
  if (keyring !== undefined && begun !== undefined && begun >= 0) commitLink(state, keyring, key);
  if (authority !== undefined) invalidate(state, authority);
  endConstruction(state, key);
  return begun !== undefined && begun < 0 ? begun : 0;
};

/** Invalidates a key: it cannot be used from now on, and its links go. Their keyrings are not given back what they charged. */
export const invalidate = (state: KeyState, key: Key): void => {
  if ((key.flags & KEY_INVALIDATED) !== 0) return;
  key.flags |= KEY_INVALIDATED;
  reapLinks(state, key);
};

/** Removes the links to a key from all keyrings that can still be used. */
export const reapLinks = (state: KeyState, key: Key): void => {
  for (const keyring of holdersOf(key)) if (!isGone(keyring)) dropLink(state, keyring, key, true);
};

/** Lets go of what an authorisation key holds: it authorises nothing any more. */
export const dropAuthority = (state: KeyState, key: Key): void => {
  const authority = authorityOf(key);
  if (authority === undefined) return;
  key.payload = undefined;
  authority.callout.fill(0);
  for (const held of authority.held) state.put(held);
};

/** Revokes a key: its type lets go of the payload, and it expires now if it would not have before. */
export const revoke = (state: KeyState, key: Key): void => {
  if ((key.flags & KEY_REVOKED) !== 0) return;
  key.flags |= KEY_REVOKED;
  if (isKeyring(key)) clearKeyring(state, key);
  else if (authorityOf(key) !== undefined) dropAuthority(state, key);
  else key.type.revoke?.(key, state.context);
  const now = state.clock.seconds();
  if (key.expiry === NEVER || key.expiry > now) state.setExpiry(key, now);
};
