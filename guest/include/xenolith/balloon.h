/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balloon: how much memory the domain owns follows what the control domain writes to `memory/target`.
 *
 * A Xen-style program has it without asking: the library's start code listens for the store, and the library's page
 * allocator keeps what the domain is given until the program takes it. Nothing happens until the target becomes
 * something other than static-max; until then pages come as the program takes them. It runs when an event is delivered and
 * while the program sleeps in xen_event_loop, xen_event_wait (upcalls on) or xen_sleep_until.
 *
 * What it is about to do is one number, credit = target - current pages. The state machine is this table; balloon-machine.c
 * and the control domain's packages/toolstack/src/balloon.ts are it in C and in TypeScript, and a test compares them.
 *
 *     event                     when                       state       delay             retry      then
 *     new target                same as before             -           -                 -          -
 *                               else                       -           -                 -          a step at once
 *     step: some pages changed  credit is left             DONE        1                 1          a step at once
 *                               none is left               DONE        1                 1          sleep until a new target
 *     step: no credit           -                          DONE        1                 1          sleep until a new target
 *     step: no page changed     max_retry_count = 0, or    EAGAIN      twice, at most    one more   a step after `delay`
 *                               retry < max_retry_count                max_schedule_delay           seconds
 *                               else                       ECANCELED   1                 1          sleep until a new target
 *
 * It is the same in both directions. Pages of a partial success are kept, and no failure becomes a limit: while there is
 * credit it goes on by itself. The driver also takes a step when the program gives pages back.
 *
 * Target: pages = memory/target / 4 - target_diff, at most memory/static-max. target_diff = static-max - the pages that the
 * driver governs at the first target, for a driver that counts for itself; 0 for one that counts with the
 * hypervisor, like this one. A value that is no number of KiB is as if it had not been written.
 *
 * Settings, read when they change: memory/balloon/{schedule_delay,max_schedule_delay,max_retry_count}. Statistics, written
 * once a target was given: data/balloon/{target_kb,schedule_delay,max_schedule_delay,retry_count,max_retry_count} and
 * data/balloon/info/{current_kb,low_kb,high_kb}; low: pages that are missing to static-max.
 */
#ifndef XENOLITH_BALLOON_H
#define XENOLITH_BALLOON_H

#include <stdint.h>

#define XEN_BALLOON_DONE 0u
#define XEN_BALLOON_EAGAIN 1u
#define XEN_BALLOON_ECANCELED 2u

/* How long to sleep after a step. */
#define XEN_BALLOON_AT_ONCE 0u
#define XEN_BALLOON_UNTIL_TARGET 0xffffffffu

struct xen_balloon {
  uint32_t current_pages;
  uint32_t target_pages;
  uint32_t schedule_delay;
  uint32_t max_schedule_delay;
  uint32_t retry_count;
  /* 0: unlimited. */
  uint32_t max_retry_count;
  uint32_t state;
};

/* A machine that owns `pages` and wants no others. */
void xen_balloon_reset(struct xen_balloon *balloon, uint32_t pages);
/* A new target; whether a step is due. */
_Bool xen_balloon_aim(struct xen_balloon *balloon, uint32_t pages);
/* A step that changed `changed` pages has left the domain with `current` ones; returns seconds to sleep, or one of the above. */
uint32_t xen_balloon_settle(struct xen_balloon *balloon, uint32_t current, uint32_t changed);
/* Pages of `target_kb`, as the driver that counts `target_diff` pages less sees it. */
uint32_t xen_balloon_pages(uint32_t target_kb, uint32_t static_max_kb, uint32_t target_diff);

/* The domain's own, to look at. */
const struct xen_balloon *xen_balloon(void);

/*
 * The balloon lets go of the store's ring for good; the domain keeps what it has. For a program that gives the page or the
 * channel of its store back, or uses the ring by itself.
 */
void xen_balloon_end(void);

/*
 * In a reactor the control domain drives the balloon, and asks for pages between two calls. One source file of the
 * program says XEN_BALLOON_EXPORTS; what is kept serves xen_pages_alloc.
 */
uint32_t xen_pages_keep(uint32_t count);
uint32_t xen_pages_drop(uint32_t count);
#define XEN_BALLOON_EXPORTS                                                                                     \
  __attribute__((export_name("xen_balloon_up"))) uint32_t xen_balloon_up(uint32_t count);                       \
  uint32_t xen_balloon_up(uint32_t count) { return xen_pages_keep(count); }                                     \
  __attribute__((export_name("xen_balloon_down"))) uint32_t xen_balloon_down(uint32_t count);                   \
  uint32_t xen_balloon_down(uint32_t count) { return xen_pages_drop(count); }

#endif
