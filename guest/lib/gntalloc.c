/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that are shared from the day they are allocated. One record a call. */
#include "internal.h"
#include <xenolith/grants.h>

struct record {
  struct record *next;
  char *pages;
  uint32_t count;
  unsigned int flags;
  /* The pages have been taken back; `refs` mean nothing any more. */
  _Bool revoked;
  grant_ref_t refs[];
};

static struct record *records;
static uint32_t pages_in_use;
static uint32_t pages_max = GNTALLOC_PAGES_MAX;

static size_t size_of(uint32_t count) { return sizeof(struct record) + count * sizeof(grant_ref_t); }

static struct record **find(const void *pages, uint32_t count) {
  struct record **link = &records;
  while (*link != NULL && !((*link)->pages == pages && (*link)->count == count)) link = &(*link)->next;
  return link;
}

void gntalloc_set_limit(uint32_t pages) { pages_max = pages; }

static int grant_all(struct record *record, domid_t domid) {
  unsigned int flags = (record->flags & GNTALLOC_WRITABLE ? 0 : GTF_readonly) |
                       (record->flags & GNTALLOC_REVOKABLE ? GTF_revokable : 0);
  for (uint32_t i = 0; i < record->count; i++) {
    int ref = grant_access(domid, gfn_of(record->pages) + i, flags);
    if (ref < 0) {
      while (i-- > 0) grant_end(record->refs[i]);
      return ref;
    }
    record->refs[i] = (grant_ref_t)ref;
  }
  return 0;
}

int gntalloc_alloc(domid_t domid, unsigned int flags, uint32_t count, grant_ref_t *refs, void **pages) {
  if (count == 0 || flags & ~(GNTALLOC_WRITABLE | GNTALLOC_REVOKABLE)) return -XEN_EINVAL;
  grant_retry_deferred();
  if (count > pages_max || pages_in_use > pages_max - count) return -XEN_ENOSPC;
  struct record *record = xen_block_alloc(size_of(count));
  if (record == NULL) return -XEN_ENOMEM;
  record->pages = xen_pages_alloc_run(count);
  record->count = count;
  record->flags = flags;
  int status = record->pages == NULL ? -XEN_ENOMEM : grant_all(record, domid);
  if (status < 0) {
    xen_pages_free_run(record->pages, count);
    xen_block_free(record, size_of(count));
    return status;
  }
  for (uint32_t i = 0; i < count; i++) refs[i] = record->refs[i];
  *pages = record->pages;
  record->next = records;
  records = record;
  pages_in_use += count;
  return 0;
}

int gntalloc_revoke(void *pages, uint32_t count) {
  struct record *record = *find(pages, count);
  if (record == NULL || !(record->flags & GNTALLOC_REVOKABLE)) return -XEN_EINVAL;
  if (record->revoked) return 0;
  int status = grant_revoke_list(record->refs, count);
  if (status == 0) record->revoked = 1;
  return status;
}

/* Ends the grants one by one and frees the pages in runs as long as possible; those in use follow later. */
static void end_all(struct record *record) {
  uint32_t first = 0;
  for (uint32_t i = 0; i <= record->count; i++) {
    if (i < record->count && grant_end(record->refs[i]) == 0) continue;
    xen_pages_free_run(record->pages + first * XEN_PAGE_SIZE, i - first);
    first = i + 1;
    if (i < record->count) grant_end_and_free(record->refs[i], record->pages + i * XEN_PAGE_SIZE);
  }
}

int gntalloc_free(void *pages, uint32_t count) {
  struct record **link = find(pages, count);
  struct record *record = *link;
  if (record == NULL) return -XEN_EINVAL;
  *link = record->next;
  pages_in_use -= count;
  if (record->flags & GNTALLOC_REVOKABLE && !record->revoked)
    record->revoked = grant_revoke_list(record->refs, count) == 0;
  if (record->revoked) xen_pages_free_run(pages, count);
  else end_all(record);
  xen_block_free(record, size_of(count));
  return 0;
}

int gntalloc_set_unmap_notify(void *byte, unsigned int action, evtchn_port_t port) {
  for (struct record *record = records; record != NULL; record = record->next) {
    uintptr_t at = (uintptr_t)byte - (uintptr_t)record->pages;
    if (at >= record->count * XEN_PAGE_SIZE || record->revoked) continue;
    return grant_set_unmap_notify(record->refs[at >> XEN_PAGE_SHIFT], action, at % XEN_PAGE_SIZE, port);
  }
  return -XEN_ENOENT;
}
