/* SPDX-License-Identifier: Apache-2.0 */
/* What the guests of the tests have in common: a line "ok NAME" or "FAILED NAME" for each rule, and their own domid. */
#include <xenolith/errno.h>
#include <xenolith/guest.h>

static unsigned int failures;

static void check(const char *name, _Bool holds) {
  xen_printk("%s %s\n", holds ? "ok" : "FAILED", name);
  failures += !holds;
}

static inline void check_equal(const char *name, int64_t value, int64_t expected) {
  if (value != expected) xen_printk("%lld instead of %lld:\n", (long long)value, (long long)expected);
  check(name, value == expected);
}

static inline void finish(void) { xen_shutdown(failures ? SHUTDOWN_crash : SHUTDOWN_poweroff); }

/* The other end of a channel for oneself is oneself: that says one's number. */
static inline domid_t own_domid(void) {
  struct evtchn_alloc_unbound unbound = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
  if (HYPERVISOR_event_channel_op(EVTCHNOP_alloc_unbound, &unbound) < 0) return DOMID_INVALID;
  struct evtchn_status status = {.dom = DOMID_SELF, .port = unbound.port};
  HYPERVISOR_event_channel_op(EVTCHNOP_status, &status);
  xen_event_close(unbound.port);
  return status.u.unbound.dom;
}

/* The number at `*text`, behind which `*text` stands then. */
static inline uint32_t next_number(const char **text) {
  uint32_t value = 0;
  while (**text == ' ') (*text)++;
  while (**text >= '0' && **text <= '9') value = value * 10 + (uint32_t)(*(*text)++ - '0');
  return value;
}
