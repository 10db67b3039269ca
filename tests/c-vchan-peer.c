/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of channels between two guests. The first, plain, channel tells the client where the next one is.
 *
 *   server CLIENT MODE COUNT   MODE: 0 plain, 1 revokable; prints where the first channel is; then COUNT channels that are
 *                              revoked (or closed) at any moment of a stream; 0: one that lasts until somebody dies
 *   client SERVER REF PORT     prints what came of each channel
 */
#include "c-check.h"
#include <xenolith/vchan.h>

#define WORDS 1000

/* Where the next channel is; ring_ref 0: there is no more. */
struct place {
  uint32_t ring_ref;
  uint32_t port;
  uint32_t epoch;
};

static struct vchan first, channel;
static uint32_t words[WORDS];
static uint32_t state = 2463534242u;

static uint32_t below(uint32_t limit) {
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  return state % limit;
}

static _Bool receive(struct vchan *from, void *to, size_t size) {
  char *bytes = to;
  for (int count; size > 0; bytes += count, size -= (size_t)count)
    if ((count = vchan_read(from, bytes, size)) <= 0) return 0;
  return 1;
}

static void tell(const struct vchan *next) {
  struct place place = {next->ring_ref, next->port, next->epoch};
  vchan_send(&first, &place, sizeof place);
}

/* Sends 1, 2, 3, ... `limit`, or for ever; returns when that is done or the other end is gone. */
static uint32_t stream(uint32_t limit) {
  uint32_t next = 1;
  while (limit == 0 || next <= limit) {
    uint32_t count = below(WORDS) + 1;
    if (limit != 0 && count > limit - next + 1) count = limit - next + 1;
    for (uint32_t i = 0; i < count; i++) words[i] = next + i;
    if (vchan_write(&channel, words, count * sizeof *words) != (int)(count * sizeof *words)) break;
    next += count;
  }
  return next - 1;
}

static void serve(const char *text) {
  domid_t client = (domid_t)next_number(&text);
  uint32_t mode = next_number(&text), count = next_number(&text);
  int status = vchan_server_open(&first, client, 1024, 1024, 0);
  xen_printk("first %d %u %u\n", status, (unsigned int)first.ring_ref, (unsigned int)first.port);
  for (uint32_t i = 0; i < count || count == 0; i++) {
    size_t size = (size_t)1 << (10 + below(11));
    status = vchan_server_open(&channel, client, 1024, size, mode ? VCHAN_REVOKABLE : 0);
    if (status < 0) break;
    tell(&channel);
    uint32_t sent = stream(count == 0 ? 0 : below(200000) + 1);
    if (mode && count != 0) status = vchan_revoke(&channel);
    else vchan_flush(&channel, 0);
    vchan_close(&channel);
    if (status < 0 || count == 0) break;
    uint32_t got;
    if (!receive(&first, &got, sizeof got)) break;
    if (got > sent) xen_printk("FAILED %u of %u words\n", (unsigned int)got, (unsigned int)sent);
    if (!mode && got != sent) xen_printk("FAILED %u of %u words\n", (unsigned int)got, (unsigned int)sent);
  }
  struct place end = {0};
  vchan_send(&first, &end, sizeof end);
  xen_printk("served %d\n", status);
  vchan_flush(&first, 0);
  vchan_close(&first);
}

/* Reads 1, 2, 3, ... until the end of the channel; returns how many. */
static uint32_t consume(uint32_t *wrong) {
  uint32_t next = 1, partial = 0;
  int count;
  _Bool said = 0;
  while ((count = vchan_read(&channel, (char *)words + partial, sizeof words - partial)) > 0) {
    uint32_t bytes = partial + (uint32_t)count, whole = bytes / sizeof *words;
    for (uint32_t i = 0; i < whole; i++) *wrong += words[i] != next + i;
    next += whole;
    partial = bytes % sizeof *words;
    for (uint32_t i = 0; i < partial; i++) ((char *)words)[i] = ((char *)words)[whole * sizeof *words + i];
    if (!said) xen_printk("flowing\n");
    said = 1;
  }
  if (count != -ENOTCONN) xen_printk("FAILED ended with %d\n", count);
  return next - 1;
}

static void use(const char *text) {
  domid_t server = (domid_t)next_number(&text);
  uint32_t ref = next_number(&text), port = next_number(&text), wrong = 0, channels = 0, total = 0;
  struct place place;
  if (vchan_client_open(&first, server, ref, port, 0, 0) < 0) xen_shutdown(SHUTDOWN_crash);
  while (receive(&first, &place, sizeof place) && place.ring_ref != 0) {
    uint32_t got = 0;
    int status = vchan_client_open(&channel, server, place.ring_ref, place.port, place.epoch,
                                   below(2) && place.epoch ? VCHAN_LAY_OVER : 0);
    if (status == 0) got = consume(&wrong);
    else if (place.epoch == 0) xen_printk("FAILED no channel %d\n", status);
    vchan_close(&channel);
    vchan_write(&first, &got, sizeof got);
    channels++;
    total += got;
  }
  xen_printk("used %u channels, %u words, %u wrong\n", (unsigned int)channels, (unsigned int)total,
             (unsigned int)wrong);
  vchan_close(&first);
}

void xen_main(const struct start_info *start) {
  const char *text = (const char *)start->cmd_line;
  state += own_domid() * 7919u;
  if (*text == 's') serve(text + 6);
  else use(text + 6);
}
