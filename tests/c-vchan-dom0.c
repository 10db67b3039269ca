/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of channels of the control domain: a stream of words that count up.
 *
 *   command line: read PATH | write WORDS | revoke WORDS
 */
#include "c-check.h"
#include <xenolith/vchan.h>

#define WORDS 1000

static const char *skip(const char *text, const char *word) {
  while (*word != 0 && *text == *word) text++, word++;
  return *word == 0 ? text : 0;
}

static uint32_t number(const char *text) {
  uint32_t value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
  return value;
}

static uint32_t words[WORDS];

/* Reads until the end; a part of a word at a piece's end stands at the beginning of the next. */
static void read_all(const char *path) {
  struct vchan channel;
  uint32_t next = 0, wrong = 0, kept = 0;
  int count, status = vchan_client_wait_init(&channel, 0, path, 0, 0);
  if (status < 0) {
    xen_printk("no channel: %d\n", status);
    return;
  }
  xen_printk("connected\n");
  while ((count = vchan_read(&channel, (char *)words + kept, sizeof words - kept)) > 0) {
    kept += (uint32_t)count;
    for (uint32_t i = 0; i < kept / 4; i++) wrong += words[i] != next++;
    __builtin_memmove(words, (char *)words + (kept & ~3u), kept & 3);
    kept &= 3;
  }
  xen_printk("read %u words, %u wrong, status %d\n", next, wrong, count);
  vchan_close(&channel);
}

static void write_all(uint32_t total, unsigned int flags) {
  struct vchan channel;
  int status = vchan_server_init(&channel, 0, "data/stream", 4096, 65536, flags);
  if (status < 0) {
    xen_printk("no channel: %d\n", status);
    return;
  }
  xen_printk("offered\n");
  for (uint32_t next = 0; next < total && status >= 0;) {
    uint32_t count = 0;
    while (count < WORDS && next < total) words[count++] = next++;
    status = vchan_write(&channel, words, count * 4);
  }
  if (flags != 0) status = vchan_revoke(&channel);
  else status = vchan_flush(&channel, 0);
  xen_printk("wrote, status %d\n", status);
  vchan_close(&channel);
}

void xen_main(const struct start_info *start) {
  const char *text = (const char *)start->cmd_line, *rest;
  if ((rest = skip(text, "read ")) != 0) read_all(rest);
  if ((rest = skip(text, "write ")) != 0) write_all(number(rest), 0);
  if ((rest = skip(text, "revoke ")) != 0) write_all(number(rest), VCHAN_REVOKABLE);
}
