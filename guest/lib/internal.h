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

/* System time when this vCPU last came from the hypervisor; costs no hypercall. */
uint64_t xen_time_last(void);
/* Takes `count` free references, in ascending order; 0, or -ENOSPC and none. */
int xen_grant_take_refs(uint32_t count, grant_ref_t *refs);
/* Takes a free reference above `ref`; the reference, or -ENOSPC. */
int xen_grant_take_ref_above(grant_ref_t ref);
/* Gives access through a reference taken. */
void xen_grant_give(grant_ref_t ref, domid_t domid, xen_pfn_t gfn, unsigned int flags);

#endif
