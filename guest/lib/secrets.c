/* SPDX-License-Identifier: Apache-2.0 */
/* Secret memory. One record for each mapping: where the library has placed it. */
#include "internal.h"
#include <xenolith/secrets.h>

struct mapping {
  struct mapping *next;
  char *address;
  uint32_t pages;
  uint32_t id;
};

static struct mapping *mappings;

int secret_create(uint32_t pages) {
  struct xen_secret_allocate request = {.pages = pages};
  int status = HYPERVISOR_secret_op(XENSECRET_allocate, &request);
  return status < 0 ? status : (int)request.id;
}

/* Maps into addresses that the mapping has. */
static int map_at(const struct mapping *mapping, uint32_t first_page, unsigned int flags) {
  struct xen_secret_map request = {.id = mapping->id,
                                   .gfn = gfn_of(mapping->address),
                                   .first_page = first_page,
                                   .pages = mapping->pages,
                                   .flags = flags};
  return HYPERVISOR_secret_op(XENSECRET_map, &request);
}

int secret_map(uint32_t id, uint32_t first_page, uint32_t pages, unsigned int flags, void **address) {
  if (pages == 0) return -XEN_EINVAL;
  struct mapping *mapping = xen_block_alloc(sizeof(*mapping));
  char *holes = mapping == NULL ? NULL : xen_holes_alloc(pages);
  int status = -XEN_ENOMEM;
  if (holes != NULL) {
    *mapping = (struct mapping){.next = mappings, .address = holes, .pages = pages, .id = id};
    status = map_at(mapping, first_page, flags);
    if (status == 0) {
      mappings = mapping;
      *address = holes;
      return 0;
    }
    xen_holes_free(holes, pages);
  }
  if (mapping != NULL) xen_block_free(mapping, sizeof(*mapping));
  return status;
}

int secret_alloc(uint32_t pages, void **address) {
  int id = secret_create(pages);
  if (id < 0) return id;
  int status = secret_map((uint32_t)id, 0, pages, 0, address);
  if (status == 0) return id;
  secret_release((uint32_t)id);
  return status;
}

/* Unmaps what `*link` names, and forgets it. */
static int unmap(struct mapping **link) {
  struct mapping *mapping = *link;
  struct xen_secret_unmap request = {.gfn = gfn_of(mapping->address), .pages = mapping->pages};
  int status = HYPERVISOR_secret_op(XENSECRET_unmap, &request);
  if (status != 0) return status;
  *link = mapping->next;
  xen_holes_free(mapping->address, mapping->pages);
  xen_block_free(mapping, sizeof(*mapping));
  return 0;
}

int secret_unmap(void *address) {
  struct mapping **link = &mappings;
  while (*link != NULL && (*link)->address != address) link = &(*link)->next;
  return *link == NULL ? -XEN_EINVAL : unmap(link);
}

static int on_object(unsigned int cmd, uint32_t id) {
  struct xen_secret_object request = {.id = id};
  return HYPERVISOR_secret_op(cmd, &request);
}

int secret_seal(uint32_t id) { return on_object(XENSECRET_seal, id); }

int secret_release(uint32_t id) {
  for (struct mapping **link = &mappings; *link != NULL;) {
    if ((*link)->id != id) {
      link = &(*link)->next;
      continue;
    }
    int status = unmap(link);
    if (status != 0) return status;
  }
  return on_object(XENSECRET_release, id);
}

void secret_wipe(volatile void *bytes, size_t length) {
  for (volatile char *byte = bytes; length > 0; length--) *byte++ = 0;
}

int secret_share(uint32_t id, domid_t domid, unsigned int flags) {
  struct xen_secret_share request = {.id = id, .domid = domid, .flags = flags};
  return HYPERVISOR_secret_op(XENSECRET_share, &request);
}

int secret_accept(domid_t domid, uint32_t owner_id) {
  struct xen_secret_accept request = {.domid = domid, .owner_id = owner_id};
  int status = HYPERVISOR_secret_op(XENSECRET_accept, &request);
  return status < 0 ? status : (int)request.id;
}

int secret_revoke(uint32_t id, domid_t domid) {
  struct xen_secret_revoke request = {.id = id, .domid = domid};
  return HYPERVISOR_secret_op(XENSECRET_revoke, &request);
}

int secret_query(uint32_t id, struct xen_secret_query *query) {
  *query = (struct xen_secret_query){.id = id};
  return HYPERVISOR_secret_op(XENSECRET_query, query);
}
