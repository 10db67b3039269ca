/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's side of a xenstore page, byte by byte and message by message. Nothing here waits or sends events. */
#ifndef XENOLITH_XENSTORE_RING_H
#define XENOLITH_XENSTORE_RING_H

#include "internal.h"
#include <xenolith/io/xs_wire.h>

/* Collects one message, however it is cut into pieces. */
struct xenstore_reader {
  struct xsd_sockmsg head;
  /* Bytes of head and payload that are here. */
  uint32_t got;
  /* The ring was full since this was cleared: the other side is to be told that it is not any more. */
  _Bool was_full;
  /* With room for a terminator, which is always there when the message is complete. */
  char payload[XENSTORE_PAYLOAD_MAX + 1];
};

/* Bytes that went into the ring, 0 when it is full; -EIO: indices that cannot be. */
int xenstore_ring_put(struct xenstore_domain_interface *page, const char *bytes, uint32_t length);
/* Bytes that came out of the ring; 0: it is empty. Sets `was_full` when the other side may wait for room. */
int xenstore_ring_get(struct xenstore_domain_interface *page, char *bytes, uint32_t length, _Bool *was_full);
/* Reads on. 1: a message is complete, and `got` = 0 starts the next one; 0: not yet; -EIO: protocol error. */
int xenstore_reader_fill(struct xenstore_reader *reader, struct xenstore_domain_interface *page);

#endif
