/* SPDX-License-Identifier: Apache-2.0 */
/* Wants secrets where there may be none: prints what comes of each wish. */
#include <xenolith/guest.h>
#include <xenolith/secrets.h>

void xen_main(const struct start_info *start) {
  (void)start;
  void *address = NULL;
  struct xen_secret_query query;
  int made = secret_create(1);
  int mapped = made < 0 ? made : secret_map((uint32_t)made, 0, 1, 0, &address);
  int asked = secret_query(XENSECRET_QUOTA, &query);
  xen_printk("%d %d %d %u\n", made, mapped, asked, (unsigned int)query.bytes_used);
}
