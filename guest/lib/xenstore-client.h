/* SPDX-License-Identifier: Apache-2.0 */
/* What the requests of the xenstore client are made of (xenstore-nodes.c), and who sends them (xenstore.c). */
#ifndef XENOLITH_XENSTORE_CLIENT_H
#define XENOLITH_XENSTORE_CLIENT_H

#include "internal.h"
#include <xenolith/io/xs_wire.h>
#include <xenolith/xenstore.h>

/* A number in decimal, and its terminator. */
#define NUMBER_BYTES 12

/* A part of a request. */
struct piece {
  const void *bytes;
  size_t length;
};

static inline size_t text_length(const char *text) {
  size_t length = 0;
  while (text[length] != 0) length++;
  return length;
}

static inline _Bool text_equals(const char *a, const char *b) {
  while (*a != 0 && *a == *b) a++, b++;
  return *a == *b;
}

static inline struct piece xenstore_text(const char *string) { return (struct piece){string, text_length(string) + 1}; }

/* A decimal number that is all of `digits`; false: it is none. */
static inline _Bool parse_number(const char *digits, uint32_t *value) {
  uint64_t number = 0;
  if (*digits == 0) return 0;
  for (; *digits >= '0' && *digits <= '9' && number <= UINT32_MAX; digits++) number = number * 10 + (uint64_t)(*digits - '0');
  *value = (uint32_t)number;
  return *digits == 0 && number <= UINT32_MAX;
}

/*
 * Sends a request and waits for its answer; stores as much of it as fits `to`, and a terminator. Returns the answer's
 * length, or a negative errno.
 */
int xenstore_ask(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count, char *to, size_t size);
/* A request with an answer that says no more than that it was done. */
int xenstore_command(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count);
/* Puts a request into the ring, whose answer nobody waits for. xenstore_posted() is to follow. 0 or a negative errno. */
int xenstore_post(uint32_t type, const struct piece *pieces, unsigned int count);
/* Sends what was posted on its way. False: an answer to something posted earlier, that came meanwhile, said no. */
_Bool xenstore_posted(void);
/* Nothing of the ring and its channel is touched any more, until the next request. */
void xenstore_let_go(void);
/* The other side does not keep to the protocol: nothing is asked any more. -EIO. */
int xenstore_broken(void);

#endif
