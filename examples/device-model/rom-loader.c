/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device model in a domain of its own. It loads an option ROM into another domain, its target: it asks how much it may
 * add, raises the target's max_pages by that much and no more, populates the pages there, maps them, writes the ROM, and
 * lets go of them. What a device model may not do it tries too.
 *
 * Command line: the target's domid, and the frame where the ROM is to stand.
 */
#include <xenolith/domctl.h>
#include <xenolith/errno.h>
#include <xenolith/guest.h>

#define ROM_PAGES 4u
#define ROM_BYTES (ROM_PAGES * XEN_PAGE_SIZE)
/* Where the target's pages are mapped here: addresses at which this domain has no memory. */
#define WINDOW_GFN 0x40000u

static struct xen_domctl op;
static xen_pfn_t frames[ROM_PAGES];
static xen_ulong_t sources[ROM_PAGES];
static int results[ROM_PAGES];

static unsigned int number(const char **text) {
  unsigned int value = 0;
  while (**text == ' ') ++*text;
  while (**text >= '0' && **text <= '9') value = value * 10 + (unsigned int)(*(*text)++ - '0');
  return value;
}

static int control(unsigned int command, domid_t target) {
  op.cmd = command;
  op.interface_version = XEN_DOMCTL_INTERFACE_VERSION;
  op.domain = target;
  return HYPERVISOR_domctl(&op);
}

static int set_max(domid_t target, uint64_t pages) {
  op.u.max_mem.max_memkb = pages * 4;
  return control(XEN_DOMCTL_max_mem, target);
}

static int populate(domid_t target, unsigned int gfn, unsigned int count) {
  struct xen_memory_reservation request = {.nr_extents = count, .domid = target};
  for (unsigned int i = 0; i < count; i++) frames[i] = gfn + i;
  set_xen_guest_handle(request.extent_start, frames);
  return HYPERVISOR_memory_op(XENMEM_populate_physmap, &request);
}

static int map(domid_t target, unsigned int gfn) {
  struct xen_add_to_physmap_batch batch = {.domid = DOMID_SELF, .space = XENMAPSPACE_gmfn_foreign, .size = ROM_PAGES};
  batch.u.foreign_domid = target;
  for (unsigned int i = 0; i < ROM_PAGES; i++) {
    sources[i] = gfn + i;
    frames[i] = WINDOW_GFN + i;
  }
  set_xen_guest_handle(batch.idxs, sources);
  set_xen_guest_handle(batch.gpfns, frames);
  set_xen_guest_handle(batch.errs, results);
  int failed = HYPERVISOR_memory_op(XENMEM_add_to_physmap_batch, &batch);
  for (unsigned int i = 0; i < ROM_PAGES; i++) failed = failed != 0 ? failed : results[i];
  return failed;
}

static void unmap(void) {
  for (unsigned int i = 0; i < ROM_PAGES; i++) {
    struct xen_remove_from_physmap request = {.domid = DOMID_SELF, .gpfn = WINDOW_GFN + i};
    HYPERVISOR_memory_op(XENMEM_remove_from_physmap, &request);
  }
}

/* The form of a PC's option ROM: 55 AA, its length in units of 512 bytes, and all bytes add up to 0. */
static void write_rom(unsigned char *rom) {
  static const char text[] = "option ROM of the device model";
  unsigned char sum = 0;
  rom[0] = 0x55;
  rom[1] = 0xAA;
  rom[2] = ROM_BYTES / 512;
  for (unsigned int i = 0; i < sizeof text; i++) rom[16 + i] = (unsigned char)text[i];
  for (unsigned int i = 0; i < ROM_BYTES - 1; i++) sum = (unsigned char)(sum + rom[i]);
  rom[ROM_BYTES - 1] = (unsigned char)-sum;
}

void xen_main(const struct start_info *start) {
  const char *line = (const char *)start->cmd_line;
  domid_t target = (domid_t)number(&line);
  unsigned int gfn = number(&line);
  int failed = control(XEN_DOMCTL_get_memory_limits, target);
  unsigned int max = op.u.memory_limits.max_pages, extra = op.u.memory_limits.extra_pages_max;
  if (failed != 0) {
    xen_printk("domain %u is not mine: %d\n", target, failed);
    return;
  }
  xen_printk("target %u: max_pages %u, I may add %u\n", target, max, extra);
  xen_printk("max_pages = -1: %d\n", set_max(target, ~(uint64_t)0 / 4));
  xen_printk("one page more than I may: %d\n", set_max(target, max + extra + 1));
  xen_printk("another domain, of one page more: %d\n", set_max((domid_t)(target + 100), max + 1));
  failed = set_max(target, max + ROM_PAGES);
  if (failed == 0) failed = populate(target, gfn, ROM_PAGES) == (int)ROM_PAGES ? 0 : -ENOMEM;
  if (failed == 0) failed = map(target, gfn);
  if (failed == 0) write_rom((unsigned char *)(uintptr_t)(WINDOW_GFN << XEN_PAGE_SHIFT));
  unmap();
  xen_printk("ROM of %u pages at frame %u: %d\n", ROM_PAGES, gfn, failed);
}
