/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring of the copy engine, and what a driver can put into it.
 *
 * The driver writes to xenstore, below data/copy-engine of its home: ring-ref, event-channel (a port that it has opened
 * for the control domain), and then state = "ready". It is told the pirq of the interrupt on its command line.
 */
#ifndef COPY_ENGINE_H
#define COPY_ENGINE_H

#include <xenolith/xen.h>

#define ENGINE_SLOTS 32
#define ENGINE_REFS_MAX 5

/* `refs[0 .. count)` become reachable; the response has their bus address. */
#define ENGINE_ATTACH 1
/* Those at bus address `detach` are forgotten. */
#define ENGINE_DETACH 2
/* Copies `count` times. */
#define ENGINE_COPY 3

/* ENGINE_ATTACH */
#define ENGINE_WRITABLE 1
#define ENGINE_REVOKABLE 2
/* ENGINE_COPY: the next request belongs to the same list; when this one fails it is not made (-ECANCELED). */
#define ENGINE_MORE 1

union engine_slot {
  struct {
    uint32_t id;
    uint16_t operation;
    uint16_t flags;
    uint32_t count;
    union {
      grant_ref_t refs[ENGINE_REFS_MAX];
      uint32_t detach;
      struct {
        uint32_t source;
        uint32_t dest;
        uint32_t length;
      } copy;
    };
  } request;
  struct {
    uint32_t id;
    uint16_t operation;
    /* 0 or a negative errno; -EFAULT also when a page was taken back before the copy was complete. */
    int16_t status;
    /* ENGINE_ATTACH: the bus address. ENGINE_COPY: how often it was made. */
    uint32_t value;
    uint32_t zero[5];
  } response;
};
_Static_assert(sizeof(union engine_slot) == 32, "one slot");

struct engine_ring {
  uint32_t req_prod;
  uint32_t req_event;
  uint32_t rsp_prod;
  uint32_t rsp_event;
  uint8_t pad[48];
  union engine_slot slots[ENGINE_SLOTS];
};

#endif
