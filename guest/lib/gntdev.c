/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of other domains, mapped all or none, in batches. One record a call. */
#include "internal.h"
#include <xenolith/grants.h>

#define BATCH 128
#define NO_HANDLE 0xffffffffu
#define NO_FRAME ((xen_pfn_t)~0ul)

struct record {
  struct record *next;
  char *address;
  uint32_t count;
  _Bool writable;
  _Bool revokable;
  /* The addresses are the library's, to be given back. */
  _Bool holes;
  grant_handle_t handles[];
};

static struct record *records;

static size_t size_of(uint32_t count) { return sizeof(struct record) + count * sizeof(grant_handle_t); }

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

int grant_errno(int status) {
  switch (status) {
    case GNTST_okay: return 0;
    case GNTST_bad_domain: return -XEN_ESRCH;
    case GNTST_bad_gntref:
    case GNTST_bad_copy_arg: return -XEN_EINVAL;
    case GNTST_bad_handle: return -XEN_ENOENT;
    case GNTST_bad_virt_addr:
    case GNTST_bad_dev_addr:
    case GNTST_bad_page: return -XEN_EFAULT;
    case GNTST_permission_denied: return -XEN_EACCES;
    case GNTST_no_device_space:
    case GNTST_no_space: return -XEN_ENOSPC;
    case GNTST_eagain: return -XEN_EAGAIN;
    default: return -XEN_EIO;
  }
}

static struct gnttab_map_grant_ref map_op(const struct record *record, uint32_t index, const struct gntdev_ref *ref) {
  return (struct gnttab_map_grant_ref){.host_addr = (uintptr_t)record->address + index * XEN_PAGE_SIZE,
                                       .flags = GNTMAP_host_map | (record->writable ? 0 : GNTMAP_readonly),
                                       .ref = ref->ref,
                                       .dom = ref->domid};
}

/* Remembers what came of one entry; false: it was not mapped. */
static _Bool note(struct record *record, uint32_t index, const struct gnttab_map_grant_ref *op) {
  record->handles[index] = op->status == GNTST_okay ? op->handle : NO_HANDLE;
  return op->status == GNTST_okay;
}

static _Bool map_batch(struct record *record, uint32_t at, uint32_t count, const struct gntdev_ref *refs) {
  struct gnttab_map_grant_ref ops[BATCH];
  _Bool all = 1;
  for (uint32_t i = 0; i < count; i++) {
    ops[i] = map_op(record, at + i, &refs[at + i]);
    ops[i].status = GNTST_general_error;
  }
  HYPERVISOR_grant_table_op(GNTTABOP_map_grant_ref, ops, count);
  for (uint32_t i = 0; i < count; i++) all &= note(record, at + i, &ops[i]);
  return all;
}

static _Bool map_revokable_batch(struct record *record, uint32_t at, uint32_t count, const struct gntdev_ref *refs) {
  struct gnttab_map_revokable ops[BATCH];
  _Bool all = 1;
  for (uint32_t i = 0; i < count; i++) {
    ops[i].map = map_op(record, at + i, &refs[at + i]);
    ops[i].map.status = GNTST_general_error;
    ops[i].lgfn = record->holes ? NO_FRAME : gfn_of(record->address) + at + i;
  }
  HYPERVISOR_grant_table_op(GNTTABOP_map_revokable, ops, count);
  for (uint32_t i = 0; i < count; i++) all &= note(record, at + i, &ops[i].map);
  return all;
}

static void unmap_entry(struct record *record, uint32_t index, const struct gnttab_unmap_grant_ref *op) {
  if (op->status == GNTST_okay) record->handles[index] = NO_HANDLE;
}

/* Unmaps all that is mapped; false: the hypervisor refused some of it. */
static _Bool unmap_all(struct record *record) {
  struct gnttab_unmap_grant_ref ops[BATCH];
  uint32_t index[BATCH];
  _Bool all = 1;
  for (uint32_t at = 0; at < record->count;) {
    uint32_t count = 0;
    for (; at < record->count && count < BATCH; at++) {
      if (record->handles[at] == NO_HANDLE) continue;
      ops[count] = (struct gnttab_unmap_grant_ref){.host_addr = (uintptr_t)record->address + at * XEN_PAGE_SIZE,
                                                   .handle = record->handles[at],
                                                   .status = GNTST_general_error};
      index[count++] = at;
    }
    if (count > 0) HYPERVISOR_grant_table_op(GNTTABOP_unmap_grant_ref, ops, count);
    for (uint32_t i = 0; i < count; i++) {
      unmap_entry(record, index[i], &ops[i]);
      all &= ops[i].status == GNTST_okay;
    }
  }
  return all;
}

/* Addresses at which something might still stand are never given out again. */
static void drop(struct record *record) {
  if (unmap_all(record) && record->holes) xen_holes_free(record->address, record->count);
  xen_block_free(record, size_of(record->count));
}

static int map(struct record *record, const struct gntdev_ref *refs, void **address) {
  for (uint32_t i = 0; i < record->count; i++) record->handles[i] = NO_HANDLE;
  for (uint32_t at = 0; at < record->count; at += BATCH) {
    uint32_t count = least(record->count - at, BATCH);
    if (record->revokable ? map_revokable_batch(record, at, count, refs) : map_batch(record, at, count, refs)) continue;
    drop(record);
    return -XEN_EINVAL;
  }
  record->next = records;
  records = record;
  *address = record->address;
  return 0;
}

/* A record over `address`, or over holes of the library when it is NULL. */
static struct record *create(uint32_t count, unsigned int prot, void *address) {
  struct record *record = xen_block_alloc(size_of(count));
  if (record == NULL) return NULL;
  record->holes = address == NULL;
  record->address = record->holes ? xen_holes_alloc(count) : address;
  record->count = count;
  record->writable = (prot & GNTDEV_WRITE) != 0;
  if (record->address != NULL) return record;
  xen_block_free(record, size_of(count));
  return NULL;
}

static _Bool is_sane(uint32_t count, unsigned int prot) {
  return count > 0 && count <= 1u << 16 && prot & GNTDEV_READ && !(prot & ~(GNTDEV_READ | GNTDEV_WRITE));
}

int gntdev_map(uint32_t count, const struct gntdev_ref *refs, unsigned int prot, void **address) {
  if (!is_sane(count, prot)) return -XEN_EINVAL;
  struct record *record = create(count, prot, NULL);
  return record == NULL ? -XEN_ENOMEM : map(record, refs, address);
}

int gntdev_map_revokable(uint32_t count, const struct gntdev_ref *refs, unsigned int prot, unsigned int replacement,
                         void **address) {
  _Bool over = replacement == GNTDEV_LAY_OVER;
  if (!is_sane(count, prot) || replacement > GNTDEV_LAY_OVER) return -XEN_EINVAL;
  if (over && (*address == NULL || (uintptr_t)*address % XEN_PAGE_SIZE != 0)) return -XEN_EINVAL;
  struct record *record = create(count, prot, over ? *address : NULL);
  if (record == NULL) return -XEN_ENOMEM;
  record->revokable = 1;
  return map(record, refs, address);
}

int gntdev_unmap(void *address, uint32_t count) {
  struct record **link = &records;
  while (*link != NULL && !((*link)->address == address && (*link)->count == count)) link = &(*link)->next;
  struct record *record = *link;
  if (record == NULL) return -XEN_ENOENT;
  *link = record->next;
  drop(record);
  return 0;
}

int gntdev_set_unmap_notify(void *byte, unsigned int action, evtchn_port_t port) {
  for (struct record *record = records; record != NULL; record = record->next) {
    uintptr_t at = (uintptr_t)byte - (uintptr_t)record->address;
    if (at >= record->count * XEN_PAGE_SIZE) continue;
    if (action & ~(unsigned int)(UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT)) return -XEN_EINVAL;
    if (action != 0 && record->revokable) return -XEN_EINVAL;
    if (action & UNMAP_NOTIFY_CLEAR_BYTE && !record->writable) return -XEN_EINVAL;
    struct gnttab_unmap_notify op = {.target = record->handles[at >> XEN_PAGE_SHIFT],
                                     .action = action,
                                     .offset = at % XEN_PAGE_SIZE,
                                     .port = port};
    int status = HYPERVISOR_grant_table_op(GNTTABOP_unmap_notify, &op, 1);
    return status < 0 ? status : op.status;
  }
  return -XEN_ENOENT;
}

/* ---- copying ---- */

/* Copies of one hypercall, and the segment that each belongs to. */
struct copy_batch {
  uint32_t count;
  struct gnttab_copy ops[BATCH];
  struct gntdev_copy_segment *segments[BATCH];
};

static int flush(struct copy_batch *batch) {
  uint32_t count = batch->count;
  if (count == 0) return 0;
  batch->count = 0;
  int status = HYPERVISOR_grant_table_op(GNTTABOP_copy, batch->ops, count);
  for (uint32_t i = 0; i < count; i++)
    if (batch->segments[i]->status == GNTST_okay) batch->segments[i]->status = batch->ops[i].status;
  return status;
}

/* Fills in the side that begins `done` bytes into `end`; returns how far it goes inside one page. */
static uint32_t set_end(struct gnttab_copy_ptr *side, const union gntdev_copy_end *end, _Bool foreign, uint32_t done,
                        uint32_t length) {
  if (foreign) {
    side->u.ref = end->foreign.ref;
    side->domid = end->foreign.domid;
    side->offset = (uint16_t)(end->foreign.offset + done);
    return length;
  }
  const char *from = (const char *)end->address + done;
  side->u.gmfn = gfn_of(from);
  side->domid = DOMID_SELF;
  side->offset = (uint16_t)((uintptr_t)from % XEN_PAGE_SIZE);
  return least(length, XEN_PAGE_SIZE - side->offset);
}

/* Whether a foreign end stays inside its page. */
static _Bool is_inside(const union gntdev_copy_end *end, _Bool foreign, uint32_t length) {
  return !foreign || end->foreign.offset + length <= XEN_PAGE_SIZE;
}

static int add_segment(struct copy_batch *batch, struct gntdev_copy_segment *segment) {
  int result = 0;
  uint32_t length = segment->length;
  _Bool inside = is_inside(&segment->source, segment->flags & GNTCOPY_source_gref, length) &&
                 is_inside(&segment->dest, segment->flags & GNTCOPY_dest_gref, length);
  segment->status = inside ? GNTST_okay : GNTST_bad_copy_arg;
  if (!inside) return 0;
  for (uint32_t done = 0; done < length;) {
    if (batch->count == BATCH && (result = flush(batch)) < 0) return result;
    struct gnttab_copy *op = &batch->ops[batch->count];
    op->flags = segment->flags & (GNTCOPY_source_gref | GNTCOPY_dest_gref);
    op->status = GNTST_general_error;
    uint32_t piece = set_end(&op->source, &segment->source, op->flags & GNTCOPY_source_gref, done, length - done);
    piece = set_end(&op->dest, &segment->dest, op->flags & GNTCOPY_dest_gref, done, piece);
    op->len = (uint16_t)piece;
    batch->segments[batch->count++] = segment;
    done += piece;
  }
  return 0;
}

int gntdev_grant_copy(uint32_t count, struct gntdev_copy_segment *segments) {
  struct copy_batch batch;
  batch.count = 0;
  for (uint32_t i = 0; i < count; i++) {
    int status = add_segment(&batch, &segments[i]);
    if (status < 0) return status;
  }
  return flush(&batch);
}
