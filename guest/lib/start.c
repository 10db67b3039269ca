/* SPDX-License-Identifier: Apache-2.0 */
/* Entry of a Xen-style guest and its end. */
#include "internal.h"

const struct start_info *xen_start_info;

_Noreturn void xen_shutdown(unsigned int reason) {
  struct sched_shutdown shutdown = {.reason = reason};
  for (;;) HYPERVISOR_sched_op(SCHEDOP_shutdown, &shutdown);
}

__attribute__((export_name("xen_start"))) void xen_start(const struct start_info *start) {
  xen_start_info = start;
  xen_balloon_start();
  xen_main(start);
  xen_shutdown(SHUTDOWN_poweroff);
}
