import { EEXIST, EINVAL, ENOENT, EPERM } from "./errno.ts";
import { dropAuthority } from "./instantiation.ts";
import { holdersOf, type Key, KEY_DEAD, KEY_UNDER_CONSTRUCTION, POSITIVE } from "./key.ts";
import type { KeyType } from "./key-type.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { dropLink } from "./links.ts";
import { rejectAll } from "./restriction.ts";
import type { KeyState } from "./state.ts";
import { byteString } from "./text.ts";
import { keyringType } from "./type-keyring.ts";

const NAME_BYTES_MAX = 31;

/** What keys become whose type is gone. */
const deadType: KeyType = { name: ".dead" };

/** Makes a type known: 0, -EINVAL for a name of no or more than 31 bytes, or -EEXIST. */
export const registerType = (state: KeyState, type: KeyType): number => {
  const name = byteString(type.name, NAME_BYTES_MAX);
  if (typeof name === "number" || name === "") return -EINVAL;
  if (state.types.has(name)) return -EEXIST;
  state.types.set(name, type);
  return 0;
};

/** Forgets a type: its keys are dead, and keyrings restricted to it take nothing more. 0, -ENOENT, or -EPERM for keyrings. */
export const unregisterType = (state: KeyState, name: string): number => {
  const type = state.types.get(name);
  if (type === undefined) return -ENOENT;
  if (type === keyringType) return -EPERM;
  state.types.delete(name);
  for (const key of state.keys.values()) {
    if (key.type === type) kill(state, key);
    else if (isKeyring(key) && linksOf(key).restriction?.type === type) forbid(state, key);
  }
  return 0;
};

const kill = (state: KeyState, key: Key): void => {
  // The key must outlive its links here; whoever else holds it finds it dead.
  state.get(key);
  for (const keyring of holdersOf(key)) dropLink(state, keyring, key, true);
  key.flags |= KEY_DEAD;
  key.permissions = 0;
  if (key.state === POSITIVE) {
    dropAuthority(state, key);
    key.type.destroy?.(key, state.context);
  }
  key.payload = undefined;
  key.type = deadType;
  if ((key.flags & KEY_UNDER_CONSTRUCTION) !== 0) {
    key.flags &= ~KEY_UNDER_CONSTRUCTION;
    state.waits.built(key);
  }
  state.put(key);
};

const forbid = (state: KeyState, keyring: Key): void => {
  const links = linksOf(keyring);
  const trusted = links.restriction?.trusted;
  links.restriction = rejectAll;
  if (trusted !== undefined) state.put(trusted);
};
