/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys: secrets with a name, kept by the control domain's key service and read into secret pages when they are needed.
 *
 *   char *page = ...;                                       a secret page, see <xenolith/secrets.h>
 *   key_serial_t key = key_request("user", "db:orders", "", 0);
 *   int length = key_read(key, page, XEN_PAGE_SIZE);
 *
 * A domain has keyrings of its own: a thread keyring for each vCPU, a process and a session keyring for the domain. It
 * finds what is in them, and what the control domain has given it; another domain's keys are as if they were not there. A
 * key that is asked for with a callout and is not there is built by whoever the control domain has chosen; the vCPU sleeps
 * meanwhile.
 *
 * Functions return what is said of them, or a negative errno of <xenolith/errno.h>. They are the calls of keyutils with
 * `key_` in front, and answer as those do; texts end with a NUL. They work in WASI programs too.
 *
 * -ENOKEY: there is no such key. -EKEYREVOKED, -EKEYEXPIRED, -EKEYREJECTED: it is of no use any more. -EACCES: not with these
 * permissions. -EDQUOT: the domain has as many keys, or bytes, as it may have. -EINVAL: a text or payload that is too
 * long, or empty where it must not be. -ENOSYS: the control domain has no keys for guests. -EAGAIN, -ENOMEM, -ENOSPC: it has no room for them.
 */
#ifndef XENOLITH_KEYS_H
#define XENOLITH_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include <xenolith/key_op.h>

/* The number of a key or keyring: 3 and up, or one of the names XENKEY_*_KEYRING. */
typedef int32_t key_serial_t;

/* ---- having keys ---- */

/*
 * Adds a key to a keyring, or gives the key of that type and description in it another payload; its serial number. Types:
 * "user" (bytes, readable), "logon" (bytes that only the control domain reads), "keyring" (no payload), "big_key".
 */
key_serial_t key_add(const char *type, const char *description, const void *payload, uint32_t length, key_serial_t ring);
/* The same with a payload that stands in secret pages: it is never in ordinary memory, not even for a moment. */
key_serial_t key_add_secret(const char *type, const char *description, const void *payload, uint32_t length,
                            key_serial_t ring);
/* Another payload for a key, of at most XENKEY_UPDATE_MAX bytes; it does not expire any more. 0. */
int key_update(key_serial_t key, const void *payload, uint32_t length);
int key_update_secret(key_serial_t key, const void *payload, uint32_t length);

/* ---- finding keys ---- */

/*
 * Finds a key in the thread, process and session keyring. When it is not there and `callout` is not NULL it is built: the
 * builder is told the type, the description, the callout and who asks. `ring`: a keyring that it is linked in too; 0: a
 * key that was built goes into the thread keyring, or the process keyring if there is none. Its serial number.
 */
key_serial_t key_request(const char *type, const char *description, const char *callout, key_serial_t ring);
/* Finds a key below a keyring, and links it in `destination` unless that is 0. Its serial number. */
key_serial_t key_search(key_serial_t ring, const char *type, const char *description, key_serial_t destination);

/* ---- reading keys ---- */

/*
 * The payload, into secret pages: its size, which may be more than `length`; then nothing was written. -EPERM: the buffer
 * is not, or not all, in secret pages that can be written. Of a keyring: the serial numbers in it, 32 bits each.
 */
int key_read(key_serial_t key, void *buffer, uint32_t length);
/* The same into memory of any kind: from there a secret can be read by the control domain's program and its debuggers. */
int key_read_ordinary(key_serial_t key, void *buffer, uint32_t length);
/* "type;uid;gid;permissions;description": the size with its NUL; as with key_read. Any memory. */
int key_describe(key_serial_t key, char *buffer, uint32_t length);

/* ---- ending keys; these return 0 ---- */

int key_revoke(key_serial_t key);
int key_invalidate(key_serial_t key);
/* Seconds from now after which it is expired; 0: it is not. */
int key_set_timeout(key_serial_t key, uint32_t seconds);

/* ---- keyrings ---- */

int key_link(key_serial_t key, key_serial_t ring);
int key_unlink(key_serial_t key, key_serial_t ring);
int key_clear(key_serial_t ring);
/* The serial number of a keyring with a name of its own; `create`: it is made if there is none. */
key_serial_t key_get_keyring_id(key_serial_t ring, _Bool create);
/*
 * Gives the whole domain another session keyring, a new one of this name (NULL: without a name). Keys that only the old one
 * had are gone. Its serial number.
 */
key_serial_t key_join_session(const char *name);

#endif
