/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page allocator over populate_physmap and decrease_reservation. Guest addresses 0x80000000-0xeffbffff are its own.
 * Two bits a page: used (the program's, or being changed) and kept (populated, zero and free: the balloon's, which the
 * allocator hands out first); neither: a hole. Freed pages go back to the host at once. A page is marked used before the
 * hypercall that changes it: an event handler that runs in between may take pages itself.
 */
#include "internal.h"

#define ARENA_PAGES (ARENA_END_GFN - ARENA_FIRST_GFN)
#define ORDER_MAX 9
#define WORD_BITS 32
#define WORD_COUNT (ARENA_PAGES / WORD_BITS)
#define NONE 0xffffffffu
/* Extents of one hypercall of the balloon's. */
#define LIST_EXTENTS 1024u

static uint32_t used[WORD_COUNT];
static uint32_t kept[WORD_COUNT];
static uint32_t kept_count;
/* Pages that the domain should own at most; NONE: the hypervisor's limit alone counts. */
static uint32_t limit = NONE;
_Bool xen_pages_freed;

/* What a run is made of. */
enum kind { HOLES, KEPT };
static uint32_t search_from[2];

/* The pages of a word that are not of this kind. */
static uint32_t unfit(uint32_t word, enum kind kind) { return kind == KEPT ? ~kept[word] : used[word] | kept[word]; }

static _Bool is_unfit(uint32_t page, enum kind kind) { return unfit(page / WORD_BITS, kind) >> (page % WORD_BITS) & 1; }

/* Where the search goes on after a page that is not of the kind, or `page` when all `count` are. */
static uint32_t behind_unfit(uint32_t page, uint32_t count, enum kind kind) {
  for (uint32_t i = page + count; i > page;) {
    if (i % WORD_BITS == 0 && i - page >= WORD_BITS && unfit(i / WORD_BITS - 1, kind) == 0) i -= WORD_BITS;
    else if (is_unfit(--i, kind)) return i + 1;
  }
  return page;
}

static void mark(uint32_t *map, uint32_t page, uint32_t count, _Bool on) {
  for (uint32_t i = page; i < page + count; i++) {
    if (on) map[i / WORD_BITS] |= 1u << i % WORD_BITS;
    else map[i / WORD_BITS] &= ~(1u << i % WORD_BITS);
  }
}

static void use(uint32_t page, uint32_t count, enum kind kind) {
  mark(used, page, count, 1);
  if (kind == HOLES) return;
  mark(kept, page, count, 0);
  kept_count -= count;
}

/* Takes `count` pages of a kind; the first is a multiple of `alignment`, a power of two. NONE: there are none. */
static uint32_t take(uint32_t count, uint32_t alignment, enum kind kind) {
  if (kind == KEPT && kept_count < count) return NONE;
  uint32_t page = search_from[kind];
  for (int round = 0; round < 2; round++, page = 0) {
    for (;;) {
      page = (page + alignment - 1) & ~(alignment - 1);
      if (page > ARENA_PAGES || count > ARENA_PAGES - page) break;
      if (page % WORD_BITS == 0 && unfit(page / WORD_BITS, kind) == ~0u) {
        page += WORD_BITS;
        continue;
      }
      uint32_t next = behind_unfit(page, count, kind);
      if (next == page) {
        use(page, count, kind);
        search_from[kind] = page + count;
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
  mark(used, page, count, 0);
  return NULL;
}

/* Whether `count` pages more stay within the limit, after giving back kept pages if need be. */
static _Bool make_room(uint32_t count) {
  if (limit == NONE) return 1;
  uint32_t wanted = (uint32_t)xen_pages_current() + count;
  return wanted <= limit || xen_pages_drop(wanted - limit) == wanted - limit;
}

static void *obtain(uint32_t count, uint32_t alignment) {
  uint32_t page = take(count, alignment, KEPT);
  if (page != NONE) return address_of(page);
  if (!make_room(count)) return NULL;
  void *pages = populate(take(count, alignment, HOLES), count);
  if (pages != NULL || kept_count == 0) return pages;
  /* Kept pages are in small pieces, and nothing else is to be had. */
  xen_pages_drop(count);
  return populate(take(count, alignment, HOLES), count);
}

void *xen_pages_alloc(unsigned int order) {
  if (order > ORDER_MAX) return NULL;
  return obtain(1u << order, 1u << order);
}

void *xen_pages_alloc_run(uint32_t count) {
  if (count == 0) return NULL;
  return obtain(count, 1);
}

void xen_pages_free(void *pages, unsigned int order) {
  if (order <= ORDER_MAX) xen_pages_free_run(pages, 1u << order);
}

void xen_pages_free_run(void *pages, uint32_t count) {
  uint32_t page = pages == NULL ? NONE : page_of(pages, count);
  if (page == NONE) return;
  mark(used, page, change_run(XENMEM_decrease_reservation, page, count), 0);
  /* The domain may own less than its target now. */
  if (limit != NONE) {
    xen_pages_freed = 1;
    xen_tick_deadline = 1;
  }
}

void *xen_holes_alloc(uint32_t count) {
  uint32_t page = count == 0 ? NONE : take(count, 1, HOLES);
  return page == NONE ? NULL : address_of(page);
}

void xen_holes_free(void *holes, uint32_t count) {
  uint32_t page = holes == NULL ? NONE : page_of(holes, count);
  if (page != NONE) mark(used, page, count, 0);
}

/* ---- the balloon's side ---- */

/* As change_run, with many extents a call; what does not come in big extents comes in pages. */
static uint32_t change_many(unsigned int cmd, uint32_t page, uint32_t count) {
  static xen_pfn_t list[LIST_EXTENTS];
  unsigned int order = ORDER_MAX;
  uint32_t done = 0;
  while (done < count) {
    if (count - done < 1u << order) order = 0;
    uint32_t extents = (count - done) >> order;
    if (extents > LIST_EXTENTS) extents = LIST_EXTENTS;
    for (uint32_t i = 0; i < extents; i++) list[i] = ARENA_FIRST_GFN + page + done + (i << order);
    struct xen_memory_reservation op = {.nr_extents = extents, .extent_order = order, .domid = DOMID_SELF};
    set_xen_guest_handle(op.extent_start, list);
    int changed = HYPERVISOR_memory_op(cmd, &op);
    if (changed > 0) done += (uint32_t)changed << order;
    if (changed == (int)extents) continue;
    if (order == 0) break;
    order = 0;
  }
  return done;
}

/* The longest run of holes of at most `count` pages that a few tries find. */
static uint32_t take_holes(uint32_t *count) {
  for (uint32_t tried = *count; tried > 0; tried /= 2) {
    uint32_t page = take(tried, 1, HOLES);
    *count = tried;
    if (page != NONE) return page;
  }
  return NONE;
}

uint32_t xen_pages_keep(uint32_t count) {
  uint32_t done = 0;
  while (done < count) {
    uint32_t length = count - done, page = take_holes(&length);
    if (page == NONE) break;
    uint32_t populated = change_many(XENMEM_populate_physmap, page, length);
    mark(kept, page, populated, 1);
    kept_count += populated;
    mark(used, page, length, 0);
    done += populated;
    if (populated == length) continue;
    search_from[HOLES] = page + populated;
    break;
  }
  search_from[KEPT] = 0;
  return done;
}

/* Takes the highest run of kept pages, at most `*count`; NONE: there are none. */
static uint32_t take_highest(uint32_t *count) {
  uint32_t word = WORD_COUNT;
  while (word > 0 && kept[word - 1] == 0) word--;
  if (word == 0) return NONE;
  uint32_t end = word * WORD_BITS - (uint32_t)__builtin_clz(kept[word - 1]), page = end;
  while (page > 0 && end - page < *count && !is_unfit(page - 1, KEPT)) page--;
  *count = end - page;
  use(page, end - page, KEPT);
  return page;
}

uint32_t xen_pages_drop(uint32_t count) {
  uint32_t done = 0;
  while (done < count && kept_count > 0) {
    uint32_t length = count - done, page = take_highest(&length);
    if (page == NONE) break;
    uint32_t freed = change_many(XENMEM_decrease_reservation, page, length);
    mark(used, page, freed, 0);
    if (page < search_from[HOLES]) search_from[HOLES] = page;
    done += freed;
    /* Something else stands there; the page is not ours any more, those behind it are. */
    if (freed == length) continue;
    mark(used, page + freed + 1, length - freed - 1, 0);
    mark(kept, page + freed + 1, length - freed - 1, 1);
    kept_count += length - freed - 1;
  }
  return done;
}

uint32_t xen_pages_kept(void) { return kept_count; }

void xen_pages_set_limit(uint32_t pages) { limit = pages; }

static int reservation(unsigned int cmd) {
  struct xen_domid_arg {
    domid_t domid;
  } self = {.domid = DOMID_SELF};
  return HYPERVISOR_memory_op(cmd, &self);
}

int xen_pages_current(void) { return reservation(XENMEM_current_reservation); }

int xen_pages_maximum(void) { return reservation(XENMEM_maximum_reservation); }
