/* SPDX-License-Identifier: Apache-2.0 */
/* Grants, gntalloc and gntdev of the guest library: a guest that maps its own grants. */
#include "c-check.h"
#include <xenolith/grants.h>

#define MANY 600

static domid_t self;
static grant_ref_t refs[MANY];
static struct gntdev_ref sources[MANY];
static uint32_t array[2 * XEN_PAGE_SIZE / sizeof(uint32_t)] __attribute__((aligned(4096)));

static void name_sources(uint32_t count) {
  for (uint32_t i = 0; i < count; i++) sources[i] = (struct gntdev_ref){self, refs[i]};
}

static int map(uint32_t count, unsigned int prot, void **address) {
  name_sources(count);
  return gntdev_map(count, sources, prot, address);
}

static int map_revokable(uint32_t count, unsigned int prot, unsigned int replacement, void **address) {
  name_sources(count);
  return gntdev_map_revokable(count, sources, prot, replacement, address);
}

static void plain_grants(void) {
  uint32_t *page = xen_pages_alloc(0);
  int ref = grant_access(self, (uintptr_t)page >> XEN_PAGE_SHIFT, 0);
  check("references begin behind those of the toolstack", ref >= GNTTAB_NR_RESERVED_ENTRIES);
  check("a grant that nobody uses is not in use", !grant_in_use((grant_ref_t)ref));
  refs[0] = (grant_ref_t)ref;
  void *address;
  check_equal("a grant is mapped", map(1, GNTDEV_READ | GNTDEV_WRITE, &address), 0);
  volatile uint32_t *view = address;
  view[3] = 77;
  check("both see one page", page[3] == 77 && view != page);
  check("a mapped grant is in use", grant_in_use(refs[0]) && grant_in_use_for_writing(refs[0]));
  check_equal("a grant in use does not end", grant_end(refs[0]), -EBUSY);
  check_equal("unmap takes an exact record", gntdev_unmap(address, 2), -ENOENT);
  check_equal("unmap", gntdev_unmap(address, 1), 0);
  check_equal("and only once", gntdev_unmap(address, 1), -ENOENT);
  check_equal("a grant ends when nobody uses it", grant_end(refs[0]), 0);
  check_equal("and only once", grant_end(refs[0]), -EINVAL);
  ref = grant_access(self, (uintptr_t)page >> XEN_PAGE_SHIFT, GTF_readonly);
  refs[0] = (grant_ref_t)ref;
  check_equal("a read-only grant is not mapped for writing", map(1, GNTDEV_READ | GNTDEV_WRITE, &address), -EINVAL);
  check_equal("but for reading", map(1, GNTDEV_READ, &address), 0);
  check("then it is in use, not for writing", grant_in_use(refs[0]) && !grant_in_use_for_writing(refs[0]));
  check_equal("no byte is cleared in a read-only mapping",
              gntdev_set_unmap_notify(address, UNMAP_NOTIFY_CLEAR_BYTE, 0), -EINVAL);
  gntdev_unmap(address, 1);
  check_equal("a plain grant is not revoked", grant_revoke(refs[0]), -EINVAL);
  check_equal("unknown flags", grant_access(self, 0, GTF_reading), -EINVAL);
  grant_end(refs[0]);
  xen_pages_free(page, 0);
}

static void all_or_none(void) {
  void *pages, *address;
  check_equal("gntalloc gives pages", gntalloc_alloc(self, GNTALLOC_WRITABLE, 3, refs, &pages), 0);
  check("references ascend", refs[0] < refs[1] && refs[1] < refs[2]);
  grant_ref_t last = refs[2];
  refs[2] = 500000;
  check_equal("one bad reference: none is mapped", map(3, GNTDEV_READ, &address), -EINVAL);
  check("and the others are not in use", !grant_in_use(refs[0]) && !grant_in_use(refs[1]));
  refs[2] = last;
  check_equal("no pages", map(0, GNTDEV_READ, &address), -EINVAL);
  check_equal("neither reading nor writing", map(1, 0, &address), -EINVAL);
  check_equal("gntalloc_free takes an exact record", gntalloc_free(pages, 2), -EINVAL);
  check_equal("gntalloc_free", gntalloc_free(pages, 3), 0);
}

static void many(void) {
  void *pages, *address;
  int before = xen_pages_current();
  check_equal("the table grows", gntalloc_alloc(self, GNTALLOC_WRITABLE, MANY, refs, &pages), 0);
  check_equal("many pages are mapped in a row", map(MANY, GNTDEV_READ | GNTDEV_WRITE, &address), 0);
  _Bool same = 1;
  for (uint32_t i = 0; i < MANY; i++) ((uint32_t *)pages)[i * 1024 + 7] = i + 1;
  for (uint32_t i = 0; i < MANY; i++) same &= ((volatile uint32_t *)address)[i * 1024 + 7] == i + 1;
  check("each at its place", same);
  check_equal("more than the limit", gntalloc_alloc(self, 0, GNTALLOC_PAGES_MAX - MANY + 1, refs, &pages), -ENOSPC);
  check_equal("freeing pages that are in use", gntalloc_free(pages, MANY), 0);
  check("keeps them", xen_pages_current() >= before + MANY);
  check("their content too", ((volatile uint32_t *)address)[7] == 1);
  check_equal("unmap", gntdev_unmap(address, MANY), 0);
  while (grant_retry_deferred() > 0) {}
  check("then they are freed", xen_pages_current() < before + 16);
}

static void copies(void) {
  void *pages;
  gntalloc_alloc(self, GNTALLOC_WRITABLE, 1, refs, &pages);
  char *local = (char *)array + 4000;
  for (int i = 0; i < 192; i++) local[i] = (char)(i + 1);
  struct gntdev_copy_segment segments[] = {
      {.source.address = local, .dest.foreign = {refs[0], 100, self}, .length = 192, .flags = GNTCOPY_dest_gref},
      {.source.foreign = {refs[0], 4000, self}, .dest.address = array, .length = 97, .flags = GNTCOPY_source_gref},
      {.source.foreign = {500000, 0, self}, .dest.address = array, .length = 4, .flags = GNTCOPY_source_gref},
      {.source.foreign = {refs[0], 101, self}, .dest.address = array, .length = 2, .flags = GNTCOPY_source_gref}};
  check_equal("copies", gntdev_grant_copy(4, segments), 0);
  check("own memory may cross pages", __builtin_memcmp((char *)pages + 100, local, 192) == 0);
  check_equal("a foreign range stays in its page", segments[1].status, GNTST_bad_copy_arg);
  check_equal("a bad reference", segments[2].status, GNTST_bad_gntref);
  check("the others go on", segments[3].status == 0 && ((char *)array)[0] == 2 && ((char *)array)[1] == 3);
  gntalloc_free(pages, 1);
}

static void revokable(unsigned int replacement) {
  void *pages, *address = array;
  const unsigned int both = GNTDEV_READ | GNTDEV_WRITE;
  array[0] = 1111;
  array[1024] = 2222;
  gntalloc_alloc(self, GNTALLOC_WRITABLE | GNTALLOC_REVOKABLE, 2, refs, &pages);
  uint32_t *own = pages;
  own[0] = 1;
  own[1024] = 2;
  check_equal("a revokable grant is not mapped plainly", map(1, GNTDEV_READ, &address), -EINVAL);
  address = array;
  check_equal("but as revokable", map_revokable(2, both, replacement, &address), 0);
  volatile uint32_t *view = address;
  check("it shows the granted pages", view[0] == 1 && view[1024] == 2);
  check_equal("no notification from the mapper's side",
              gntdev_set_unmap_notify(address, UNMAP_NOTIFY_CLEAR_BYTE, 0), -EINVAL);
  check_equal("no notification from the owner's side",
              gntalloc_set_unmap_notify(pages, UNMAP_NOTIFY_CLEAR_BYTE, 0), -EINVAL);
  check_equal("revoke", gntalloc_revoke(pages, 2), 0);
  _Bool over = replacement == GNTDEV_LAY_OVER;
  check("the replacement is there", view[0] == (over ? 1111 : 0) && view[1024] == (over ? 2222 : 0));
  view[0] = 5;
  check("what is written there stays there", own[0] == 1 && view[0] == 5);
  check_equal("unmap of revoked pages", gntdev_unmap(address, 2), 0);
  check("own pages are back", !over || (array[0] == 5 && array[1024] == 2222));
  check_equal("free", gntalloc_free(pages, 2), 0);
}

static void notifications(void) {
  void *pages, *address;
  int unbound = xen_event_alloc_unbound(DOMID_SELF), port = xen_event_bind_interdomain(DOMID_SELF, (evtchn_port_t)unbound);
  /* Masked, or an upcall takes the pending bits away. */
  xen_event_on((evtchn_port_t)port, NULL, NULL);
  xen_event_on((evtchn_port_t)unbound, NULL, NULL);
  gntalloc_alloc(self, GNTALLOC_WRITABLE, 1, refs, &pages);
  map(1, GNTDEV_READ | GNTDEV_WRITE, &address);
  const unsigned int both = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT;
  check_equal("nothing is mapped there", gntdev_set_unmap_notify(array, both, (evtchn_port_t)port), -ENOENT);
  check_equal("unknown action", gntdev_set_unmap_notify(address, 4, (evtchn_port_t)port), -EINVAL);
  check_equal("not a port", gntdev_set_unmap_notify(address, both, 900), -EINVAL);
  check_equal("a byte and an event", gntdev_set_unmap_notify((char *)address + 9, both, (evtchn_port_t)port), 0);
  char *own = pages;
  own[8] = own[9] = own[10] = 3;
  xen_event_wait((evtchn_port_t)port, 1);
  xen_event_wait((evtchn_port_t)unbound, 1);
  gntdev_unmap(address, 1);
  check("the byte is cleared at unmap, and no other", own[8] == 3 && own[9] == 0 && own[10] == 3);
  struct shared_info *shared = (struct shared_info *)(uintptr_t)xen_start_info->shared_info;
  check("and the event is sent", shared->evtchn_pending[unbound / 32] >> (unbound % 32) & 1);
  check_equal("gntalloc's form", gntalloc_set_unmap_notify(own + 10, UNMAP_NOTIFY_CLEAR_BYTE, 0), 0);
  own[10] = 4;
  map(1, GNTDEV_READ, &address);
  gntalloc_free(pages, 1);
  check("clears the byte when the owner lets go", ((volatile char *)address)[10] == 0);
  gntdev_unmap(address, 1);
  grant_retry_deferred();
}

void xen_main(const struct start_info *start) {
  (void)start;
  self = own_domid();
  plain_grants();
  int before = xen_pages_current();
  all_or_none();
  copies();
  revokable(GNTDEV_PROVIDED);
  revokable(GNTDEV_LAY_OVER);
  notifications();
  many();
  check("all pages are back", xen_pages_current() <= before + 12);
  finish();
}
