/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharing pages with another domain, and mapping those of another.
 *
 *   grants    the domain's own grant table, entry by entry
 *   gntalloc  pages of the library, shared: what Linux has as /dev/xen/gntalloc
 *   gntdev    pages of others, mapped: what Linux has as /dev/xen/gntdev
 *
 * A grant may be *revokable* (GTF_revokable, GNTALLOC_REVOKABLE): its owner takes the page back at any time, also while
 * the other side uses it; that side then sees a page of its own at the same address and never faults. Others can map
 * it with gntdev_map_revokable only.
 *
 * Functions return 0 (or what they say) or a negative errno of <xenolith/errno.h>, by its XEN_ name where libc has other
 * numbers. gntdev works in WASI programs too; grants and gntalloc need a Xen-style guest.
 */
#ifndef XENOLITH_GRANTS_H
#define XENOLITH_GRANTS_H

#include <xenolith/grant_table.h>
#include <xenolith/guest.h>

/* The errno that stands for a GNTST_* status: 0, -EACCES for permission_denied, -ESRCH for bad_domain, ... */
int grant_errno(int status);

/* ---- grants ---- */

/*
 * Gives `domid` access to frame `gfn`. `flags`: 0, GTF_readonly, GTF_revokable. Returns the reference (8 or more) or
 * -ENOSPC: the table is full and cannot grow. The table is set up, and grows, as needed.
 */
int grant_access(domid_t domid, xen_pfn_t gfn, unsigned int flags);
/* grant_access with GTF_revokable. */
int grant_revokable(domid_t domid, xen_pfn_t gfn, unsigned int flags);
/*
 * Ends a grant; the reference is free again. -EBUSY: the other side uses the page; nothing has changed, the page must
 * not be reused: try again later. -EINVAL: `ref` was not given.
 */
int grant_end(grant_ref_t ref);
/*
 * Ends a grant and gives `page` (of xen_pages_alloc) back: at once, or when the other side lets go. Returns 1 when that
 * is later: every call that takes or ends a grant looks again, and so does grant_retry_deferred.
 */
int grant_end_and_free(grant_ref_t ref, void *page);
/* Looks at up to ten deferred grants again; returns how many are left. */
unsigned int grant_retry_deferred(void);
/* Whether somebody has the page mapped, or copies it, now; `for_writing`: in order to write. */
_Bool grant_in_use(grant_ref_t ref);
_Bool grant_in_use_for_writing(grant_ref_t ref);
/*
 * Takes back a revokable grant: when this returns 0 nobody else sees the page any more, and the reference is free.
 * -EINVAL: `ref` was not given, or is not revokable.
 */
int grant_revoke(grant_ref_t ref);
/* The same for many, in the order of the list; each is complete before the next. The first error, or 0. */
int grant_revoke_list(const grant_ref_t *refs, uint32_t count);

/* ---- gntalloc ---- */

#define GNTALLOC_WRITABLE 1u
#define GNTALLOC_REVOKABLE 2u
/* Pages that may be allocated at one time, by default. */
#define GNTALLOC_PAGES_MAX 1024u

/*
 * `count` zeroed pages in a row, each granted to `domid`; their references, ascending, go to `refs`. -EINVAL: no pages, or unknown
 * flags. -ENOSPC: more than the limit, or no references left. -ENOMEM: no memory. Nothing is left behind on failure.
 */
int gntalloc_alloc(domid_t domid, unsigned int flags, uint32_t count, grant_ref_t *refs, void **pages);
/*
 * Ends the grants and frees the pages; exactly what gntalloc_alloc gave, else -EINVAL. A page that the other side still
 * uses is freed when it lets go; a revokable one is taken back instead, and freed now.
 */
int gntalloc_free(void *pages, uint32_t count);
/*
 * Takes revokable pages back, the first before all others, and keeps them: they stay as they are until gntalloc_free.
 * -EINVAL as above.
 */
int gntalloc_revoke(void *pages, uint32_t count);
/* Another limit than GNTALLOC_PAGES_MAX. */
void gntalloc_set_limit(uint32_t pages);

/* ---- gntdev ---- */

/* A page of another domain. */
struct gntdev_ref {
  domid_t domid;
  grant_ref_t ref;
};

#define GNTDEV_READ 1u
#define GNTDEV_WRITE 2u
/* What takes the place of revoked pages: zeros from the hypervisor (one page of zeros for all read-only mappings)... */
#define GNTDEV_PROVIDED 0u
/* ...or the pages that stand at `*address` already. */
#define GNTDEV_LAY_OVER 1u

/*
 * Maps `count` pages in a row, all or none; `*address` is where. `prot`: GNTDEV_READ, with GNTDEV_WRITE or without.
 * -EINVAL: no pages, or one of them cannot be mapped. -ENOMEM: no room.
 */
int gntdev_map(uint32_t count, const struct gntdev_ref *refs, unsigned int prot, void **address);
/*
 * The same for revokable grants. GNTDEV_PROVIDED maps them where the library has room; when one is revoked zeros appear
 * there. GNTDEV_LAY_OVER maps them over the caller's own populated pages at `*address`, a multiple of the page size, say
 * of an array; each of those comes back with its old content when its grant is revoked or unmapped.
 */
int gntdev_map_revokable(uint32_t count, const struct gntdev_ref *refs, unsigned int prot, unsigned int replacement,
                         void **address);
/* Unmaps exactly what one call mapped, else -ENOENT. Pages revoked meanwhile are no error. */
int gntdev_unmap(void *address, uint32_t count);

/* One end of a copy: own memory, or a range inside one page of another domain. */
union gntdev_copy_end {
  void *address;
  struct {
    grant_ref_t ref;
    uint16_t offset;
    domid_t domid;
  } foreign;
};

/* `flags`: GNTCOPY_source_gref, GNTCOPY_dest_gref for ends that are foreign. `status`: GNTST_* of the first failure. */
struct gntdev_copy_segment {
  union gntdev_copy_end source;
  union gntdev_copy_end dest;
  uint16_t length;
  uint16_t flags;
  int16_t status;
};

/* Copies without mapping; own memory may cross pages. 0, or -EFAULT; each segment has its status. */
int gntdev_grant_copy(uint32_t count, struct gntdev_copy_segment *segments);

/* ---- what happens when a mapping, or the owner of a page, goes ---- */

/*
 * From now on, when the page that `byte` points into is unmapped (gntdev), or its owner lets go of it (gntalloc) — by
 * a call, a crash or the domain's death — the byte becomes 0 just before, and an event goes out through `port` just after.
 * `action`: UNMAP_NOTIFY_CLEAR_BYTE, UNMAP_NOTIFY_SEND_EVENT, both, or 0 for neither. A new request replaces the earlier
 * one of the page, with gntalloc that of all pages allocated together.
 *
 * -ENOENT: no such mapping or page. -EINVAL: unknown action, a port through which the caller sends to no other domain (one
 * that nobody has bound yet will do: the event goes to whoever has bound it by then, or to nobody),
 * CLEAR_BYTE in a mapping that is read-only, and either action on a *revokable* grant: its owner may take the page away at
 * any time without this side doing anything, so the byte might by then be in a page that the other side does not see,
 * and neither could rely on it. Who uses revokable grants learns of the end by other means: see <xenolith/vchan.h>.
 */
int gntdev_set_unmap_notify(void *byte, unsigned int action, evtchn_port_t port);
int gntalloc_set_unmap_notify(void *byte, unsigned int action, evtchn_port_t port);
/* The same for a reference of grant_access, if the domain dies; remove it before you end the grant. `offset`: in the page. */
int grant_set_unmap_notify(grant_ref_t ref, unsigned int action, uint32_t offset, evtchn_port_t port);

#endif
