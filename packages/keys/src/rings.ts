import assert from "node:assert/strict";
import { EINVAL, ENOKEY } from "./errno.ts";
import { instantiateAndLink, unparsed } from "./instantiation.ts";
import { type Key, KEY_REVOKED, KEY_UID_KEYRING } from "./key.ts";
import { LinkTable, linksOf } from "./link-table.ts";
import { beginLink, dropLink, link } from "./links.ts";
import {
  KEY_ALL,
  KEY_LINK,
  KEY_READ,
  KEY_SEARCH,
  KEY_SETATTR,
  KEY_VIEW,
  KEY_WRITE,
  NO_GROUP,
  permissionMask,
  permits,
} from "./permission.ts";
import type { Credentials, Process } from "./process.ts";
import { exactly, Search, SHALLOW } from "./search.ts";
import type { KeyState, QuotaMode } from "./state.ts";
import { keyringType } from "./type-keyring.ts";

/** Permissions of the keyrings that the service makes. Source: keyrings(7), and what Linux 6 gives them. */
const OWN_RING = permissionMask({ possessor: KEY_ALL, user: KEY_VIEW });
export const SESSION_RING = permissionMask({ possessor: KEY_ALL, user: KEY_VIEW | KEY_READ });
const NAMED_SESSION = permissionMask({ possessor: KEY_ALL, user: KEY_VIEW | KEY_READ | KEY_LINK });
const USER_RING = permissionMask({ possessor: KEY_ALL & ~KEY_SETATTR, user: KEY_ALL });
const USER_REGISTER = permissionMask({ possessor: KEY_WRITE | KEY_SEARCH, user: KEY_VIEW | KEY_READ });
const PERSISTENT_RING = permissionMask({ possessor: KEY_ALL & ~KEY_SETATTR, user: KEY_VIEW | KEY_READ });

/** What a new keyring is. */
export interface NewRing {
  readonly description: string;
  readonly uid: number;
  readonly gid: number;
  readonly permissions: number;
  readonly quota: QuotaMode;
  /** Keyring that it is linked in. */
  readonly within?: Key;
}

/** Makes a key a keyring; one that can be joined gets its name known. */
export const startKeyring = (state: KeyState, keyring: Key): void => {
  keyring.payload = new LinkTable();
  const { description } = keyring;
  if (description === "" || description.startsWith(".")) return;
  const same = state.named.get(description);
  if (same === undefined) state.named.set(description, new Set([keyring]));
  else same.add(keyring);
};

/** A new keyring, with one reference, its caller's: or -EINVAL for an empty name, -EDQUOT, or why it cannot be linked. */
export const createRing = (state: KeyState, ring: NewRing): Key | number => {
  if (ring.description === "") return -EINVAL;
  const { description, uid, gid, permissions, quota } = ring;
  const keyring = state.allocate({ type: keyringType, description, domain: "", uid, gid, permissions, quota });
  if (typeof keyring === "number") return keyring;
  startKeyring(state, keyring);
  const begun = ring.within === undefined ? 0 : beginLink(state, ring.within, keyring);
  const result = begun < 0 ? begun : instantiateAndLink(state, keyring, unparsed(null, uid), { keyring: ring.within });
  if (result === 0) return keyring;
  state.put(keyring);
  return result;
};

/** The keyring of this thread, made if there is none. */
export const threadRing = (state: KeyState, process: Process): Key | number => {
  if (process.thread !== undefined) return process.thread;
  const made = createRing(state, ownRing(process, "_tid"));
  if (typeof made !== "number") process.thread = made;
  return made;
};

/** The keyring of this process, made if there is none. */
export const processRing = (state: KeyState, process: Process): Key | number => {
  if (process.process !== undefined) return process.process;
  const made = createRing(state, ownRing(process, "_pid"));
  if (typeof made !== "number") process.process = made;
  return made;
};

const ownRing = ({ uid, gid }: Process, description: string): NewRing => ({
  description,
  uid,
  gid,
  permissions: OWN_RING,
  quota: "counted",
});

/** Gives a process another session keyring. */
export const setSession = (state: KeyState, process: Process, session: Key): void => {
  const previous = process.session;
  process.session = state.get(session);
  if (previous !== undefined) state.put(previous);
};

/** Gives a process a new session keyring without a name: the keyring, or -EDQUOT if it replaces one and that is too much. */
export const newSession = (state: KeyState, process: Process): Key | number => {
  const quota = process.session === undefined ? "counted" : "checked";
  const { uid, gid } = process;
  const made = createRing(state, { description: "_ses", uid, gid, permissions: SESSION_RING, quota });
  if (typeof made === "number") return made;
  setSession(state, process, made);
  state.put(made);
  return made;
};

/** Lets a process join the session keyring of this name, made if there is none that it may join: the serial, 0 if it is in it already. */
export const joinNamedSession = (state: KeyState, process: Process, name: string): number => {
  if (name === "") return -EINVAL;
  let session = findNamed(state, process, name);
  if (session !== undefined) {
    if (session === process.session) return 0;
    setSession(state, process, session);
    return session.serial;
  }
  const { uid, gid } = process;
  const made = createRing(state, { description: name, uid, gid, permissions: NAMED_SESSION, quota: "checked" });
  if (typeof made === "number") return made;
  session = made;
  setSession(state, process, session);
  state.put(session);
  return session.serial;
};

const findNamed = (state: KeyState, who: Credentials, name: string): Key | undefined => {
  for (const keyring of state.named.get(name) ?? []) {
    // One whose last reference went is only here until it is collected.
    if (keyring.usage > 0 && (keyring.flags & KEY_REVOKED) === 0 && permits(keyring, KEY_SEARCH, who, false))
      return keyring;
  }
  return undefined;
};

/** The two keyrings of a user. */
export interface UserRings {
  readonly user: Key;
  readonly session: Key;
}

/**
 * The keyrings of the process's real user, made if there are none: or why not. They are found in the service's own register and not by
 * name, so nobody can make one for somebody else.
 */
export const userRings = (state: KeyState, who: Credentials): UserRings | number => {
  state.userRegister ??= register(state, ".user_reg", { permissions: USER_REGISTER, gid: NO_GROUP, quota: "checked" });
  const within = state.userRegister;
  if (within === undefined) return -ENOKEY;
  const user = registered(state, who, { within, description: `_uid.${who.uid}` });
  if (typeof user === "number") return user;
  const session = registered(state, who, { within, description: `_uid_ses.${who.uid}`, linked: user });
  return typeof session === "number" ? session : { user, session };
};

interface Registered {
  readonly within: Key;
  readonly description: string;
  readonly linked?: Key;
}

const registered = (state: KeyState, who: Credentials, { within, description, linked }: Registered): Key | number => {
  const wanted = exactly(keyringType, description, SHALLOW);
  const search = new Search(state, who, wanted, state.errorPriority);
  if (search.tree(within, true)) return search.key!;
  if (linksOf(within).find(wanted) !== undefined) return search.error;
  const made = createRing(state, {
    description,
    uid: who.uid,
    gid: NO_GROUP,
    permissions: USER_RING,
    quota: "checked",
  });
  if (typeof made === "number") return made;
  made.flags |= KEY_UID_KEYRING;
  const inner = linked === undefined ? 0 : link(state, made, linked);
  const result = inner < 0 ? inner : link(state, within, made);
  state.put(made);
  return result < 0 ? result : made;
};

const register = (
  state: KeyState,
  description: string,
  facts: Pick<NewRing, "permissions" | "gid" | "quota">,
): Key | undefined => {
  const made = createRing(state, { description, uid: 0, ...facts });
  return typeof made === "number" ? undefined : made;
};

/** The keyrings of a user that will not come back leave the service's register; they end with their last reference. */
export const forgetUserRings = (state: KeyState, uid: number): void => {
  const registered: readonly (readonly [Key | undefined, string])[] = [
    [state.userRegister, `_uid.${uid}`],
    [state.userRegister, `_uid_ses.${uid}`],
    [state.persistentRegister, `_persistent.${uid}`],
  ];
  for (const [within, description] of registered) {
    const ring = within && linksOf(within).find({ type: keyringType, description, domain: "" });
    if (within !== undefined && ring !== undefined) dropLink(state, within, ring);
  }
};

/** The persistent keyring of a user, made if there is none: or -EKEYREVOKED and the like. Source: keyctl_get_persistent(3). */
export const persistentRing = (state: KeyState, uid: number): Key | number => {
  state.persistentRegister ??= register(state, ".persistent_register", {
    permissions: PERSISTENT_RING,
    gid: 0,
    quota: "none",
  });
  const within = state.persistentRegister;
  assert(within !== undefined);
  const index = { type: keyringType, description: `_persistent.${uid}`, domain: "" };
  const found = linksOf(within).find(index);
  if (found !== undefined && (found.flags & KEY_REVOKED) === 0) return found;
  const { description } = index;
  const made = createRing(state, {
    description,
    uid,
    gid: NO_GROUP,
    permissions: PERSISTENT_RING,
    quota: "none",
    within,
  });
  if (typeof made !== "number") state.put(made);
  return made;
};
