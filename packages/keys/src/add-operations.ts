import { EINVAL, EKEYREVOKED, ENODEV, ENOTDIR, EOPNOTSUPP, EPERM, EACCES } from "./errno.ts";
import { instantiateAndLink, withPreparsed } from "./instantiation.ts";
import { type Key, KEY_UNDER_CONSTRUCTION, POSITIVE } from "./key.ts";
import type { KeyType, Preparsed } from "./key-type.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { beginLink, cancelLink } from "./links.ts";
import { awaitKey, lookup, LOOKUP, LOOKUP_CREATE, outcome } from "./lookup.ts";
import {
  KEY_LINK,
  KEY_READ,
  KEY_SEARCH,
  KEY_SETATTR,
  KEY_VIEW,
  KEY_WRITE,
  permissionMask,
  permits,
} from "./permission.ts";
import type { Process } from "./process.ts";
import { startKeyring } from "./rings.ts";
import { isGone, type KeyState } from "./state.ts";
import { byteString, type KeyText, ownText, PAYLOAD_BYTES_MAX, typeName } from "./text.ts";
import { keyringType } from "./type-keyring.ts";

/** Largest payload that `update` takes: a page. `addKey` may replace one by more. */
const UPDATE_BYTES_MAX = 4096;

/** What add_key is asked to add, and where. */
export interface AddRequest {
  readonly type: KeyText;
  /** None for types that propose one themselves. */
  readonly description: KeyText | null;
  readonly payload: Uint8Array | null;
  readonly ring: number;
}

/** The permissions of a key that nobody has set any for. Source: add_key(2), and what Linux 6 gives by type. */
export const defaultPermissions = (type: KeyType): number => {
  const read = type.read === undefined ? 0 : KEY_READ;
  const write = type === keyringType || type.update !== undefined ? KEY_WRITE : 0;
  const possessor = KEY_VIEW | KEY_SEARCH | KEY_LINK | KEY_SETATTR | read | write;
  return permissionMask({ possessor, user: KEY_VIEW });
};

/** add_key(2): the serial of the key that was made or updated. */
export const addKey = (state: KeyState, process: Process, request: AddRequest): number => {
  if ((request.payload?.length ?? 0) > PAYLOAD_BYTES_MAX) return -EINVAL;
  const name = typeName(request.type);
  if (typeof name === "number") return name;
  const text = request.description === null ? "" : byteString(request.description);
  if (typeof text === "number") return text;
  if (text.startsWith(".") && name.startsWith("keyring")) return -EPERM;
  const keyring = lookup(state, process, request.ring, KEY_WRITE, LOOKUP_CREATE);
  if (typeof keyring === "number") return keyring;
  const { possessed } = state;
  const type = state.types.get(name);
  if (type === undefined) return -ENODEV;
  if (type.instantiate === undefined || (text === "" && type.preparse === undefined)) return -EINVAL;
  if (!isKeyring(keyring)) return -ENOTDIR;
  return withPreparsed(state, { type, bytes: request.payload, uid: process.fsuid }, (prepared) => {
    const description = text === "" ? (prepared.description ?? "") : text;
    if (description === "") return -EINVAL;
    return createOrUpdate(state, process, { keyring, possessed, type, description, domain: "", prepared, request });
  });
};

interface Addition {
  readonly keyring: Key;
  /** Whether the caller possesses the keyring, and thus what is in it. */
  readonly possessed: boolean;
  readonly type: KeyType;
  readonly description: string;
  readonly domain: string;
  readonly prepared: Preparsed;
  readonly request: AddRequest;
}

const createOrUpdate = (state: KeyState, process: Process, addition: Addition): number => {
  const { keyring, possessed, type, prepared } = addition;
  const begun = beginLink(state, keyring, addition);
  if (begun < 0) return begun;
  let isLinked = false;
  // The functions of a type may throw; that must not leave a charge behind.
  try {
    const refusal = linksOf(keyring).restriction?.check(keyring, type, prepared.payload) ?? 0;
    if (refusal < 0) return refusal;
    if (!permits(keyring, KEY_WRITE, process, possessed)) return -EACCES;
    const present = presentIn(keyring, addition);
    if (present === undefined) {
      const serial = create(state, process, addition);
      isLinked = serial > 0;
      return serial;
    }
    cancelLink(state, keyring, begun);
    isLinked = true;
    return updatePresent(state, process, present, addition);
  } finally {
    if (!isLinked) cancelLink(state, keyring, begun);
  }
};

/** The key that an addition updates, rather than takes the place of. */
const presentIn = (keyring: Key, addition: Addition): Key | undefined => {
  const present = addition.type.update === undefined ? undefined : linksOf(keyring).find(addition);
  return present === undefined || isGone(present) ? undefined : present;
};

const create = (state: KeyState, process: Process, addition: Addition): number => {
  const { type, keyring, prepared } = addition;
  const description = ownText(addition.description);
  const vetted = type.vetDescription?.(description) ?? 0;
  if (vetted < 0) return vetted;
  const { fsuid: uid, fsgid: gid } = process;
  const permissions = defaultPermissions(type);
  const key = state.allocate({ type, description, domain: addition.domain, uid, gid, permissions, quota: "checked" });
  if (typeof key === "number") return key;
  if (type === keyringType) startKeyring(state, key);
  try {
    const result = instantiateAndLink(state, key, prepared, { keyring });
    return result < 0 ? result : key.serial;
  } finally {
    state.put(key);
  }
};

/** The key is there: its payload is replaced, whether it is expired, negative or good. */
const updatePresent = (
  state: KeyState,
  process: Process,
  key: Key,
  { possessed, prepared, request }: Addition,
): number => {
  if ((key.flags & KEY_UNDER_CONSTRUCTION) === 0) return updateKey(state, process, key, { possessed, prepared });
  return awaitKey(state, process, key, () => {
    const built = outcome(state, key);
    if (built < 0) return built;
    // What was made of the payload before the wait is gone.
    return withPreparsed(state, { type: key.type, bytes: request.payload, uid: key.user.uid }, (again) =>
      updateKey(state, process, key, { possessed, prepared: again }),
    );
  });
};

const updateKey = (
  state: KeyState,
  process: Process,
  key: Key,
  { possessed, prepared }: Pick<Addition, "possessed" | "prepared">,
): number => {
  if (!permits(key, KEY_WRITE, process, possessed)) return -EACCES;
  if (key.type.update === undefined) return -EOPNOTSUPP;
  if (isGone(key)) return -EKEYREVOKED;
  const refusal = key.type.update(key, prepared, state.context);
  if (refusal < 0) return refusal;
  state.setExpiry(key, prepared.expiry);
  // A negative key is counted as instantiated already.
  key.state = POSITIVE;
  return key.serial;
};

/** keyctl_update(3): 0. An expiry that the key had is gone. */
export const update = (state: KeyState, process: Process, id: number, payload: Uint8Array | null): number => {
  if ((payload?.length ?? 0) > UPDATE_BYTES_MAX) return -EINVAL;
  const key = lookup(state, process, id, KEY_WRITE, LOOKUP);
  if (typeof key === "number") return key;
  const { possessed } = state;
  const { type } = key;
  if (type.update === undefined) return -EOPNOTSUPP;
  const result = withPreparsed(state, { type, bytes: payload, uid: key.user.uid }, (prepared) =>
    updateKey(state, process, key, { possessed, prepared }),
  );
  return result < 0 ? result : 0;
};
