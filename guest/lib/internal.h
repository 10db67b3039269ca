/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the guest library know of each other. */
#ifndef XENOLITH_INTERNAL_H
#define XENOLITH_INTERNAL_H

#include <xenolith/errno.h>
#include <xenolith/guest.h>

/* Where the library places things: the page arena, and behind it the frames of the grant table. */
#define ARENA_FIRST_GFN 0x80000u
#define ARENA_END_GFN 0xeffc0u
#define GRANT_TABLE_FIRST_GFN ARENA_END_GFN
#define GRANT_TABLE_FRAMES_MAX 64u

#define array_size(array) (sizeof(array) / sizeof((array)[0]))

static inline xen_pfn_t gfn_of(const volatile void *address) { return (uint32_t)(uintptr_t)address >> XEN_PAGE_SHIFT; }

static inline void *page_at(xen_pfn_t gfn) { return (void *)(uintptr_t)(gfn << XEN_PAGE_SHIFT); }

/* Zeroed memory for records, 8-byte aligned; NULL: none. The pages it is cut from stay with the library. */
void *xen_block_alloc(size_t size);
void xen_block_free(void *block, size_t size);

/* Populates up to `count` free addresses of the arena and keeps the pages for xen_pages_alloc; how many there are. */
uint32_t xen_pages_keep(uint32_t count);
/* Gives back up to `count` kept pages, in runs; how many. */
uint32_t xen_pages_drop(uint32_t count);
/* Pages that are kept. */
uint32_t xen_pages_kept(void);
/* The allocator lets the domain own at most `pages`. */
void xen_pages_set_limit(uint32_t pages);
/* Pages were freed while there was a limit. Whoever looks clears it. */
extern _Bool xen_pages_freed;

/* Work of the library's own for moments when events are served; NULL: none. Where it sleeps it wakes at the deadline (0: none). */
extern void (*xen_tick)(void);
extern uint64_t xen_tick_deadline;
static inline void xen_tick_if_due(uint64_t now) {
  if (xen_tick != NULL && xen_tick_deadline != 0 && now >= xen_tick_deadline) xen_tick();
}
void xen_balloon_start(void);
/* Takes in watch events and calls their handlers. */
void xenstore_watch_dispatch(void);

/* System time when this vCPU last came from the hypervisor; costs no hypercall. */
uint64_t xen_time_last(void);
/* Takes `count` free references, in ascending order; 0, or -ENOSPC and none. */
int xen_grant_take_refs(uint32_t count, grant_ref_t *refs);
/* Takes a free reference above `ref`; the reference, or -ENOSPC. */
int xen_grant_take_ref_above(grant_ref_t ref);
/* Gives access through a reference taken. */
void xen_grant_give(grant_ref_t ref, domid_t domid, xen_pfn_t gfn, unsigned int flags);

#endif
