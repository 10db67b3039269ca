/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shares a page with another domain, and takes it back. The other domain runs grants-map.c; its command line is the line
 * that this one prints.
 *
 *   command line: the other domain's id
 */
#include <xenolith/grants.h>

static uint32_t number(const char *text) {
  uint32_t value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
  return value;
}

static uint32_t load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

void xen_main(const struct start_info *start) {
  domid_t other = (domid_t)number((const char *)start->cmd_line);
  grant_ref_t ref;
  void *page;
  int status = gntalloc_alloc(other, GNTALLOC_WRITABLE | GNTALLOC_REVOKABLE, 1, &ref, &page);
  if (status < 0) {
    xen_printk("no page to share: %d\n", status);
    xen_shutdown(SHUTDOWN_crash);
  }
  uint32_t *words = page;
  words[0] = 42;
  xen_printk("%u\n", (unsigned int)ref);
  /* The other side answers in the second word. */
  while (load(&words[1]) == 0) xen_sleep_until(xen_time_ns() + 1000000);
  xen_printk("the answer is %u\n", (unsigned int)load(&words[1]));
  status = gntalloc_revoke(page, 1);
  words[1] = 0;
  xen_printk("taken back: %d\n", status);
  /* Whatever the other side writes now, it does not come here. */
  xen_sleep_until(xen_time_ns() + 50000000);
  xen_printk("still %u here\n", (unsigned int)load(&words[1]));
  gntalloc_free(page, 1);
}
