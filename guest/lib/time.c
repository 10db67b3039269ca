/* SPDX-License-Identifier: Apache-2.0 */
/* System time through hvm_op, and sleeping with sched_op(poll). */
#include <xenolith/guest.h>
#include <xenolith/hvm/hvm_op.h>

uint64_t xen_time_ns(void) {
  struct xen_hvm_get_time time = {.now = 0};
  HYPERVISOR_hvm_op(HVMOP_get_time, &time);
  return time.now;
}

void xen_sleep_until(uint64_t deadline_ns) {
  struct sched_poll poll = {.nr_ports = 0, .timeout = deadline_ns};
  HYPERVISOR_sched_op(SCHEDOP_poll, &poll);
}
