/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balloon bench's guests. As a reactor: `up`, `touch` and `down`, each timed. As a Xen-style guest: nothing but the
 * library's loop.
 */
#include <xenolith/balloon.h>
#include <xenolith/guest.h>

#define KEPT_AT 0x80000000u

#ifdef __wasi__
XEN_BALLOON_EXPORTS

/* Leaves zeros: what is kept is zero. */
static void touch_kept(uint32_t count) {
  for (uint32_t i = 0; i < count; i++) *(volatile uint32_t *)(uintptr_t)(KEPT_AT + i * XEN_PAGE_SIZE) = 0;
}

__attribute__((export_name("up"))) int64_t up(uint32_t count) {
  uint64_t start = xen_time_ns();
  uint32_t done = xen_pages_keep(count);
  return done == count ? (int64_t)(xen_time_ns() - start) : -1;
}

__attribute__((export_name("touch"))) int64_t touch(uint32_t count) {
  uint64_t start = xen_time_ns();
  touch_kept(count);
  return (int64_t)(xen_time_ns() - start);
}

__attribute__((export_name("down"))) int64_t down(uint32_t count) {
  uint64_t start = xen_time_ns();
  uint32_t done = xen_pages_drop(count);
  return done == count ? (int64_t)(xen_time_ns() - start) : -1;
}
#else
void xen_main(const struct start_info *start) {
  (void)start;
  xen_event_loop();
}
#endif
