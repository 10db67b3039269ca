/* SPDX-License-Identifier: Apache-2.0 */
/* Takes pages until the limit, gives them back, and shows that the hypervisor agrees. */
#include <xenolith/guest.h>

#define BLOCKS_MAX 1024

static void *blocks[BLOCKS_MAX];

void xen_main(const struct start_info *start) {
  int before = xen_pages_current(), most = xen_pages_maximum(), taken = 0;
  (void)start;
  while (taken < BLOCKS_MAX && (blocks[taken] = xen_pages_alloc(2)) != NULL) {
    *(volatile unsigned int *)blocks[taken] = 0xC0FFEE;
    taken++;
  }
  xen_printk("took %d blocks of 4 pages; %d of %d pages owned\n", taken, xen_pages_current(), most);
  while (taken > 0) xen_pages_free(blocks[--taken], 2);
  xen_printk("gave them back: %s\n", xen_pages_current() == before ? "as before" : "pages are missing");
}
