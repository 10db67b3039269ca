/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The xenstore client: one request at a time, with upcalls off, so that nobody's handler gets between its pieces. Events of
 * watches that come before the answer are put aside and delivered after it.
 */
#include "xenstore-client.h"
#include "xenstore-ring.h"
#include <xenolith/hvm/hvm_op.h>

#define QUEUED_EVENTS_MAX 64
/* One is the balloon's. */
#define WATCH_COUNT (XENSTORE_WATCHES_MAX + 1)

static struct {
  struct xenstore_domain_interface *page;
  evtchn_port_t port;
  /* 0: not connected yet; 1: connected; negative: why not. */
  int state;
  uint32_t request;
  /* An answer to a request of xenstore_post said no. */
  _Bool post_failed;
  struct xenstore_reader reader;
} store;

static struct watch {
  /* NULL: free. */
  const char *path;
  xenstore_watch_handler handler;
  void *context;
  unsigned int count;
  /* Events were dropped: one for the path itself stands for all of them. */
  _Bool overflow;
} watches[WATCH_COUNT];

struct event {
  struct event *next;
  uint32_t watch;
  uint32_t bytes;
  char path[];
};

static struct event *event_first, **event_end = &event_first;
static unsigned int event_count;
static _Bool delivering;

static int errno_of(const char *name) {
  static const struct {
    const char *name;
    int number;
  } errors[] = {{"EINVAL", XEN_EINVAL}, {"EACCES", XEN_EACCES}, {"EEXIST", XEN_EEXIST}, {"EISDIR", XEN_EISDIR},
                {"ENOENT", XEN_ENOENT}, {"ENOMEM", XEN_ENOMEM}, {"ENOSPC", XEN_ENOSPC}, {"EIO", XEN_EIO},
                {"ENOTEMPTY", XEN_ENOTEMPTY}, {"ENOSYS", XEN_ENOSYS}, {"EROFS", XEN_EROFS}, {"EBUSY", XEN_EBUSY},
                {"EAGAIN", XEN_EAGAIN}, {"EISCONN", XEN_EISCONN}, {"E2BIG", XEN_E2BIG}, {"EPERM", XEN_EPERM}};
  for (size_t i = 0; i < array_size(errors); i++)
    if (text_equals(name, errors[i].name)) return errors[i].number;
  return XEN_EINVAL;
}

/* ---- watch events ---- */

static void queue_event(const char *payload, uint32_t length) {
  uint32_t path_bytes = (uint32_t)text_length(payload) + 1, number;
  if (path_bytes >= length || !parse_number(payload + path_bytes, &number) || number >= WATCH_COUNT) return;
  struct watch *watch = &watches[number];
  if (watch->path == NULL) return;
  watch->count++;
  if (watch->handler == NULL || watch->overflow) return;
  struct event *event = event_count < QUEUED_EVENTS_MAX ? xen_block_alloc(sizeof *event + path_bytes) : NULL;
  if (event == NULL) {
    watch->overflow = 1;
    return;
  }
  event->watch = number;
  event->bytes = path_bytes;
  __builtin_memcpy(event->path, payload, path_bytes);
  *event_end = event;
  event_end = &event->next;
  event_count++;
}

static struct event *next_event(void) {
  struct event *event = event_first;
  if (event == NULL) return NULL;
  event_first = event->next;
  if (event_first == NULL) event_end = &event_first;
  event_count--;
  return event;
}

static void call_handler(struct watch *watch, const char *path) {
  watch->count = 0;
  watch->handler(path, watch->context);
}

static void deliver(void) {
  struct event *event;
  if (delivering) return;
  delivering = 1;
  while ((event = next_event()) != NULL) {
    if (event->watch < WATCH_COUNT) call_handler(&watches[event->watch], event->path);
    xen_block_free(event, sizeof *event + event->bytes);
  }
  for (struct watch *watch = watches; watch < watches + WATCH_COUNT; watch++)
    if (watch->overflow) {
      watch->overflow = 0;
      call_handler(watch, watch->path);
    }
  delivering = 0;
  if (event_first != NULL) deliver();
}

/* ---- messages ---- */

int xenstore_broken(void) { return store.state = -XEN_EIO; }

/*
 * Takes in what the ring holds, up to the answer to request `wanted` (0: none). 1: it is in the reader. Other answers are to
 * what was posted.
 */
static int receive(uint32_t wanted) {
  int status;
  store.reader.was_full = 0;
  while ((status = xenstore_reader_fill(&store.reader, store.page)) == 1) {
    const struct xsd_sockmsg *head = &store.reader.head;
    store.reader.got = 0;
    if (head->type == XS_WATCH_EVENT) queue_event(store.reader.payload, head->len);
    else if (wanted != 0 && head->req_id == wanted) break;
    else if (head->type == XS_ERROR) store.post_failed = 1;
  }
  if (store.reader.was_full) xen_event_send(store.port);
  return status < 0 ? xenstore_broken() : status;
}

static void on_event(evtchn_port_t port, void *context) {
  (void)port, (void)context;
  if (store.state != 1) return;
  _Bool on = xen_upcalls_off();
  receive(0);
  xen_upcalls_restore(on);
  deliver();
  xen_tick_if_due(xen_time_last());
}

void xenstore_watch_dispatch(void) { on_event(store.port, NULL); }

static int send_bytes(const void *bytes, size_t length) {
  const char *from = bytes;
  while (length > 0) {
    int count = xenstore_ring_put(store.page, from, (uint32_t)length);
    if (count < 0) return xenstore_broken();
    from += count;
    length -= (size_t)count;
    if (length == 0) break;
    xen_event_send(store.port);
    if (receive(0) < 0) return store.state;
    if (count == 0 && xen_event_wait(store.port, 0) < 0) return xenstore_broken();
  }
  return 0;
}

/* Puts a request into the ring, under the number `store.request`. 0 or a negative errno. */
static int send_request(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count) {
  struct xsd_sockmsg head = {.type = type, .tx_id = tx};
  for (unsigned int i = 0; i < count; i++) head.len += (uint32_t)pieces[i].length;
  if (head.len > XENSTORE_PAYLOAD_MAX) return -XEN_E2BIG;
  if (++store.request == 0) store.request = 1;
  head.req_id = store.request;
  int status = send_bytes(&head, sizeof head);
  for (unsigned int i = 0; i < count && status == 0; i++) status = send_bytes(pieces[i].bytes, pieces[i].length);
  return status;
}

/* Sends a request and waits for its answer, which is in the reader then. 0 or a negative errno. */
static int exchange(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count) {
  int status = send_request(type, tx, pieces, count);
  if (status < 0) return status;
  xen_event_send(store.port);
  while ((status = receive(store.request)) == 0)
    if (xen_event_wait(store.port, 0) < 0) return xenstore_broken();
  if (status < 0) return status;
  if (store.reader.head.type == XS_ERROR) return -errno_of(store.reader.payload);
  return store.reader.head.type == type ? 0 : xenstore_broken();
}

int xenstore_ask(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count, char *to, size_t size) {
  int status = xenstore_init();
  if (status < 0) return status;
  _Bool on = xen_upcalls_off();
  status = exchange(type, tx, pieces, count);
  if (status == 0) {
    status = (int)store.reader.head.len;
    size_t copied = (size_t)status < size ? (size_t)status : size - 1;
    if (size > 0) {
      __builtin_memcpy(to, store.reader.payload, copied);
      to[copied] = 0;
    }
  }
  /* What came behind the answer: its event may be taken already. */
  if (store.state == 1) receive(0);
  xen_upcalls_restore(on);
  if (on) {
    deliver();
    xen_tick_if_due(xen_time_last());
  }
  return status;
}

int xenstore_post(uint32_t type, const struct piece *pieces, unsigned int count) {
  int status = xenstore_init();
  if (status < 0) return status;
  _Bool on = xen_upcalls_off();
  status = send_request(type, XENSTORE_NO_TX, pieces, count);
  xen_upcalls_restore(on);
  return status;
}

_Bool xenstore_posted(void) {
  _Bool failed = store.post_failed;
  store.post_failed = 0;
  if (store.state == 1) xen_event_send(store.port);
  return !failed;
}

int xenstore_command(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count) {
  int status = xenstore_ask(type, tx, pieces, count, NULL, 0);
  return status < 0 ? status : 0;
}

/* ---- connection ---- */

static uint64_t parameter(uint32_t index) {
  struct xen_hvm_param param = {.domid = DOMID_SELF, .index = index};
  return HYPERVISOR_hvm_op(HVMOP_get_param, &param) == 0 ? param.value : 0;
}

int xenstore_init(void) {
  if (store.state != 0) return store.state < 0 ? store.state : 0;
  xen_pfn_t gfn = xen_start_info->store_mfn;
  evtchn_port_t port = xen_start_info->store_evtchn;
  if (gfn == 0) gfn = (xen_pfn_t)parameter(HVM_PARAM_STORE_PFN);
  if (port == 0) port = (evtchn_port_t)parameter(HVM_PARAM_STORE_EVTCHN);
  if (gfn == 0 || port == 0) return store.state = -XEN_ENODEV;
  store.page = page_at(gfn);
  store.port = port;
  /* Answers to somebody who ran in this domain before us. */
  store.page->rsp_cons = store.page->rsp_prod;
  store.state = 1;
  xen_tick_deadline = 1;
  int status = xen_event_on(port, on_event, NULL);
  return status < 0 ? store.state = status : 0;
}

void xenstore_let_go(void) {
  evtchn_port_t port = store.port != 0 ? store.port : (evtchn_port_t)xen_start_info->store_evtchn;
  if (port != 0) xen_event_on(port, NULL, NULL);
  if (store.state > 0) store.state = 0;
}

evtchn_port_t xenstore_port(void) { return store.port; }

/* ---- watches ---- */

static int watch_command(uint32_t type, uint32_t number) {
  char token[NUMBER_BYTES];
  xen_snprintf(token, sizeof token, "%u", (unsigned int)number);
  struct piece pieces[] = {xenstore_text(watches[number].path), xenstore_text(token)};
  return xenstore_command(type, XENSTORE_NO_TX, pieces, 2);
}

static _Bool is_watch(int number) {
  return number >= 0 && number < WATCH_COUNT && watches[number].path != NULL;
}

int xenstore_watch(const char *path, xenstore_watch_handler handler, void *context) {
  uint32_t number = 0;
  while (number < WATCH_COUNT && watches[number].path != NULL) number++;
  if (number == WATCH_COUNT) return -XEN_ENOSPC;
  watches[number] = (struct watch){.path = path, .handler = handler, .context = context};
  int status = watch_command(XS_WATCH, number);
  if (status == 0) return (int)number;
  watches[number].path = NULL;
  return status;
}

int xenstore_unwatch(int watch) {
  if (!is_watch(watch)) return -XEN_EINVAL;
  int status = watch_command(XS_UNWATCH, (uint32_t)watch);
  for (struct event *event = event_first; event != NULL; event = event->next)
    if (event->watch == (uint32_t)watch) event->watch = WATCH_COUNT;
  watches[watch] = (struct watch){.path = NULL};
  return status;
}

unsigned int xenstore_watch_poll(int watch) {
  if (!is_watch(watch)) return 0;
  on_event(store.port, NULL);
  unsigned int count = watches[watch].count;
  watches[watch].count = 0;
  return count;
}

unsigned int xenstore_watch_wait(int watch, uint64_t deadline_ns) {
  unsigned int count;
  while ((count = xenstore_watch_poll(watch)) == 0) {
    if (!is_watch(watch) || store.state != 1 || (deadline_ns != 0 && xen_time_ns() >= deadline_ns)) return 0;
    if (xen_event_wait(store.port, deadline_ns) < 0) return 0;
  }
  return count;
}
