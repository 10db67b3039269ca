/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: one handler a port, the two-level scan, and the loop. The scan clears the upcall flag and the selector
 * before it looks at the bits, so that an event that comes meanwhile starts another round.
 */
#include "internal.h"

#define WORD_BITS 32
#define WORD_COUNT 32
#define PORT_COUNT (WORD_BITS * WORD_COUNT)

static struct {
  xen_event_handler handler;
  void *context;
} handlers[PORT_COUNT];
static _Bool stop_requested;

static struct shared_info *shared(void) { return (struct shared_info *)(uintptr_t)xen_start_info->shared_info; }

static volatile struct vcpu_info *vcpu(void) { return &shared()->vcpu_info[0]; }

/*
 * The hypervisor sets bits in these words from other threads while we clear ours, so plain stores would lose events.
 */
#ifndef __wasm_atomics__
#error "the event library needs -matomics (xencc sets it)"
#endif

static xen_ulong_t take_bits(volatile xen_ulong_t *word, xen_ulong_t bits) {
  return __atomic_fetch_and(word, ~bits, __ATOMIC_SEQ_CST) & bits;
}

static void set_mask(evtchn_port_t port) {
  __atomic_fetch_or(&shared()->evtchn_mask[port / WORD_BITS], 1u << port % WORD_BITS, __ATOMIC_SEQ_CST);
}

int xen_event_on(evtchn_port_t port, xen_event_handler handler, void *context) {
  struct evtchn_unmask unmask = {.port = port};
  if (port == 0 || port >= PORT_COUNT) return -EINVAL;
  set_mask(port);
  handlers[port].handler = handler;
  handlers[port].context = context;
  return handler == NULL ? 0 : HYPERVISOR_event_channel_op(EVTCHNOP_unmask, &unmask);
}

int xen_event_alloc_unbound(domid_t remote) {
  struct evtchn_alloc_unbound op = {.dom = DOMID_SELF, .remote_dom = remote};
  int status = HYPERVISOR_event_channel_op(EVTCHNOP_alloc_unbound, &op);
  return status < 0 ? status : (int)op.port;
}

int xen_event_bind_interdomain(domid_t remote, evtchn_port_t remote_port) {
  struct evtchn_bind_interdomain op = {.remote_dom = remote, .remote_port = remote_port};
  int status = HYPERVISOR_event_channel_op(EVTCHNOP_bind_interdomain, &op);
  return status < 0 ? status : (int)op.local_port;
}

int xen_event_bind_virq(unsigned int virq, unsigned int vcpu_id) {
  struct evtchn_bind_virq op = {.virq = virq, .vcpu = vcpu_id};
  int status = HYPERVISOR_event_channel_op(EVTCHNOP_bind_virq, &op);
  return status < 0 ? status : (int)op.port;
}

int xen_event_send(evtchn_port_t port) {
  struct evtchn_send op = {.port = port};
  return HYPERVISOR_event_channel_op(EVTCHNOP_send, &op);
}

int xen_event_close(evtchn_port_t port) {
  struct evtchn_close op = {.port = port};
  if (port < PORT_COUNT) handlers[port].handler = NULL;
  return HYPERVISOR_event_channel_op(EVTCHNOP_close, &op);
}

uint64_t xen_time_last(void) {
  volatile struct vcpu_time_info *time = &vcpu()->time;
  uint32_t version;
  uint64_t now;
  do {
    version = __atomic_load_n(&time->version, __ATOMIC_SEQ_CST);
    now = time->system_time;
  } while (version % 2 != 0 || version != __atomic_load_n(&time->version, __ATOMIC_SEQ_CST));
  return now;
}

static unsigned int serve_word(unsigned int word) {
  unsigned int served = 0;
  xen_ulong_t ready = shared()->evtchn_pending[word] & ~shared()->evtchn_mask[word];
  while (ready != 0) {
    unsigned int bit = (unsigned int)__builtin_ctzl(ready);
    evtchn_port_t port = word * WORD_BITS + bit;
    ready &= ready - 1;
    if (take_bits(&shared()->evtchn_pending[word], 1ul << bit) == 0 || handlers[port].handler == NULL) continue;
    handlers[port].handler(port, handlers[port].context);
    served++;
  }
  return served;
}

unsigned int xen_event_dispatch(void) {
  unsigned int served = 0;
  while (vcpu()->evtchn_upcall_pending) {
    vcpu()->evtchn_upcall_pending = 0;
    xen_ulong_t selected = take_bits((volatile xen_ulong_t *)&vcpu()->evtchn_pending_sel, ~0u);
    while (selected != 0) {
      served += serve_word((unsigned int)__builtin_ctzl(selected));
      selected &= selected - 1;
    }
  }
  xen_tick_if_due(xen_time_last());
  return served;
}

_Bool xen_upcalls_off(void) {
  _Bool on = vcpu()->evtchn_upcall_mask == 0;
  vcpu()->evtchn_upcall_mask = 1;
  return on;
}

void xen_upcalls_restore(_Bool on) {
  if (!on) return;
  vcpu()->evtchn_upcall_mask = 0;
  if (vcpu()->evtchn_upcall_pending) xen_event_dispatch();
}

int xen_event_wait(evtchn_port_t port, uint64_t deadline_ns) {
  uint64_t tick = vcpu()->evtchn_upcall_mask == 0 && xen_tick != NULL ? xen_tick_deadline : 0;
  _Bool is_tick = tick != 0 && (deadline_ns == 0 || tick < deadline_ns);
  struct sched_poll poll = {.nr_ports = 1, .timeout = is_tick ? tick : deadline_ns};
  set_xen_guest_handle(poll.ports, &port);
  int status = HYPERVISOR_sched_op(SCHEDOP_poll, &poll);
  _Bool upcalls = vcpu()->evtchn_upcall_mask == 0;
  if (upcalls) xen_event_dispatch();
  /* With upcalls on, the bit of a port with a handler is the handler's. */
  if (port < PORT_COUNT && !(upcalls && handlers[port].handler != NULL))
    take_bits(&shared()->evtchn_pending[port / WORD_BITS], 1ul << port % WORD_BITS);
  if (is_tick) xen_tick_if_due(xen_time_ns());
  return status;
}

__attribute__((export_name("xen_upcall"))) void xen_upcall(void) { xen_event_dispatch(); }

void xen_event_loop_stop(void) { stop_requested = 1; }

void xen_event_loop(void) {
  stop_requested = 0;
  while (!stop_requested) {
    xen_event_dispatch();
    if (stop_requested) break;
    if (xen_tick != NULL && xen_tick_deadline != 0) {
      struct sched_poll poll = {.nr_ports = 0, .timeout = xen_tick_deadline};
      HYPERVISOR_sched_op(SCHEDOP_poll, &poll);
      xen_tick_if_due(xen_time_ns());
    } else HYPERVISOR_sched_op(SCHEDOP_block, NULL);
  }
}
