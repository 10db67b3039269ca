/* SPDX-License-Identifier: Apache-2.0 */
/* Three ticks of a timer, delivered as events. */
#include <xenolith/guest.h>

#define TICK_NS 20000000ull
#define TICK_COUNT 3

static unsigned int ticks;

static void on_tick(evtchn_port_t port, void *context) {
  uint64_t *next = context;
  (void)port;
  xen_printk("tick %u\n", ++ticks);
  *next += TICK_NS;
  if (ticks < TICK_COUNT) HYPERVISOR_set_timer_op(*next);
  else xen_event_loop_stop();
}

void xen_main(const struct start_info *start) {
  uint64_t next = xen_time_ns() + TICK_NS;
  int port = xen_event_bind_virq(VIRQ_TIMER, 0);
  (void)start;
  if (port < 0) xen_shutdown(SHUTDOWN_crash);
  xen_event_on((evtchn_port_t)port, on_tick, &next);
  HYPERVISOR_set_timer_op(next);
  xen_event_loop();
}
