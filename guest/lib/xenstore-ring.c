/* SPDX-License-Identifier: Apache-2.0 */
/* See xenstore-ring.h. Indices run freely and need not begin at 0; each is read once. */
#include "xenstore-ring.h"

#define MASK (XENSTORE_RING_SIZE - 1)
#define HEAD_BYTES ((uint32_t)sizeof(struct xsd_sockmsg))

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static uint32_t load(const volatile XENSTORE_RING_IDX *index) { return __atomic_load_n(index, __ATOMIC_ACQUIRE); }

static void store(volatile XENSTORE_RING_IDX *index, uint32_t value) {
  __atomic_store_n(index, value, __ATOMIC_SEQ_CST);
}

int xenstore_ring_put(struct xenstore_domain_interface *page, const char *bytes, uint32_t length) {
  uint32_t producer = load(&page->req_prod), in_use = producer - load(&page->req_cons), done = 0;
  if (in_use > XENSTORE_RING_SIZE) return -XEN_EIO;
  length = least(length, XENSTORE_RING_SIZE - in_use);
  while (done < length) {
    uint32_t at = (producer + done) & MASK, piece = least(length - done, XENSTORE_RING_SIZE - at);
    __builtin_memcpy(page->req + at, bytes + done, piece);
    done += piece;
  }
  if (length > 0) store(&page->req_prod, producer + length);
  return (int)length;
}

int xenstore_ring_get(struct xenstore_domain_interface *page, char *bytes, uint32_t length, _Bool *was_full) {
  uint32_t consumer = load(&page->rsp_cons), ready = load(&page->rsp_prod) - consumer, done = 0;
  if (ready > XENSTORE_RING_SIZE) return -XEN_EIO;
  length = least(length, ready);
  while (done < length) {
    uint32_t at = (consumer + done) & MASK, piece = least(length - done, XENSTORE_RING_SIZE - at);
    __builtin_memcpy(bytes + done, page->rsp + at, piece);
    done += piece;
  }
  if (length == 0) return 0;
  store(&page->rsp_cons, consumer + length);
  /* After the store: who filled the ring meanwhile has not seen it, or looks at it once more. */
  if (__atomic_load_n(&page->rsp_prod, __ATOMIC_SEQ_CST) - consumer >= XENSTORE_RING_SIZE) *was_full = 1;
  return (int)length;
}

int xenstore_reader_fill(struct xenstore_reader *reader, struct xenstore_domain_interface *page) {
  for (;;) {
    _Bool in_head = reader->got < HEAD_BYTES;
    uint32_t end = in_head ? HEAD_BYTES : HEAD_BYTES + reader->head.len;
    if (!in_head && reader->head.len > XENSTORE_PAYLOAD_MAX) return -XEN_EIO;
    char *to = in_head ? (char *)&reader->head + reader->got : reader->payload + reader->got - HEAD_BYTES;
    if (!in_head && reader->got == end) {
      reader->payload[reader->head.len] = 0;
      return 1;
    }
    int count = xenstore_ring_get(page, to, end - reader->got, &reader->was_full);
    if (count <= 0) return count;
    reader->got += (uint32_t)count;
  }
}
