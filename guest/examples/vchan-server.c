/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Echoes what comes through a vchan, until the other end closes it. The other end is vchan-client.c in another domain.
 *
 *   command line: the id of the client's domain, which must exist (it need not run yet)
 */
#include <xenolith/vchan.h>

static uint32_t number(const char *text) {
  uint32_t value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
  return value;
}

void xen_main(const struct start_info *start) {
  struct vchan channel;
  char bytes[256];
  int count;
  domid_t client = (domid_t)number((const char *)start->cmd_line);
  int status = vchan_server_init(&channel, client, "data/vchan", 4096, 4096, 0);
  if (status < 0) {
    xen_printk("no channel: %d\n", status);
    xen_shutdown(SHUTDOWN_crash);
  }
  xen_printk("waiting for domain %u\n", (unsigned int)client);
  while ((count = vchan_read(&channel, bytes, sizeof bytes)) > 0) vchan_write(&channel, bytes, (size_t)count);
  xen_printk("the client is gone\n");
  vchan_close(&channel);
}
