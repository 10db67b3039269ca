import { handle32, s32, u32 } from "./scalar.ts";
import { struct } from "./struct.ts";

// key_op: a domain's keys and keyrings, and requests for keys that it does not have. Xenolith's own. A serial number, or what else keyctl(2) returns, is the result of the call; structs are only read. Texts are given with their lengths and need no NUL.

export const XENKEY_add = 0;
export const XENKEY_request = 1;
export const XENKEY_search = 2;
export const XENKEY_read = 3;
export const XENKEY_update = 4;
export const XENKEY_describe = 5;
export const XENKEY_revoke = 6;
export const XENKEY_invalidate = 7;
export const XENKEY_link = 8;
export const XENKEY_unlink = 9;
export const XENKEY_clear = 10;
export const XENKEY_set_timeout = 11;
export const XENKEY_get_keyring_id = 12;
export const XENKEY_join_session = 13;

// Keyrings by other names than their serial numbers: of this vCPU, of the domain, of the domain's session, of the domain as a user. Source: keyrings(7).

export const XENKEY_THREAD_KEYRING = -1;
export const XENKEY_PROCESS_KEYRING = -2;
export const XENKEY_SESSION_KEYRING = -3;
export const XENKEY_USER_KEYRING = -4;
export const XENKEY_USER_SESSION_KEYRING = -5;

// Lengths, in bytes. One more is -EINVAL.

export const XENKEY_TYPE_MAX = 31;
export const XENKEY_DESCRIPTION_MAX = 4095;
export const XENKEY_CALLOUT_MAX = 4095;
export const XENKEY_PAYLOAD_MAX = 1048575;
/** Of the types user and logon. */
export const XENKEY_USER_PAYLOAD_MAX = 32767;
/** Of an update. */
export const XENKEY_UPDATE_MAX = 4096;

// Flags. Each stands for one command or more; all others are -EINVAL.

/** add, update: the payload stands in secret pages. */
export const XENKEYF_secret_payload = 1;
/** request: there is a callout, so that a key that is not there is asked for. */
export const XENKEYF_callout = 1;
/** read: the buffer may be in ordinary memory. Without it the buffer is in secret pages or nothing is read: -EPERM. */
export const XENKEYF_ordinary_memory = 1;
/** get_keyring_id: a keyring that is not there is made. */
export const XENKEYF_create = 1;
/** join_session: there is a name. */
export const XENKEYF_named = 1;

/** XENKEY_add: the serial number of the key that was made, or updated. Source: add_key(2). */
export const xen_key_add = struct("xen_key_add", 32, {
  type: handle32("char"),
  type_len: u32,
  description: handle32("char"),
  description_len: u32,
  payload: handle32("void"),
  payload_len: u32,
  flags: u32,
  /** Keyring that it is linked in. */
  ring: s32,
});

/** XENKEY_request: the serial number of a key that is found, or built by whoever the control domain asks. Source: request_key(2). */
export const xen_key_request = struct("xen_key_request", 32, {
  type: handle32("char"),
  type_len: u32,
  description: handle32("char"),
  description_len: u32,
  /** What the builder of the key is told. */
  callout: handle32("char"),
  callout_len: u32,
  flags: u32,
  /** Keyring that the key is linked in; 0: of a key that is built the thread's or, without one, the process keyring. */
  ring: s32,
});

/** XENKEY_search: the serial number. Source: keyctl_search(3). */
export const xen_key_search = struct("xen_key_search", 24, {
  ring: s32,
  type: handle32("char"),
  type_len: u32,
  description: handle32("char"),
  description_len: u32,
  /** Keyring that the key is linked in; 0: none. */
  destination: s32,
});

/** XENKEY_read: the size of the payload; the buffer is only filled when all of it fits. Source: keyctl_read(3). */
export const xen_key_read = struct("xen_key_read", 16, {
  key: s32,
  buffer: handle32("void"),
  length: u32,
  flags: u32,
});

/** XENKEY_update: 0. Source: keyctl_update(3). */
export const xen_key_update = struct("xen_key_update", 16, {
  key: s32,
  payload: handle32("void"),
  payload_len: u32,
  flags: u32,
});

/** XENKEY_describe: the size of "type;uid;gid;permissions;description" and its NUL; as with read. Source: keyctl_describe(3). */
export const xen_key_describe = struct("xen_key_describe", 12, {
  key: s32,
  buffer: handle32("char"),
  length: u32,
});

/** XENKEY_revoke, XENKEY_invalidate, XENKEY_clear (`key` is the keyring): 0. Source: keyctl_revoke(3) and following. */
export const xen_key_id = struct("xen_key_id", 4, { key: s32 });

/** XENKEY_link, XENKEY_unlink: 0. Source: keyctl_link(3). */
export const xen_key_link = struct("xen_key_link", 8, { key: s32, ring: s32 });

/** XENKEY_set_timeout: 0. Source: keyctl_set_timeout(3). */
export const xen_key_set_timeout = struct("xen_key_set_timeout", 8, {
  key: s32,
  /** From now; 0: for ever. */
  seconds: u32,
});

/** XENKEY_get_keyring_id: the serial number. Source: keyctl_get_keyring_ID(3). */
export const xen_key_get_keyring_id = struct("xen_key_get_keyring_id", 8, { ring: s32, flags: u32 });

/** XENKEY_join_session: the serial number of the domain's new session keyring. Source: keyctl_join_session_keyring(3). */
export const xen_key_join_session = struct("xen_key_join_session", 12, {
  name: handle32("char"),
  name_len: u32,
  flags: u32,
});
