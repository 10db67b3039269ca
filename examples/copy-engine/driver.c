/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver of the copy engine. It has three pieces gathered into one page; then it takes the page back while the engine
 * is writing to it, and shows that what is in it stays.
 *
 *   command line: pirq of the engine's interrupt
 */
#include "copy-engine.h"
#include <xenolith/grants.h>
#include <xenolith/xenstore.h>

#define PAGES 4

static struct engine_ring *ring;
static evtchn_port_t doorbell, interrupt;
static uint32_t produced, consumed;

static uint32_t number(const char *text) {
  uint32_t value = 0;
  while (*text >= '0' && *text <= '9') value = value * 10 + (uint32_t)(*text++ - '0');
  return value;
}

static uint32_t load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static void store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }

static void require(const char *what, int status) {
  if (status >= 0) return;
  xen_printk("%s: %d\n", what, status);
  xen_shutdown(SHUTDOWN_crash);
}

/* An empty request; it is sent by `ring_bell`. */
static union engine_slot *request(uint16_t operation, uint16_t flags, uint32_t count) {
  union engine_slot *slot = &ring->slots[produced % ENGINE_SLOTS];
  *slot = (union engine_slot){.request = {.id = produced, .operation = operation, .flags = flags, .count = count}};
  produced++;
  return slot;
}

static void ring_bell(void) {
  uint32_t before = load(&ring->req_prod);
  store(&ring->req_prod, produced);
  if (produced - load(&ring->req_event) < produced - before) xen_event_send(doorbell);
}

/* The next response, as soon as it is there. */
static union engine_slot response(void) {
  for (;;) {
    store(&ring->rsp_event, consumed + 1);
    if (load(&ring->rsp_prod) != consumed) return ring->slots[consumed++ % ENGINE_SLOTS];
    xen_event_wait(interrupt, 0);
  }
}

static uint32_t attach(const grant_ref_t *refs, uint32_t count, uint16_t flags) {
  union engine_slot *slot = request(ENGINE_ATTACH, flags, count);
  for (uint32_t i = 0; i < count; i++) slot->request.refs[i] = refs[i];
  ring_bell();
  union engine_slot answer = response();
  require("attach", answer.response.status);
  return answer.response.value;
}

static void detach(uint32_t address) {
  request(ENGINE_DETACH, 0, 0)->request.detach = address;
  ring_bell();
  require("detach", response().response.status);
}

static void copy(uint32_t source, uint32_t dest, uint32_t length, uint16_t flags, uint32_t times) {
  union engine_slot *slot = request(ENGINE_COPY, flags, times);
  slot->request.copy.source = source;
  slot->request.copy.dest = dest;
  slot->request.copy.length = length;
}

static void connect(uint32_t pirq) {
  grant_ref_t ref;
  void *page;
  struct evtchn_bind_pirq bind = {.pirq = pirq};
  require("ring", gntalloc_alloc(0, GNTALLOC_WRITABLE, 1, &ref, &page));
  ring = page;
  ring->req_event = ring->rsp_event = 1;
  require("interrupt", HYPERVISOR_event_channel_op(EVTCHNOP_bind_pirq, &bind));
  interrupt = bind.port;
  int port = xen_event_alloc_unbound(0);
  require("doorbell", port);
  doorbell = (evtchn_port_t)port;
  xenstore_write_number(XENSTORE_NO_TX, "data/copy-engine/ring-ref", ref);
  xenstore_write_number(XENSTORE_NO_TX, "data/copy-engine/event-channel", doorbell);
  require("xenstore", xenstore_write_string(XENSTORE_NO_TX, "data/copy-engine/state", "ready"));
}

static void gather(const char *pieces, uint32_t source, const char *target, uint32_t dest) {
  copy(source + 10, dest, 5, ENGINE_MORE, 1);
  /* Across the border of two pages. */
  copy(source + XEN_PAGE_SIZE - 3, dest + 5, 6, ENGINE_MORE, 1);
  copy(source + 3 * XEN_PAGE_SIZE, dest + 11, 100, 0, 1);
  ring_bell();
  for (int i = 0; i < 3; i++) require("copy", response().response.status);
  _Bool same = 1;
  for (int i = 0; i < 5; i++) same &= target[i] == pieces[10 + i];
  for (int i = 0; i < 6; i++) same &= target[5 + i] == pieces[XEN_PAGE_SIZE - 3 + i];
  for (int i = 0; i < 100; i++) same &= target[11 + i] == pieces[3 * XEN_PAGE_SIZE + i];
  xen_printk(same ? "gathered three pieces\n" : "the pieces are wrong\n");
}

static void take_back(uint32_t source, uint32_t *target, uint32_t dest) {
  for (uint32_t i = 0; i < XEN_PAGE_SIZE / sizeof *target; i++) target[i] = 0;
  copy(source, dest, XEN_PAGE_SIZE, 0, 60000);
  ring_bell();
  while (load(&target[0]) == 0) xen_sleep_until(xen_time_ns() + 100000);
  require("revoke", gntalloc_revoke(target, 1));
  for (uint32_t i = 0; i < XEN_PAGE_SIZE / sizeof *target; i++) store(&target[i], 0xfeedbeef);
  _Bool early = load(&ring->rsp_prod) == consumed;
  int status = response().response.status;
  _Bool same = 1;
  for (uint32_t i = 0; i < XEN_PAGE_SIZE / sizeof *target; i++) same &= load(&target[i]) == 0xfeedbeef;
  xen_printk("taken back %s; the engine ended with %d; the page is %s\n", early ? "in the middle of a copy" : "too late",
             status, same ? "untouched" : "changed");
}

void xen_main(const struct start_info *start) {
  grant_ref_t from[PAGES], to;
  void *pieces, *target;
  connect(number((const char *)start->cmd_line));
  require("source", gntalloc_alloc(0, 0, PAGES, from, &pieces));
  require("target", gntalloc_alloc(0, GNTALLOC_WRITABLE | GNTALLOC_REVOKABLE, 1, &to, &target));
  for (uint32_t i = 0; i < PAGES * XEN_PAGE_SIZE; i++) ((char *)pieces)[i] = (char)(i * 7 + i / 251 + 1);
  uint32_t source = attach(from, PAGES, 0);
  uint32_t dest = attach(&to, 1, ENGINE_WRITABLE | ENGINE_REVOKABLE);
  gather(pieces, source, target, dest);
  take_back(source, target, dest);
  detach(dest);
  detach(source);
  require("free", gntalloc_free(target, 1));
  require("free", gntalloc_free(pieces, PAGES));
  xen_printk("done\n");
}
