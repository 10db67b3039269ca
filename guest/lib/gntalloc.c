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
  /* What gntalloc_set_unmap_notify asked for; 0: nothing. */
  unsigned int action;
  char *notify_byte;
  evtchn_port_t notify_port;
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
  int status = xen_grant_take_refs(record->count, record->refs);
  if (status < 0) return status;
  for (uint32_t i = 0; i < record->count; i++)
    xen_grant_give(record->refs[i], domid, gfn_of(record->pages) + i, flags);
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
  /* In a call of its own: whoever still sees the first page can trust the others. */
  int status = grant_revoke_list(record->refs, 1);
  if (status == 0) status = grant_revoke_list(record->refs + 1, count - 1);
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

static grant_ref_t ref_of(const struct record *record, const char *byte) {
  return record->refs[(uint32_t)(byte - record->pages) >> XEN_PAGE_SHIFT];
}

/* The hypervisor need not watch over the owner any more: the owner says itself that it lets go. */
static void clear_notify(struct record *record) {
  if (record->action != 0) grant_set_unmap_notify(ref_of(record, record->notify_byte), 0, 0, 0);
  if (record->action & UNMAP_NOTIFY_CLEAR_BYTE) __atomic_store_n(record->notify_byte, 0, __ATOMIC_SEQ_CST);
}

int gntalloc_free(void *pages, uint32_t count) {
  gntalloc_revoke(pages, count);
  struct record **link = find(pages, count);
  struct record *record = *link;
  if (record == NULL) return -XEN_EINVAL;
  *link = record->next;
  pages_in_use -= count;
  clear_notify(record);
  if (record->revoked) xen_pages_free_run(pages, count);
  else end_all(record);
  if (record->action & UNMAP_NOTIFY_SEND_EVENT) xen_event_send(record->notify_port);
  xen_block_free(record, size_of(count));
  return 0;
}

int gntalloc_set_unmap_notify(void *byte, unsigned int action, evtchn_port_t port) {
  struct record *record = records;
  while (record != NULL && (uintptr_t)byte - (uintptr_t)record->pages >= record->count * XEN_PAGE_SIZE)
    record = record->next;
  if (record == NULL || record->revoked) return -XEN_ENOENT;
  grant_ref_t ref = ref_of(record, byte);
  int status = grant_set_unmap_notify(ref, action, (uintptr_t)byte % XEN_PAGE_SIZE, port);
  if (status < 0) return status;
  if (record->action != 0 && ref_of(record, record->notify_byte) != ref)
    grant_set_unmap_notify(ref_of(record, record->notify_byte), 0, 0, 0);
  record->action = action;
  record->notify_byte = byte;
  record->notify_port = port;
  return 0;
}
