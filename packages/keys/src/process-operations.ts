import { EACCES, EINVAL, ENOTDIR, EPERM } from "./errno.ts";
import type { Key } from "./key.ts";
import { isKeyring } from "./link-table.ts";
import { link } from "./links.ts";
import { findAuthority, KEY_SPEC, lookup, LOOKUP, LOOKUP_CREATE } from "./lookup.ts";
import { KEY_LINK, KEY_SEARCH, KEY_WRITE, permits } from "./permission.ts";
import { DEFAULT_RING, type Process } from "./process.ts";
import { joinNamedSession, newSession, persistentRing, processRing, setSession, threadRing } from "./rings.ts";
import type { KeyState } from "./state.ts";
import { byteString, type KeyText } from "./text.ts";

/** Asks `setDefaultRing` for what is set, without a change. */
const QUERY = -1;
const UID_MAX = 2 ** 32 - 2;

/** keyctl_get_keyring_ID(3): the serial of what the number names. */
export const getKeyringId = (state: KeyState, process: Process, id: number, create: boolean): number => {
  const key = lookup(state, process, id, KEY_SEARCH, create ? LOOKUP_CREATE : LOOKUP);
  return typeof key === "number" ? key : key.serial;
};

/** keyctl_join_session_keyring(3): the serial of the session keyring; 0 for a name that the process has joined already. */
export const joinSession = (state: KeyState, process: Process, name: KeyText | null): number => {
  if (name === null) {
    const made = newSession(state, process);
    return typeof made === "number" ? made : made.serial;
  }
  const text = byteString(name);
  if (typeof text === "number") return text;
  return text.startsWith(".") ? -EPERM : joinNamedSession(state, process, text);
};

/** keyctl_set_reqkey_keyring(3): what was set before. */
export const setDefaultRing = (state: KeyState, process: Process, ring: number): number => {
  const previous = process.defaultRing;
  if (ring === QUERY) return previous;
  if (!Number.isInteger(ring) || ring < 0 || ring > DEFAULT_RING.requestor || ring === DEFAULT_RING.group)
    return -EINVAL;
  let made: Key | number = 0;
  if (ring === DEFAULT_RING.thread) made = threadRing(state, process);
  if (ring === DEFAULT_RING.process) made = processRing(state, process);
  if (typeof made === "number" && made < 0) return made;
  process.defaultRing = ring;
  return previous;
};

/** Gives a process another authority, or none. */
export const setAuthority = (state: KeyState, process: Process, authority: Key | undefined): void => {
  const previous = process.authority;
  process.authority = authority === undefined ? undefined : state.get(authority);
  if (previous !== undefined) state.put(previous);
};

/** keyctl_assume_authority(3): the serial of the authorisation key; 0 when it is given up. */
export const assumeAuthority = (state: KeyState, process: Process, id: number): number => {
  if (id < 0) return -EINVAL;
  if (id === 0) {
    setAuthority(state, process, undefined);
    return 0;
  }
  const authority = findAuthority(state, process, id);
  if (typeof authority === "number") return authority;
  setAuthority(state, process, authority);
  return authority.serial;
};

/** keyctl_get_persistent(3): the serial of the user's persistent keyring, whose time begins anew. */
export const getPersistent = (state: KeyState, process: Process, wanted: number, ring: number): number => {
  const uid = wanted === -1 ? process.uid : wanted;
  if (!Number.isInteger(uid) || uid < 0 || uid > UID_MAX) return -EINVAL;
  if (uid !== process.uid && uid !== process.euid && !process.setUid) return -EPERM;
  const destination = lookup(state, process, ring, KEY_WRITE, LOOKUP_CREATE);
  if (typeof destination === "number") return destination;
  if (!isKeyring(destination)) return -ENOTDIR;
  const persistent = persistentRing(state, uid);
  if (typeof persistent === "number") return persistent;
  if (!permits(persistent, KEY_LINK, process, true)) return -EACCES;
  const refusal = link(state, destination, persistent);
  if (refusal < 0) return refusal;
  state.setExpiry(persistent, state.clock.seconds() + state.limits.persistentSeconds);
  return persistent.serial;
};

/** The parent of a process, as whoever asks for it knows it. */
export interface Parent {
  readonly process: Process;
  /** Threads that it has. */
  readonly threads: number;
}

/** keyctl_session_to_parent(3): 0. Without a parent that can be given a keyring: -EPERM. */
export const sessionToParent = (state: KeyState, process: Process, parent: Parent | undefined): number => {
  const session = lookup(state, process, KEY_SPEC.session, KEY_LINK, LOOKUP);
  if (typeof session === "number") return session;
  if (parent === undefined || parent.process.pid <= 1 || parent.threads !== 1) return -EPERM;
  const receiver = parent.process;
  if (receiver.session === session) return 0;
  const { euid, egid } = process;
  const sameIds =
    [receiver.uid, receiver.euid, receiver.suid].every((uid) => uid === euid) &&
    [receiver.gid, receiver.egid, receiver.sgid].every((gid) => gid === egid);
  const foreign = (receiver.session !== undefined && receiver.session.uid !== euid) || session.uid !== euid;
  if (!sameIds || foreign) return -EPERM;
  setSession(state, receiver, session);
  return 0;
};
