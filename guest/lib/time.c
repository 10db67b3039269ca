/* SPDX-License-Identifier: Apache-2.0 */
/* System time through hvm_op, and sleeping with sched_op(poll). */
#include "internal.h"
#include <xenolith/hvm/hvm_op.h>

uint64_t xen_time_ns(void) {
  struct xen_hvm_get_time time = {.now = 0};
  HYPERVISOR_hvm_op(HVMOP_get_time, &time);
  return time.now;
}

void (*xen_tick)(void);
uint64_t xen_tick_deadline;

void xen_sleep_until(uint64_t deadline_ns) {
  for (;;) {
    uint64_t tick = xen_tick == NULL ? 0 : xen_tick_deadline;
    _Bool is_tick = tick != 0 && (deadline_ns == 0 || tick < deadline_ns);
    struct sched_poll poll = {.nr_ports = 0, .timeout = is_tick ? tick : deadline_ns};
    HYPERVISOR_sched_op(SCHEDOP_poll, &poll);
    if (!is_tick || xen_time_ns() < tick) return;
    xen_tick();
  }
}
