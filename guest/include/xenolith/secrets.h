/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Secret memory: whole pages that are in no map of memory but the one of who uses them. The host's kernel cannot read
 * them, no other domain does unless it was offered them and accepted, and they are in no dump, swap file or saved image.
 * They are for what must not leave the domain by accident: keys, tokens, passwords.
 *
 * A secret page is used by plain loads and stores, and by nothing else: it cannot be granted, and no hypercall and no
 * WASI function reads or writes it (-EFAULT). Whoever copies a secret to ordinary memory has it there.
 *
 * Objects are named by small numbers of the domain's own. Functions return 0 (or what they say) or a negative errno of
 * <xenolith/errno.h>, by its XEN_ name where libc has other numbers:
 *
 *   -EDQUOT  more than the domain may have, made or mapped     -ENOENT  no such object, or it was taken back
 *   -ENOSPC  the host's pool, or a table of it, is full        -EPERM   sealed, or accepted for reading only
 *   -EAGAIN  the host may lock no more memory                  -ENOSYS  the host has no secret memory
 *   -ENOMEM  no memory, or no addresses left                   -EINVAL  sizes or flags that are none
 *
 * After an error everything is as it was. Works in WASI programs too.
 */
#ifndef XENOLITH_SECRETS_H
#define XENOLITH_SECRETS_H

#include <stddef.h>
#include <xenolith/guest.h>
#include <xenolith/secret_op.h>

/* Makes an object of `pages` zeroed pages and maps it for writing; `*address` is where. Returns its number. */
int secret_alloc(uint32_t pages, void **address);
/* Makes an object that is mapped nowhere yet. Returns its number. */
int secret_create(uint32_t pages);
/*
 * Maps `pages` pages of an object from its page `first_page` on, at addresses of the library's: `*address`. `flags`: 0 or
 * XENSECRET_READONLY. One object may be mapped at many places. Of an object of another domain a mapping for writing is
 * charged to this domain's memory too: if it is taken back, pages of this domain's own take its place.
 */
int secret_map(uint32_t id, uint32_t first_page, uint32_t pages, unsigned int flags, void **address);
/* Ends what secret_map or secret_alloc mapped at `address`. -EINVAL: nothing is mapped there. */
int secret_unmap(void *address);
/* Nobody writes the object any more, here or elsewhere, for good. */
int secret_seal(uint32_t id);
/*
 * Unmaps the object and gives it up. If this domain made it, it is wiped, and everybody who accepted it sees zeros, or
 * pages of their own, in its place.
 */
int secret_release(uint32_t id);
/* Stores zeros, whatever the compiler thinks of that. For copies in ordinary memory: objects are wiped by themselves. */
void secret_wipe(volatile void *bytes, size_t length);

/*
 * Offers an object to domain `domid`, which is not told: say it the number. `flags`: 0 or XENSECRET_READONLY. 0 also if
 * there is no such domain. -EEXIST: it has the object, or the offer, already.
 */
int secret_share(uint32_t id, domid_t domid, unsigned int flags);
/* Accepts what domain `domid` offers by its number `owner_id`. Returns this domain's number for it. */
int secret_accept(domid_t domid, uint32_t owner_id);
/*
 * Takes an object back, offers included, from `domid`, or from all (DOMID_INVALID): when this returns 0 nobody there sees
 * it any more. Who may only read it sees zeros from then on, who may write it zeroed pages of its own; nobody faults.
 */
int secret_revoke(uint32_t id, domid_t domid);
/* What there is to know about an object; XENSECRET_QUOTA: about what the domain has and may have. */
int secret_query(uint32_t id, struct xen_secret_query *query);

#endif
