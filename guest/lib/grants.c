/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The domain's own grant table. Its frames stand behind the page arena. A free entry has type GTF_invalid, which the
 * hypervisor never looks into, so its `frame` holds the next free reference.
 */
#include "internal.h"
#include <xenolith/grants.h>

#ifndef __wasm_atomics__
#error "the grant library needs -matomics (xencc sets it)"
#endif

#define REFS_PER_FRAME (XEN_PAGE_SIZE / (uint32_t)sizeof(struct grant_entry_v1))
#define IN_USE (GTF_reading | GTF_writing)
#define RETRY_MAX 10
#define BATCH 128

static struct {
  uint32_t frame_count;
  /* 0: none. */
  grant_ref_t first_free;
} table;

/* A grant that the other side did not let go of in time. */
struct deferred {
  struct deferred *next;
  grant_ref_t ref;
  void *page;
};

static struct deferred *deferred_first;
static unsigned int deferred_count;

static volatile struct grant_entry_v1 *entry_of(grant_ref_t ref) {
  return (volatile struct grant_entry_v1 *)page_at(GRANT_TABLE_FIRST_GFN) + ref;
}

static _Bool is_ours(grant_ref_t ref) {
  return ref >= GNTTAB_NR_RESERVED_ENTRIES && ref < table.frame_count * REFS_PER_FRAME;
}

static uint16_t flags_of(grant_ref_t ref) { return __atomic_load_n(&entry_of(ref)->flags, __ATOMIC_ACQUIRE); }

static void put_free(grant_ref_t ref) {
  entry_of(ref)->frame = table.first_free;
  table.first_free = ref;
}

/* Hooks one more frame of the table. Entries that an earlier program of this domain left in use are left alone. */
static int grow(void) {
  uint32_t index = table.frame_count;
  struct xen_add_to_physmap op = {.domid = DOMID_SELF,
                                  .space = XENMAPSPACE_grant_table,
                                  .idx = index,
                                  .gpfn = GRANT_TABLE_FIRST_GFN + index};
  if (index >= GRANT_TABLE_FRAMES_MAX) return -XEN_ENOSPC;
  int status = HYPERVISOR_memory_op(XENMEM_add_to_physmap, &op);
  if (status < 0) return status;
  table.frame_count++;
  grant_ref_t first = index * REFS_PER_FRAME;
  for (grant_ref_t ref = first + REFS_PER_FRAME; ref-- > first;)
    if (is_ours(ref) && !(flags_of(ref) & IN_USE)) {
      entry_of(ref)->flags = 0;
      put_free(ref);
    }
  return 0;
}

static int grow_quietly(void) {
  _Bool on = xen_upcalls_off();
  int status = grow();
  xen_upcalls_restore(on);
  return status;
}

int xen_grant_take_ref_above(grant_ref_t least) {
  for (;;) {
    volatile uint32_t *link = NULL;
    for (grant_ref_t ref = table.first_free; ref != 0; link = &entry_of(ref)->frame, ref = *link) {
      if (ref <= least) continue;
      if (link == NULL) table.first_free = entry_of(ref)->frame;
      else *link = entry_of(ref)->frame;
      return (int)ref;
    }
    int status = grow_quietly();
    if (status < 0) return status == -XEN_ENOSYS ? status : -XEN_ENOSPC;
  }
}

int xen_grant_take_refs(uint32_t count, grant_ref_t *refs) {
  if (deferred_count > 0) grant_retry_deferred();
  for (uint32_t i = 0; i < count; i++) {
    int ref = xen_grant_take_ref_above(0);
    if (ref < 0) {
      while (i-- > 0) put_free(refs[i]);
      return ref;
    }
    uint32_t at = i;
    for (; at > 0 && refs[at - 1] > (grant_ref_t)ref; at--) refs[at] = refs[at - 1];
    refs[at] = (grant_ref_t)ref;
  }
  return 0;
}

void xen_grant_give(grant_ref_t ref, domid_t domid, xen_pfn_t gfn, unsigned int flags) {
  volatile struct grant_entry_v1 *entry = entry_of(ref);
  entry->domid = domid;
  entry->frame = gfn;
  __atomic_store_n(&entry->flags, (uint16_t)(GTF_permit_access | flags), __ATOMIC_SEQ_CST);
}

int grant_access(domid_t domid, xen_pfn_t gfn, unsigned int flags) {
  grant_ref_t ref;
  if (flags & ~(unsigned int)(GTF_readonly | GTF_revokable)) return -XEN_EINVAL;
  int status = xen_grant_take_refs(1, &ref);
  if (status < 0) return status;
  xen_grant_give(ref, domid, gfn, flags);
  return (int)ref;
}

int grant_revokable(domid_t domid, xen_pfn_t gfn, unsigned int flags) {
  return grant_access(domid, gfn, flags | GTF_revokable);
}

static _Bool is_given(grant_ref_t ref) { return is_ours(ref) && (flags_of(ref) & GTF_type_mask) == GTF_permit_access; }

/* Ends the grant unless somebody uses the page; a single compare-and-swap decides. */
static _Bool end_if_idle(grant_ref_t ref) {
  volatile uint16_t *flags = &entry_of(ref)->flags;
  uint16_t seen = flags_of(ref);
  do {
    if (seen & IN_USE) return 0;
  } while (!__atomic_compare_exchange_n(flags, &seen, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return 1;
}

int grant_end(grant_ref_t ref) {
  if (!is_given(ref)) return -XEN_EINVAL;
  if (!end_if_idle(ref)) return -XEN_EBUSY;
  put_free(ref);
  return 0;
}

unsigned int grant_retry_deferred(void) {
  struct deferred **link = &deferred_first;
  for (unsigned int looked = 0; *link != NULL && looked < RETRY_MAX; looked++) {
    struct deferred *item = *link;
    if (!end_if_idle(item->ref)) {
      link = &item->next;
      continue;
    }
    *link = item->next;
    deferred_count--;
    put_free(item->ref);
    void *page = item->page;
    xen_block_free(item, sizeof *item);
    xen_pages_free_run(page, 1);
    /* An event handler may have changed the list meanwhile. */
    link = &deferred_first;
  }
  return deferred_count;
}

int grant_end_and_free(grant_ref_t ref, void *page) {
  int status = grant_end(ref);
  if (status == 0) xen_pages_free_run(page, 1);
  if (status != -XEN_EBUSY) return status;
  struct deferred *item = xen_block_alloc(sizeof *item);
  if (item == NULL) return -XEN_ENOMEM;
  item->ref = ref;
  item->page = page;
  struct deferred **end = &deferred_first;
  while (*end != NULL) end = &(*end)->next;
  *end = item;
  deferred_count++;
  return 1;
}

_Bool grant_in_use(grant_ref_t ref) { return is_ours(ref) && (flags_of(ref) & IN_USE) != 0; }

_Bool grant_in_use_for_writing(grant_ref_t ref) { return is_ours(ref) && (flags_of(ref) & GTF_writing) != 0; }

/* From now on the entry can be mapped no more; the bits of its present use stay. */
static void remove_access(grant_ref_t ref) {
  __atomic_fetch_and(&entry_of(ref)->flags, (uint16_t)~GTF_type_mask, __ATOMIC_SEQ_CST);
}

static int revoke_batch(const grant_ref_t *refs, uint32_t count) {
  struct gnttab_revoke ops[BATCH];
  int result = 0;
  for (uint32_t i = 0; i < count; i++) {
    remove_access(refs[i]);
    ops[i] = (struct gnttab_revoke){.ref = refs[i]};
  }
  int status = HYPERVISOR_grant_table_op(GNTTABOP_revoke, ops, count);
  for (uint32_t i = 0; i < count; i++) {
    int error = status < 0 ? status : grant_errno(ops[i].status);
    if (error == 0 && end_if_idle(refs[i])) put_free(refs[i]);
    else if (result == 0) result = error < 0 ? error : -XEN_EBUSY;
  }
  return result;
}

int grant_revoke_list(const grant_ref_t *refs, uint32_t count) {
  int result = 0;
  for (uint32_t i = 0; i < count; i++)
    if (!is_given(refs[i]) || !(flags_of(refs[i]) & GTF_revokable)) return -XEN_EINVAL;
  for (uint32_t at = 0; at < count; at += BATCH) {
    int status = revoke_batch(refs + at, count - at < BATCH ? count - at : BATCH);
    if (result == 0) result = status;
  }
  return result;
}

int grant_revoke(grant_ref_t ref) { return grant_revoke_list(&ref, 1); }

int grant_set_unmap_notify(grant_ref_t ref, unsigned int action, uint32_t offset, evtchn_port_t port) {
  struct gnttab_unmap_notify op = {.target = ref, .action = action | UNMAP_NOTIFY_REF, .offset = offset, .port = port};
  if (action & UNMAP_NOTIFY_REF) return -XEN_EINVAL;
  if (!is_given(ref)) return -XEN_ENOENT;
  if (action != 0 && flags_of(ref) & GTF_revokable) return -XEN_EINVAL;
  int status = HYPERVISOR_grant_table_op(GNTTABOP_unmap_notify, &op, 1);
  return status < 0 ? status : op.status;
}
