/* SPDX-License-Identifier: Apache-2.0 */
/* The table of <xenolith/balloon.h>: nothing but arithmetic. */
#include <xenolith/balloon.h>

void xen_balloon_reset(struct xen_balloon *balloon, uint32_t pages) {
  *balloon = (struct xen_balloon){
      .current_pages = pages, .target_pages = pages, .schedule_delay = 1, .max_schedule_delay = 32, .retry_count = 1};
}

_Bool xen_balloon_aim(struct xen_balloon *balloon, uint32_t pages) {
  _Bool is_new = pages != balloon->target_pages;
  balloon->target_pages = pages;
  return is_new;
}

static uint32_t begin_again(struct xen_balloon *balloon, uint32_t state, uint32_t sleep) {
  balloon->schedule_delay = 1;
  balloon->retry_count = 1;
  balloon->state = state;
  return sleep;
}

uint32_t xen_balloon_settle(struct xen_balloon *balloon, uint32_t current, uint32_t changed) {
  balloon->current_pages = current;
  if (current == balloon->target_pages) return begin_again(balloon, XEN_BALLOON_DONE, XEN_BALLOON_UNTIL_TARGET);
  if (changed > 0) return begin_again(balloon, XEN_BALLOON_DONE, XEN_BALLOON_AT_ONCE);
  if (balloon->max_retry_count != 0 && balloon->retry_count >= balloon->max_retry_count)
    return begin_again(balloon, XEN_BALLOON_ECANCELED, XEN_BALLOON_UNTIL_TARGET);
  if (balloon->retry_count < UINT32_MAX) balloon->retry_count++;
  uint64_t delay = (uint64_t)balloon->schedule_delay * 2;
  balloon->schedule_delay = delay < balloon->max_schedule_delay ? (uint32_t)delay : balloon->max_schedule_delay;
  balloon->state = XEN_BALLOON_EAGAIN;
  return balloon->schedule_delay;
}

uint32_t xen_balloon_pages(uint32_t target_kb, uint32_t static_max_kb, uint32_t target_diff) {
  uint32_t kb = target_kb < static_max_kb ? target_kb : static_max_kb;
  return kb / 4 > target_diff ? kb / 4 - target_diff : 0;
}
