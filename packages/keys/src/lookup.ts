import { EACCES, EAGAIN, EDEADLK, EINVAL, EIO, EKEYEXPIRED, EKEYREVOKED, ENOKEY } from "./errno.ts";
import { authorityOf, authorityType } from "./authority.ts";
import {
  type Key,
  KEY_DEAD,
  KEY_INVALIDATED,
  KEY_REVOKED,
  KEY_UID_KEYRING,
  KEY_UNDER_CONSTRUCTION,
  UNINSTANTIATED,
} from "./key.ts";
import { NEED_AUTHORITY, NEED_LATER, NEED_UNLINK, permits } from "./permission.ts";
import { WAIT } from "./pending.ts";
import type { Process } from "./process.ts";
import { newSession, processRing, setSession, threadRing, userRings } from "./rings.ts";
import { exactly, reaches, Search, searchAll, type Searcher, SEARCHING, type Wanted } from "./search.ts";
import type { KeyState } from "./state.ts";

/** Numbers that name a keyring or key of the caller instead of a serial number. Source: uapi/linux/keyctl.h. */
export const KEY_SPEC = {
  thread: -1,
  process: -2,
  session: -3,
  user: -4,
  userSession: -5,
  group: -6,
  authority: -7,
  requestor: -8,
} as const;

/** How a key is looked up: whether a keyring that is not there is made, and whether a key without a payload will do. */
export const LOOKUP = 0;
export const LOOKUP_CREATE = 1;
export const LOOKUP_PARTIAL = 2;

/** 0, or why a key cannot be used: in the order of the kernel's checks. */
export const validate = (state: KeyState, key: Key): number => {
  if ((key.flags & KEY_INVALIDATED) !== 0) return -ENOKEY;
  if ((key.flags & (KEY_REVOKED | KEY_DEAD)) !== 0) return -EKEYREVOKED;
  return state.isExpired(key) ? -EKEYEXPIRED : 0;
};

/** How a key that is no longer under construction turned out: 0, the error of a negative key, or why it cannot be used. */
export const outcome = (state: KeyState, key: Key): number => (key.state < 0 ? key.state : validate(state, key));

/** Makes the operation wait until the key is built: WAIT, or -EDEADLK if it never will be. */
export const awaitKey = (state: KeyState, process: Process, key: Key, resume?: () => number): number => {
  if (state.detectsSelfWait && state.waits.wouldNeverEnd(process, key)) return -EDEADLK;
  state.awaited = { key, resume };
  return WAIT;
};

/** With whose keyrings a process searches. */
export const searcherOf = (state: KeyState, process: Process): Searcher => {
  const { authority } = process;
  const lent = authority !== undefined && validate(state, authority) === 0 ? authorityOf(authority) : undefined;
  return { who: process, requester: lent?.requester };
};

/** A process without what it may search for others: authorities cannot be found that way. */
const alone = (process: Process): Searcher => ({ who: process, requester: undefined });

/** Searches all keyrings of a process: the key, or why there is none. `state.possessed` is set. */
export const searchProcess = (state: KeyState, process: Process, wanted: Wanted): Key | number => {
  const search = new Search(state, process, wanted, state.errorPriority);
  const searcher = wanted.type === authorityType ? alone(process) : searcherOf(state, process);
  const error = searchAll(search, state, searcher, state.errorPriority);
  state.possessed = search.possessed;
  return error < 0 ? error : search.key!;
};

/** Whether a process possesses a key. */
export const possesses = (state: KeyState, process: Process, key: Key): boolean => {
  if (reaches(state, key, process)) return true;
  if (process.authority === undefined || key.type === authorityType) return false;
  const { requester } = searcherOf(state, process);
  return requester !== undefined && reaches(state, key, requester);
};

/** The authorisation key for building the key with this serial, among the keyrings of a process: or why not. */
export const findAuthority = (state: KeyState, process: Process, target: number): Key | number => {
  const description = (target >>> 0).toString(16);
  const found = searchProcess(state, process, exactly(authorityType, description, SEARCHING));
  if (found === -EAGAIN) return -ENOKEY;
  return typeof found !== "number" && (found.flags & KEY_REVOKED) !== 0 ? -EKEYREVOKED : found;
};

/**
 * The key that a number names, once it is built and if the process has the right: the core of nearly every operation.
 * A negated error number otherwise; WAIT if it is under construction and `how` does not say that this does not matter. Sets
 * `state.possessed`.
 */
export const lookup = (state: KeyState, process: Process, id: number, need: number, how: number): Key | number => {
  const key = id > 0 ? state.keys.get(id) : special(state, process, id, (how & LOOKUP_CREATE) !== 0);
  if (key === undefined) return -ENOKEY;
  if (typeof key === "number") return key;
  state.possessed = id < 0 || possesses(state, process, key);
  if (need === NEED_UNLINK) return key;
  const refusal = check(state, process, key, { need, how });
  if (refusal < 0) return refusal;
  return permits(key, need, process, state.possessed) ? key : -EACCES;
};

const check = (
  state: KeyState,
  process: Process,
  key: Key,
  { need, how }: { readonly need: number; readonly how: number },
): number => {
  if ((how & LOOKUP_PARTIAL) !== 0) return need === NEED_LATER ? 0 : validate(state, key);
  if ((key.flags & KEY_UNDER_CONSTRUCTION) !== 0) return awaitKey(state, process, key);
  if (need !== NEED_AUTHORITY && need !== NEED_LATER) {
    const refusal = outcome(state, key);
    if (refusal < 0) return refusal;
  }
  return key.state === UNINSTANTIATED ? -EIO : 0;
};

const special = (state: KeyState, process: Process, id: number, create: boolean): Key | number => {
  switch (id) {
    case KEY_SPEC.thread:
      return create ? threadRing(state, process) : (process.thread ?? -ENOKEY);
    case KEY_SPEC.process:
      return create ? processRing(state, process) : (process.process ?? -ENOKEY);
    case KEY_SPEC.session:
      return sessionRing(state, process, create);
    case KEY_SPEC.user:
    case KEY_SPEC.userSession: {
      const rings = userRings(state, process);
      if (typeof rings === "number") return -ENOKEY;
      return id === KEY_SPEC.user ? rings.user : rings.session;
    }
    case KEY_SPEC.authority:
      return process.authority ?? -ENOKEY;
    case KEY_SPEC.requestor:
      return requestorRing(process);
    default:
      return -EINVAL;
  }
};

/** A process without a session keyring gets its user's; one that wants to add to that gets one of its own. */
const sessionRing = (state: KeyState, process: Process, create: boolean): Key | number => {
  const { session } = process;
  if (session === undefined) {
    const rings = userRings(state, process);
    if (typeof rings === "number") return -ENOKEY;
    if (create) return ownSession(state, process);
    setSession(state, process, rings.session);
    return rings.session;
  }
  return create && (session.flags & KEY_UID_KEYRING) !== 0 ? ownSession(state, process) : session;
};

const ownSession = (state: KeyState, process: Process): Key | number => {
  const made = newSession(state, process);
  return typeof made === "number" ? -ENOKEY : made;
};

const requestorRing = ({ authority }: Process): Key | number => {
  if (authority === undefined) return -ENOKEY;
  if ((authority.flags & KEY_REVOKED) !== 0) return -EKEYREVOKED;
  return authorityOf(authority)?.destination ?? -ENOKEY;
};
