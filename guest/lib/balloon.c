/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balloon's driver: see <xenolith/balloon.h>. It is started by the first event of the store, so where nobody uses a
 * store it costs one hypercall. It runs at the end of event delivery and of xenstore calls, never inside itself.
 */
#include "internal.h"
#include <xenolith/balloon.h>
#include <xenolith/xenstore.h>

#define SECOND_NS 1000000000ull
/* Pages between two looks at the target: 128 MiB. */
#define BATCH_PAGES 32768u
#define KIB_PER_PAGE 4u
#define SETTINGS "memory/balloon/"
#define STATISTICS "data/balloon/"

static struct xen_balloon balloon;
static uint32_t static_max_kb;
/* The target at the first look. */
static uint32_t first_kb;
static _Bool has_looked;
/* A target other than static-max has been given. */
static _Bool is_active;
static _Bool is_watching, is_running, target_changed;
/* System time of the next try; 0: none is due. */
static uint64_t next_step;

const struct xen_balloon *xen_balloon(void) { return &balloon; }

/* ---- target ---- */

static void on_target(const char *path, void *context) {
  (void)path, (void)context;
  target_changed = 1;
  xen_tick_deadline = 1;
}

static _Bool read_kb(const char *path, uint32_t *value) { return xenstore_read_number(XENSTORE_NO_TX, path, value) == 0; }

static void read_settings(void) {
  uint32_t value;
  if (read_kb(SETTINGS "max_schedule_delay", &value) && value > 0) balloon.max_schedule_delay = value;
  if (read_kb(SETTINGS "max_retry_count", &value)) balloon.max_retry_count = value;
  if (read_kb(SETTINGS "schedule_delay", &value) && value > 0) balloon.schedule_delay = value;
}

/* A target equal to static-max at the first look asks for nothing: the program takes pages as it needs them. */
static void first_target(uint32_t target_kb) {
  if (!read_kb("memory/static-max", &static_max_kb) && !read_kb("memory/memory_static_max", &static_max_kb))
    static_max_kb = target_kb;
  first_kb = target_kb;
  has_looked = 1;
  xen_balloon_reset(&balloon, (uint32_t)xen_pages_current());
  is_active = target_kb < static_max_kb;
}

/* mem-max may have raised it. */
static void look_at_static_max(uint32_t target_kb) {
  if (target_kb > static_max_kb) read_kb("memory/static-max", &static_max_kb);
}

/* Whether a step is due. */
static _Bool read_target(void) {
  uint32_t target_kb;
  target_changed = 0;
  if (!read_kb("memory/target", &target_kb)) return 0;
  if (!has_looked) first_target(target_kb);
  else if (target_kb != first_kb) is_active = 1;
  if (!is_active) return 0;
  look_at_static_max(target_kb);
  read_settings();
  uint32_t pages = xen_balloon_pages(target_kb, static_max_kb, 0);
  xen_pages_set_limit(pages);
  return xen_balloon_aim(&balloon, pages);
}

/* ---- statistics ---- */

static uint32_t current_kb(void) { return balloon.current_pages * KIB_PER_PAGE; }
static uint32_t low_kb(void) { return static_max_kb > current_kb() ? static_max_kb - current_kb() : 0; }
static uint32_t high_kb(void) { return 0; }
static uint32_t target_kb(void) { return balloon.target_pages * KIB_PER_PAGE; }
static uint32_t schedule_delay(void) { return balloon.schedule_delay; }
static uint32_t max_schedule_delay(void) { return balloon.max_schedule_delay; }
static uint32_t retry_count(void) { return balloon.retry_count; }
static uint32_t max_retry_count(void) { return balloon.max_retry_count; }

#define STATISTIC_COUNT 8
static const struct {
  const char *path;
  uint32_t (*value)(void);
} statistics[STATISTIC_COUNT] = {
    {STATISTICS "info/current_kb", current_kb},
    {STATISTICS "info/low_kb", low_kb},
    {STATISTICS "info/high_kb", high_kb},
    {STATISTICS "target_kb", target_kb},
    {STATISTICS "schedule_delay", schedule_delay},
    {STATISTICS "max_schedule_delay", max_schedule_delay},
    {STATISTICS "retry_count", retry_count},
    {STATISTICS "max_retry_count", max_retry_count},
};

/* Writes what has changed since the last time. */
static void write_statistics(void) {
  static uint32_t written[STATISTIC_COUNT];
  static _Bool is_written[STATISTIC_COUNT];
  for (unsigned int i = 0; i < STATISTIC_COUNT; i++) {
    uint32_t value = statistics[i].value();
    if (is_written[i] && written[i] == value) continue;
    is_written[i] = xenstore_write_number(XENSTORE_NO_TX, statistics[i].path, value) == 0;
    written[i] = value;
  }
}

/* ---- running ---- */

static uint32_t distance(uint32_t pages) {
  return pages > balloon.target_pages ? pages - balloon.target_pages : balloon.target_pages - pages;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* One batch towards the target; returns how long to sleep. What the program gave back itself counts too. */
static uint32_t step(void) {
  uint32_t current = (uint32_t)xen_pages_current(), batch = least(distance(current), BATCH_PAGES);
  if (current > balloon.target_pages) xen_pages_drop(batch);
  else if (batch > 0) xen_pages_keep(batch);
  current = (uint32_t)xen_pages_current();
  uint32_t before = distance(balloon.current_pages), after = distance(current);
  return xen_balloon_settle(&balloon, current, before > after ? before - after : 0);
}

static void run(_Bool is_due) {
  while (is_due || target_changed) {
    if (target_changed) is_due |= read_target();
    if (!is_active) return;
    if (!is_due) continue;
    uint32_t sleep = step();
    is_due = sleep == XEN_BALLOON_AT_ONCE;
    next_step = is_due || sleep == XEN_BALLOON_UNTIL_TARGET ? 0 : xen_time_ns() + sleep * SECOND_NS;
    /* Takes in what the store has to say; on_target is called from it. */
    xenstore_watch_dispatch();
  }
  if (is_active) write_statistics();
}

static void tick(void) {
  if (is_running) return;
  is_running = 1;
  _Bool is_due = xen_pages_freed || (next_step != 0 && xen_time_ns() >= next_step);
  xen_pages_freed = 0;
  xen_tick_deadline = 0;
  if (!is_watching) is_watching = xenstore_watch("memory/target", on_target, NULL) >= 0;
  else run(is_active && is_due);
  xen_tick_deadline = target_changed || xen_pages_freed ? 1 : next_step;
  is_running = 0;
}

static void on_store(evtchn_port_t port, void *context) {
  (void)port, (void)context;
  xen_tick_deadline = 1;
}

void xen_balloon_start(void) {
  if (xen_start_info->store_mfn == 0 || xen_start_info->store_evtchn == 0) return;
  xen_tick = tick;
  xen_event_on(xen_start_info->store_evtchn, on_store, NULL);
}

void xen_balloon_end(void) { xen_tick = NULL; }
