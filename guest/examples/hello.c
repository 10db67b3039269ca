/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest guest: says hello and what it owns, then powers off. */
#include <xenolith/guest.h>

void xen_main(const struct start_info *start) {
  char *page = xen_pages_alloc(0);
  xen_printk("hello from a domain: %u pages at boot, %d now, %d at most\n", (unsigned int)start->nr_pages,
             xen_pages_current(), xen_pages_maximum());
  if (page == NULL) xen_printk("no page to be had: the limit is reached\n");
  xen_pages_free(page, 0);
}
