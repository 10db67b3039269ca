/* SPDX-License-Identifier: Apache-2.0 */
/* Secret memory of the guest library: a guest alone. */
#include "c-check.h"
#include <xenolith/grants.h>
#include <xenolith/secrets.h>

#define PAGES 4u

static domid_t self;

static struct xen_secret_query quota(void) {
  struct xen_secret_query query;
  check_equal("the quota is told", secret_query(XENSECRET_QUOTA, &query), 0);
  return query;
}

static void made_and_used(void) {
  void *address = NULL, *second = NULL, *part = NULL;
  /* The library's own records are there afterwards. */
  secret_release((uint32_t)secret_alloc(1, &address));
  int owned = xen_pages_current();
  int id = secret_alloc(PAGES, &address);
  check("a secret is made", id >= 0 && address != NULL);
  volatile char *bytes = address;
  check("it is zeros", bytes[0] == 0 && bytes[PAGES * XEN_PAGE_SIZE - 1] == 0);
  bytes[2 * XEN_PAGE_SIZE] = 42;
  check_equal("it is mapped again", secret_map((uint32_t)id, 0, PAGES, 0, &second), 0);
  check_equal("a part of it is mapped for reading", secret_map((uint32_t)id, 2, 1, XENSECRET_READONLY, &part), 0);
  check("all of them show one memory", ((volatile char *)second)[2 * XEN_PAGE_SIZE] == 42 && *(volatile char *)part == 42);
  check_equal("it is none of the domain's memory", xen_pages_current(), owned);
  struct xen_secret_query query = quota();
  check("it is counted", query.objects == 1 && query.bytes_used == PAGES * XEN_PAGE_SIZE);
  check("each mapping is counted", query.bytes_mapped == (2 * PAGES + 1) * XEN_PAGE_SIZE);
  check_equal("a mapping ends", secret_unmap(part), 0);
  check_equal("and only once", secret_unmap(part), -XEN_EINVAL);
  check_equal("the object is given up with all its mappings", secret_release((uint32_t)id), 0);
  check_equal("and only once", secret_release((uint32_t)id), -XEN_ENOENT);
  query = quota();
  check("nothing of it is counted any more", query.objects == 0 && query.bytes_used == 0 && query.bytes_mapped == 0);
}

static void sealed(void) {
  void *address = NULL, *again = NULL;
  int id = secret_alloc(1, &address);
  *(volatile char *)address = 7;
  check_equal("a secret is sealed", secret_seal((uint32_t)id), 0);
  check_equal("and again, to no effect", secret_seal((uint32_t)id), 0);
  check("it shows what it showed", *(volatile char *)address == 7);
  check_equal("it is not mapped for writing", secret_map((uint32_t)id, 0, 1, 0, &again), -XEN_EPERM);
  check_equal("but for reading", secret_map((uint32_t)id, 0, 1, XENSECRET_READONLY, &again), 0);
  struct xen_secret_query query;
  check_equal("an object is told about", secret_query((uint32_t)id, &query), 0);
  check("sealed, its own, shared with nobody",
        (query.flags & ~XENSECRET_IS_HIDDEN) == (XENSECRET_IS_SEALED | XENSECRET_IS_OWNED) && query.pages == 1);
  check_equal("a sealed secret is given up", secret_release((uint32_t)id), 0);
}

/* What nobody may have done with a secret page. */
static void refused(void) {
  void *address = NULL;
  int id = secret_alloc(2, &address);
  xen_pfn_t gfn = (uint32_t)(uintptr_t)address >> XEN_PAGE_SHIFT;
  static char text[] = "not a secret";
  check("it is granted as any number is", grant_access(self, gfn, 0) >= 8);
  struct gntdev_ref ref = {self, 8};
  void *mapped;
  check("but the grant cannot be mapped", gntdev_map(1, &ref, GNTDEV_READ, &mapped) < 0);
  grant_end(8);
  struct xen_memory_reservation give_back = {.nr_extents = 1, .domid = DOMID_SELF};
  set_xen_guest_handle(give_back.extent_start, &gfn);
  check_equal("it is not given back to the machine", HYPERVISOR_memory_op(XENMEM_decrease_reservation, &give_back), 0);
  struct xen_remove_from_physmap remove = {.domid = DOMID_SELF, .gpfn = gfn};
  check_equal("it is not removed", HYPERVISOR_memory_op(XENMEM_remove_from_physmap, &remove), -XEN_EINVAL);
  struct xen_add_to_physmap add = {.domid = DOMID_SELF, .space = XENMAPSPACE_shared_info, .gpfn = gfn};
  check_equal("nothing is put over it", HYPERVISOR_memory_op(XENMEM_add_to_physmap, &add), -XEN_EINVAL);
  check_equal("no hypercall reads it", HYPERVISOR_console_io(CONSOLEIO_write, 4, address), -XEN_EFAULT);
  check_equal("none writes it", HYPERVISOR_xen_version(XENVER_extraversion, address), -XEN_EFAULT);
  check_equal("its own structs are not in it", HYPERVISOR_secret_op(XENSECRET_query, address), -XEN_EFAULT);
  struct xen_secret_map over = {.id = (uint32_t)id, .pages = 1, .gfn = (uint32_t)(uintptr_t)text >> XEN_PAGE_SHIFT};
  check_equal("it is not laid over the program", HYPERVISOR_secret_op(XENSECRET_map, &over), -XEN_EEXIST);
  over.gfn = gfn + 1;
  check_equal("nor over a secret", HYPERVISOR_secret_op(XENSECRET_map, &over), -XEN_EEXIST);
  check_equal("there is no such command", HYPERVISOR_secret_op(99, &over), -XEN_ENOSYS);
  check("it is as it was", ((volatile char *)address)[0] == 0 && ((volatile char *)address)[XEN_PAGE_SIZE] == 0);
  secret_release((uint32_t)id);
}

static void exhausted(void) {
  struct xen_secret_query query = quota();
  uint32_t pages = (uint32_t)(query.bytes_max / XEN_PAGE_SIZE);
  void *address, *more;
  check_equal("more than the quota is not made", secret_alloc(pages + 1, &address), -XEN_EDQUOT);
  int id = secret_alloc(pages, &address);
  check("all of it is", id >= 0);
  check_equal("then no more", secret_alloc(1, &more), -XEN_EDQUOT);
  check_equal("nor more mapped", secret_map((uint32_t)id, 0, 1, XENSECRET_READONLY, &more), -XEN_EDQUOT);
  check_equal("sizes that are none", secret_create(0), -XEN_EINVAL);
  check_equal("sizes beyond all", secret_create(~0u), -XEN_EINVAL);
  ((volatile char *)address)[0] = 1;
  check_equal("what is given up", secret_release((uint32_t)id), 0);
  id = secret_alloc(pages, &address);
  check("can be had again, as zeros", id >= 0 && ((volatile char *)address)[0] == 0);
  secret_release((uint32_t)id);
}

/* Other domains' objects cannot be found by asking. */
static void foreign(void) {
  unsigned int found = 0;
  for (domid_t domid = 0; domid < 64; domid++) {
    for (uint32_t id = 0; id < 4; id++) found += secret_accept(domid, id) != -XEN_ENOENT;
  }
  check_equal("nothing is accepted that was not offered", found, 0);
  int id = secret_create(1);
  check_equal("no offer to oneself", secret_share((uint32_t)id, self, 0), -XEN_EINVAL);
  check_equal("nor to what is no domain", secret_share((uint32_t)id, DOMID_SELF, 0), -XEN_EINVAL);
  check_equal("an offer tells nothing", secret_share((uint32_t)id, 30000, 0), 0);
  check_equal("a second one to the same neither", secret_share((uint32_t)id, 30000, 0), -XEN_EEXIST);
  check_equal("it is withdrawn", secret_revoke((uint32_t)id, 30000), 0);
  check_equal("and only once", secret_revoke((uint32_t)id, 30000), -XEN_ENOENT);
  check_equal("offers are not for ever more", secret_revoke((uint32_t)id, DOMID_INVALID), 0);
  unsigned int offers = 0;
  while (secret_share((uint32_t)id, (domid_t)(20000 + offers), 0) == 0) offers++;
  check_equal("and not without end", offers, 16);
  secret_release((uint32_t)id);
}

void xen_main(const struct start_info *start) {
  (void)start;
  self = own_domid();
  made_and_used();
  sealed();
  refused();
  exhausted();
  foreign();
  finish();
}
