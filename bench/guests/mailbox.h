/* SPDX-License-Identifier: Apache-2.0 */
/* How the benches tell a guest what to do next: a structure in its memory that the control domain writes and reads. */
#ifndef BENCH_MAILBOX_H
#define BENCH_MAILBOX_H

#include <xenolith/guest.h>

#define MAILBOX_ARGUMENTS 6
#define MAILBOX_RESULTS 4
/* How long an idle guest sleeps before it looks again. */
#define MAILBOX_SLEEP_NS 500000ull

static struct {
  /* Changed last by the control domain, repeated in `done` by the guest when it has finished. */
  volatile uint32_t sequence;
  volatile uint32_t done;
  uint32_t command;
  uint32_t arguments[MAILBOX_ARGUMENTS];
  uint32_t failed;
  uint64_t results[MAILBOX_RESULTS];
} mailbox;

static uint32_t arg(unsigned int index) { return mailbox.arguments[index]; }

static void answer(unsigned int index, uint64_t value) { mailbox.results[index] = value; }

/* The bench stops with the line at which something was not as it should be. */
#define require(condition) \
  do { \
    if (!(condition) && mailbox.failed == 0) mailbox.failed = __LINE__; \
  } while (0)

static void perform(uint32_t command);

/* Says where the mailbox is, and serves it for ever. */
static _Noreturn void serve_mailbox(void) {
  xen_printk("mailbox %u\n", (unsigned int)(uintptr_t)&mailbox);
  for (;;) {
    while (__atomic_load_n(&mailbox.sequence, __ATOMIC_SEQ_CST) == mailbox.done)
      xen_sleep_until(xen_time_ns() + MAILBOX_SLEEP_NS);
    mailbox.failed = 0;
    perform(mailbox.command);
    __atomic_store_n(&mailbox.done, mailbox.sequence, __ATOMIC_SEQ_CST);
  }
}

#endif
