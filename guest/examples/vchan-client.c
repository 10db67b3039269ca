/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says something through the vchan of vchan-server.c and prints what comes back.
 *
 *   command line: the server's domid
 */
#include <xenolith/vchan.h>

static const char greeting[] = "hello from the other domain";

static uint32_t number(const char *text) {
  uint32_t value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
  return value;
}

void xen_main(const struct start_info *start) {
  struct vchan channel;
  char path[64], answer[sizeof greeting];
  domid_t server = (domid_t)number((const char *)start->cmd_line);
  xen_snprintf(path, sizeof path, "/local/domain/%u/data/vchan", (unsigned int)server);
  int status = vchan_client_wait_init(&channel, server, path, 0, 0);
  if (status < 0) {
    xen_printk("no channel: %d\n", status);
    xen_shutdown(SHUTDOWN_crash);
  }
  vchan_send(&channel, greeting, sizeof greeting);
  if (vchan_recv(&channel, answer, sizeof answer) == (int)sizeof answer) xen_printk("echo: %s\n", answer);
  vchan_close(&channel);
}
