/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page allocator over populate_physmap and decrease_reservation. Guest addresses 0x80000000-0xefffffff are its own;
 * one bit a page says whether it is in use. Freed pages go back to the host at once.
 */
#include <xenolith/guest.h>

#define ARENA_FIRST_GFN 0x80000u
#define ARENA_PAGES 0x70000u
#define ORDER_MAX 9
#define WORD_BITS 32

static uint32_t used[ARENA_PAGES / WORD_BITS];
static uint32_t search_from;

static _Bool is_free(uint32_t page, uint32_t count) {
  for (uint32_t i = page; i < page + count; i++)
    if (used[i / WORD_BITS] >> (i % WORD_BITS) & 1) return 0;
  return 1;
}

static void mark(uint32_t page, uint32_t count, _Bool in_use) {
  for (uint32_t i = page; i < page + count; i++) {
    if (in_use) used[i / WORD_BITS] |= 1u << i % WORD_BITS;
    else used[i / WORD_BITS] &= ~(1u << i % WORD_BITS);
  }
}

static int change(unsigned int cmd, uint32_t gfn, unsigned int order) {
  xen_pfn_t frame = gfn;
  struct xen_memory_reservation op = {.nr_extents = 1, .extent_order = order, .domid = DOMID_SELF};
  set_xen_guest_handle(op.extent_start, &frame);
  return HYPERVISOR_memory_op(cmd, &op);
}

void *xen_pages_alloc(unsigned int order) {
  if (order > ORDER_MAX) return NULL;
  uint32_t count = 1u << order;
  for (uint32_t tried = 0; tried < ARENA_PAGES; tried += count) {
    uint32_t page = (search_from + tried) % ARENA_PAGES & ~(count - 1);
    if (page + count > ARENA_PAGES || !is_free(page, count)) continue;
    if (change(XENMEM_populate_physmap, ARENA_FIRST_GFN + page, order) != 1) return NULL;
    mark(page, count, 1);
    search_from = page + count;
    return (void *)(uintptr_t)((ARENA_FIRST_GFN + page) << XEN_PAGE_SHIFT);
  }
  return NULL;
}

void xen_pages_free(void *pages, unsigned int order) {
  uint32_t page = ((uint32_t)(uintptr_t)pages >> XEN_PAGE_SHIFT) - ARENA_FIRST_GFN;
  if (pages == NULL || order > ORDER_MAX || page + (1u << order) > ARENA_PAGES) return;
  if (change(XENMEM_decrease_reservation, ARENA_FIRST_GFN + page, order) == 1) mark(page, 1u << order, 0);
}

static int reservation(unsigned int cmd) {
  struct xen_domid_arg {
    domid_t domid;
  } self = {.domid = DOMID_SELF};
  return HYPERVISOR_memory_op(cmd, &self);
}

int xen_pages_current(void) { return reservation(XENMEM_current_reservation); }

int xen_pages_maximum(void) { return reservation(XENMEM_maximum_reservation); }
