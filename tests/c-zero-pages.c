/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest without a balloon to speak of: writes N pages, every second one with zeros, and sleeps; when data/look is
 * written it looks whether they are as they were. `spin` computes for ever.
 */
#include "c-check.h"
#include <xenolith/xenstore.h>

static volatile uint32_t *pages;
static uint32_t count;

static volatile uint32_t *word(uint32_t page) { return pages + page * (XEN_PAGE_SIZE / 4) + page % 1024; }

static void on_look(const char *path, void *context) {
  char value[4];
  uint32_t wrong = 0;
  (void)context;
  if (xenstore_read(XENSTORE_NO_TX, path, value, sizeof value) <= 0) return;
  for (uint32_t i = 0; i < count; i++) {
    wrong += *word(i) != i % 2;
    *word(i) = i % 2;
  }
  xen_printk("wrong %u\n", (unsigned int)wrong);
}

void xen_main(const struct start_info *start) {
  const char *text = (const char *)start->cmd_line;
  if (*text == 's') {
    xen_printk("ready\n");
    for (volatile uint32_t i = 0;; i++) {
    }
  }
  count = next_number(&text);
  pages = xen_pages_alloc_run(count);
  for (uint32_t i = 0; i < count; i++) *word(i) = i % 2;
  xenstore_watch("data/look", on_look, NULL);
  xen_printk("ready\n");
  xen_event_loop();
}
