/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balloon's driver: see <xenolith/balloon.h>. It is started by the first event of the store, so where nobody uses a
 * store it costs one hypercall. It runs at the end of event delivery and of xenstore calls, never inside itself.
 */
#include "xenstore-client.h"
#include <xenolith/balloon.h>

#define SECOND_NS 1000000000ull
/* Pages between two looks at the target: 128 MiB. */
#define BATCH_PAGES 32768u
#define KIB_PER_PAGE 4u
#define SETTINGS "memory/balloon/"
#define STATISTICS "data/balloon/"

static struct xen_balloon balloon;
/* What the store says, and the target at the first look. */
static uint32_t static_max_kb, told_kb, first_kb;
static _Bool is_told, settings_are_new;
static _Bool has_looked;
/* A target other than static-max has been given. */
static _Bool is_active;
static _Bool is_running;
/* Negative: there is none yet. */
static int watch = -1;
/* System time of the next try; 0: none is due. */
static uint64_t next_step;

const struct xen_balloon *xen_balloon(void) { return &balloon; }

/* ---- target ---- */

/* What may have changed in the store; its event says so, so that nothing else is read. */
#define TARGET 1u
#define STATIC_MAX 2u
#define SETTING 4u

static uint32_t changed;

static void on_change(const char *path, void *context) {
  (void)context;
  if (text_equals(path, "memory/target")) changed |= TARGET;
  else if (text_equals(path, "memory/static-max") || text_equals(path, "memory/memory_static_max")) changed |= STATIC_MAX;
  else if (text_equals(path, "memory")) changed |= TARGET | STATIC_MAX | SETTING;
  else changed |= SETTING;
  xen_tick_deadline = 1;
}

/* What is no number leaves `value` as it is. */
static _Bool read_kb(const char *path, uint32_t *value) {
  uint32_t number;
  if (xenstore_read_number(XENSTORE_NO_TX, path, &number) != 0) return 0;
  *value = number;
  return 1;
}

/* Usually there are none. */
static void read_settings(void) {
  uint32_t value;
  settings_are_new = 0;
  if (xenstore_directory(XENSTORE_NO_TX, "memory/balloon", NULL, 0) < 0) return;
  if (read_kb(SETTINGS "max_schedule_delay", &value) && value > 0) balloon.max_schedule_delay = value;
  if (read_kb(SETTINGS "max_retry_count", &value)) balloon.max_retry_count = value;
  if (read_kb(SETTINGS "schedule_delay", &value) && value > 0) balloon.schedule_delay = value;
}

static void read_static_max(void) {
  if (!read_kb("memory/static-max", &static_max_kb)) read_kb("memory/memory_static_max", &static_max_kb);
}

/* A target equal to static-max at the first look asks for nothing: the program takes pages as it needs them. */
static void first_look(void) {
  if (static_max_kb == 0) static_max_kb = told_kb;
  first_kb = told_kb;
  has_looked = 1;
  xen_balloon_reset(&balloon, (uint32_t)xen_pages_current());
  is_active = told_kb < static_max_kb;
}

/* Whether a step is due. */
static _Bool take_changes(void) {
  uint32_t news = changed;
  changed = 0;
  if ((news & TARGET) && read_kb("memory/target", &told_kb)) is_told = 1;
  if (news & STATIC_MAX) read_static_max();
  if (news & SETTING) settings_are_new = 1;
  if (!is_told) return 0;
  if (!has_looked) first_look();
  else if (told_kb != first_kb) is_active = 1;
  if (!is_active) return 0;
  if (settings_are_new) read_settings();
  uint32_t pages = xen_balloon_pages(told_kb, static_max_kb, 0);
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

static uint32_t written[STATISTIC_COUNT];
static _Bool is_written[STATISTIC_COUNT];

static _Bool write_statistic(unsigned int i) {
  char digits[NUMBER_BYTES];
  int length = xen_snprintf(digits, sizeof digits, "%u", (unsigned int)written[i]);
  struct piece pieces[] = {xenstore_text(statistics[i].path), {digits, (size_t)length}};
  return xenstore_post(XS_WRITE, pieces, 2) == 0;
}

/* Writes what has changed since the last time, and waits for no answer: everything again when there was a bad one. */
static void write_statistics(void) {
  unsigned int count = 0;
  for (unsigned int i = 0; i < STATISTIC_COUNT; i++) {
    uint32_t value = statistics[i].value();
    if (is_written[i] && written[i] == value) continue;
    written[i] = value;
    is_written[i] = write_statistic(i);
    count++;
  }
  if (count == 0 || xenstore_posted()) return;
  for (unsigned int i = 0; i < STATISTIC_COUNT; i++) is_written[i] = 0;
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
  while (is_due || changed) {
    if (changed) is_due |= take_changes();
    if (!is_active) return;
    if (!is_due) continue;
    uint32_t sleep = step();
    is_due = sleep == XEN_BALLOON_AT_ONCE;
    next_step = is_due || sleep == XEN_BALLOON_UNTIL_TARGET ? 0 : xen_time_ns() + sleep * SECOND_NS;
    /* Takes in what the store has to say; on_change is called from it. */
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
  if (watch < 0) watch = xenstore_watch("memory", on_change, NULL);
  else run(is_active && is_due);
  xen_tick_deadline = changed || xen_pages_freed ? 1 : next_step;
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

void xen_balloon_end(void) {
  xen_tick = NULL;
  is_active = 0;
  if (watch >= 0) xenstore_unwatch(watch);
  watch = -1;
  xenstore_let_go();
}
