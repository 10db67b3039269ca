/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page allocator over populate_physmap and decrease_reservation. Guest addresses 0x80000000-0xeffbffff are its own;
 * one bit a page says whether it is in use. Freed pages go back to the host at once. A bit is set before the hypercall
 * that needs it and cleared after: an event handler that runs in between may take pages itself.
 */
#include "internal.h"

#define ARENA_PAGES (ARENA_END_GFN - ARENA_FIRST_GFN)
#define ORDER_MAX 9
#define WORD_BITS 32
#define NONE 0xffffffffu

static uint32_t used[ARENA_PAGES / WORD_BITS];
static uint32_t search_from;

static _Bool is_used(uint32_t page) { return used[page / WORD_BITS] >> (page % WORD_BITS) & 1; }

/* Where the search goes on after a page in use, or `page` when all `count` are free. */
static uint32_t behind_used(uint32_t page, uint32_t count) {
  for (uint32_t i = page + count; i > page; i--)
    if (is_used(i - 1)) return i;
  return page;
}

static void mark(uint32_t page, uint32_t count, _Bool in_use) {
  for (uint32_t i = page; i < page + count; i++) {
    if (in_use) used[i / WORD_BITS] |= 1u << i % WORD_BITS;
    else used[i / WORD_BITS] &= ~(1u << i % WORD_BITS);
  }
}

/* Takes `count` free pages; the first is a multiple of `alignment`, a power of two. NONE: there are none. */
static uint32_t take(uint32_t count, uint32_t alignment) {
  uint32_t page = search_from;
  for (int round = 0; round < 2; round++, page = 0) {
    for (;;) {
      page = (page + alignment - 1) & ~(alignment - 1);
      if (page > ARENA_PAGES || count > ARENA_PAGES - page) break;
      uint32_t next = behind_used(page, count);
      if (next == page) {
        mark(page, count, 1);
        search_from = page + count;
        return page;
      }
      page = next;
    }
  }
  return NONE;
}

static void *address_of(uint32_t page) { return (void *)(uintptr_t)((ARENA_FIRST_GFN + page) << XEN_PAGE_SHIFT); }

/* The page of the arena at `address`; NONE when the run is not in it. */
static uint32_t page_of(const void *address, uint32_t count) {
  uint32_t page = ((uint32_t)(uintptr_t)address >> XEN_PAGE_SHIFT) - ARENA_FIRST_GFN;
  return page < ARENA_PAGES && count <= ARENA_PAGES - page ? page : NONE;
}

static int change(unsigned int cmd, uint32_t gfn, unsigned int order) {
  xen_pfn_t frame = gfn;
  struct xen_memory_reservation op = {.nr_extents = 1, .extent_order = order, .domid = DOMID_SELF};
  set_xen_guest_handle(op.extent_start, &frame);
  return HYPERVISOR_memory_op(cmd, &op);
}

/* The same for a run of any length, in the biggest pieces there are. Returns how many pages were changed. */
static uint32_t change_run(unsigned int cmd, uint32_t page, uint32_t count) {
  uint32_t done = 0;
  while (done < count) {
    unsigned int order = 31 - (unsigned int)__builtin_clz(count - done);
    if (order > ORDER_MAX) order = ORDER_MAX;
    if (change(cmd, ARENA_FIRST_GFN + page + done, order) != 1) break;
    done += 1u << order;
  }
  return done;
}

static void *populate(uint32_t page, uint32_t count) {
  if (page == NONE) return NULL;
  uint32_t done = change_run(XENMEM_populate_physmap, page, count);
  if (done == count) return address_of(page);
  change_run(XENMEM_decrease_reservation, page, done);
  mark(page, count, 0);
  return NULL;
}

void *xen_pages_alloc(unsigned int order) {
  if (order > ORDER_MAX) return NULL;
  return populate(take(1u << order, 1u << order), 1u << order);
}

void *xen_pages_alloc_run(uint32_t count) {
  if (count == 0) return NULL;
  return populate(take(count, 1), count);
}

void xen_pages_free(void *pages, unsigned int order) {
  if (order <= ORDER_MAX) xen_pages_free_run(pages, 1u << order);
}

void xen_pages_free_run(void *pages, uint32_t count) {
  uint32_t page = pages == NULL ? NONE : page_of(pages, count);
  if (page == NONE) return;
  mark(page, change_run(XENMEM_decrease_reservation, page, count), 0);
}

void *xen_holes_alloc(uint32_t count) {
  uint32_t page = count == 0 ? NONE : take(count, 1);
  return page == NONE ? NULL : address_of(page);
}

void xen_holes_free(void *holes, uint32_t count) {
  uint32_t page = holes == NULL ? NONE : page_of(holes, count);
  if (page != NONE) mark(page, count, 0);
}

static int reservation(unsigned int cmd) {
  struct xen_domid_arg {
    domid_t domid;
  } self = {.domid = DOMID_SELF};
  return HYPERVISOR_memory_op(cmd, &self);
}

int xen_pages_current(void) { return reservation(XENMEM_current_reservation); }

int xen_pages_maximum(void) { return reservation(XENMEM_maximum_reservation); }
