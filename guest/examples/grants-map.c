/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maps the page that grants-share.c shares, over an array of its own, and goes on using it when it is taken away.
 *
 *   command line: the other domain's id, a space, and the reference that it printed
 */
#include <xenolith/grants.h>

/* What stands here comes back when the shared page is taken away. */
static uint32_t array[XEN_PAGE_SIZE / sizeof(uint32_t)] __attribute__((aligned(4096)));

static uint32_t number(const char **text) {
  uint32_t value = 0;
  while (**text >= '0' && **text <= '9') value = value * 10 + (uint32_t)(*(*text)++ - '0');
  if (**text == ' ') (*text)++;
  return value;
}

void xen_main(const struct start_info *start) {
  const char *words = (const char *)start->cmd_line;
  struct gntdev_ref shared;
  void *address = array;
  shared.domid = (domid_t)number(&words);
  shared.ref = number(&words);
  array[0] = 7;
  int status = gntdev_map_revokable(1, &shared, GNTDEV_READ | GNTDEV_WRITE, GNTDEV_LAY_OVER, &address);
  if (status < 0) {
    xen_printk("cannot map: %d\n", status);
    xen_shutdown(SHUTDOWN_crash);
  }
  volatile uint32_t *view = address;
  xen_printk("the other domain says %u\n", (unsigned int)view[0]);
  view[1] = 23;
  /* It takes the page away while we use it: our own page appears, with what we left in it. */
  while (view[0] == 42) view[2]++;
  view[1] = 99;
  xen_printk("now I see my own %u\n", (unsigned int)view[0]);
  gntdev_unmap(address, 1);
}
