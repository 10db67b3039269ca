/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests with the balloon of the library, and some that behave badly:
 *
 *   loop         nothing but the library's event loop
 *   sleep        the same with xen_sleep_until and xen_event_wait
 *   take N       takes N pages, says so, gives them back when told to (data/free), goes on in the loop
 *   touch        writes every page it is given, for ever
 *   deaf         never looks at its target
 *   alternate N  takes N pages in a row and gives every second one back, past the library
 *   liar         writes its own target, and nonsense where its balloon's statistics stand
 *   end N R      sleeps N ms, then shuts down for reason R (SHUTDOWN_*)
 *   granted      gives a page back that it has granted to the control domain
 */
#include "c-check.h"
#include <xenolith/balloon.h>
#include <xenolith/grants.h>
#include <xenolith/xenstore.h>

static _Bool begins(const char *text, const char *with) {
  while (*with != 0)
    if (*text++ != *with++) return 0;
  return 1;
}

static void sleep_loop(void) {
  for (;;) {
    xen_sleep_until(xen_time_ns() + 20000000);
    xen_event_wait((evtchn_port_t)xen_start_info->store_evtchn, xen_time_ns() + 20000000);
  }
}

static void *taken;
static uint32_t taken_count;

static void on_free(const char *path, void *context) {
  char value[4];
  (void)context;
  if (taken == NULL || xenstore_read(XENSTORE_NO_TX, path, value, sizeof value) <= 0) return;
  xen_pages_free_run(taken, taken_count);
  taken = NULL;
  xen_printk("freed\n");
}

static void take(uint32_t count) {
  taken_count = count;
  taken = xen_pages_alloc_run(count);
  for (uint32_t i = 0; taken != NULL && i < count; i++) ((char *)taken)[i * XEN_PAGE_SIZE] = 1;
  xenstore_watch("data/free", on_free, NULL);
  xen_printk(taken == NULL ? "none\n" : "taken\n");
  xen_event_loop();
}

/* Takes all that there is, writes it, and gives it back to take more. */
static void touch(void) {
  for (;;) {
    uint32_t count = 0;
    static char *pages[65536];
    while (count < 65536 && (pages[count] = xen_pages_alloc(0)) != NULL) {
      if (*(volatile int *)pages[count] != 0) xen_shutdown(SHUTDOWN_crash);
      *(volatile int *)pages[count++] = 1;
    }
    xen_sleep_until(xen_time_ns() + 1000000);
    while (count > 0) xen_pages_free(pages[--count], 0);
  }
}

static void alternate(uint32_t count) {
  char *pages = xen_pages_alloc_run(count);
  uint32_t done = 0;
  for (uint32_t i = 0; pages != NULL && i < count; i += 2) {
    xen_pfn_t gfn = ((uint32_t)(uintptr_t)pages >> XEN_PAGE_SHIFT) + i;
    struct xen_memory_reservation op = {.nr_extents = 1, .domid = DOMID_SELF};
    set_xen_guest_handle(op.extent_start, &gfn);
    if (HYPERVISOR_memory_op(XENMEM_decrease_reservation, &op) != 1) break;
    done++;
  }
  xen_printk("gave %u of %u\n", (unsigned int)done, (unsigned int)count / 2);
  xen_event_loop();
}

static void liar(void) {
  static const char *const values[] = {"4294967295", "-1", "99999999999999999999", "a lot", ""};
  int refused = xenstore_write(XENSTORE_NO_TX, "memory/target", "4", 1);
  refused = refused == -XEN_EACCES && xenstore_write(XENSTORE_NO_TX, "memory/static-max", "4", 1) == -XEN_EACCES;
  xen_printk("target %s\n", refused ? "refused" : "taken");
  for (uint32_t i = 0;; i++) {
    const char *value = values[i % 5];
    uint32_t length = 0;
    while (value[length] != 0) length++;
    xenstore_write(XENSTORE_NO_TX, "data/balloon/retry_count", value, length);
    xenstore_write(XENSTORE_NO_TX, "data/balloon/max_retry_count", value, length);
    xenstore_write(XENSTORE_NO_TX, "data/balloon/info/current_kb", value, length);
    xen_sleep_until(xen_time_ns() + 1000000);
  }
}

static void granted(void) {
  char *page = xen_pages_alloc(0);
  page[0] = 42;
  int ref = grant_access(0, (uint32_t)(uintptr_t)page >> XEN_PAGE_SHIFT, 0);
  xen_printk("ref %d\n", ref);
  char value[4];
  while (xenstore_read(XENSTORE_NO_TX, "data/free", value, sizeof value) <= 0) xen_sleep_until(xen_time_ns() + 1000000);
  int before = xen_pages_current();
  xen_pages_free(page, 0);
  xen_printk("counted %d\n", xen_pages_current() - before);
  xen_event_loop();
}

/* Sleeps without the library, whose sleep would look at the target. */
static void deaf(void) {
  xen_upcalls_off();
  xen_printk("started\n");
  for (;;) {
    struct sched_poll poll = {.nr_ports = 0, .timeout = xen_time_ns() + 1000000000};
    HYPERVISOR_sched_op(SCHEDOP_poll, &poll);
  }
}

void xen_main(const struct start_info *start) {
  const char *text = (const char *)start->cmd_line;
  uint32_t number = 0;
  const char *digits = text;
  while (*digits != 0 && *digits != ' ') digits++;
  if (*digits == ' ') number = next_number(&digits);
  if (begins(text, "deaf")) deaf();
  xen_printk("started\n");
  if (begins(text, "sleep")) sleep_loop();
  if (begins(text, "take")) take(number);
  if (begins(text, "touch")) touch();
  if (begins(text, "alternate")) alternate(number);
  if (begins(text, "liar")) liar();
  if (begins(text, "granted")) granted();
  if (begins(text, "end")) {
    xen_sleep_until(xen_time_ns() + (uint64_t)number * 1000000);
    xen_shutdown(next_number(&digits));
  }
  xen_event_loop();
}
