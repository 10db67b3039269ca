/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The xenstore client: one request at a time, with upcalls off, so that nobody's handler gets between its pieces. Events of
 * watches that come before the answer are put aside and delivered after it.
 */
#include "xenstore-ring.h"
#include <xenolith/hvm/hvm_op.h>
#include <xenolith/xenstore.h>

#define QUEUED_EVENTS_MAX 64
#define NUMBER_BYTES 12
#define PERMISSION_BYTES 8

static struct {
  struct xenstore_domain_interface *page;
  evtchn_port_t port;
  /* 0: not connected yet; 1: connected; negative: why not. */
  int state;
  uint32_t request;
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
} watches[XENSTORE_WATCHES_MAX];

struct event {
  struct event *next;
  uint32_t watch;
  uint32_t bytes;
  char path[];
};

static struct event *event_first, **event_end = &event_first;
static unsigned int event_count;
static _Bool delivering;

/* A part of a request. */
struct piece {
  const void *bytes;
  size_t length;
};

static size_t length_of(const char *text) {
  size_t length = 0;
  while (text[length] != 0) length++;
  return length;
}

static _Bool is_equal(const char *a, const char *b) {
  while (*a != 0 && *a == *b) a++, b++;
  return *a == *b;
}

static struct piece text(const char *string) { return (struct piece){string, length_of(string) + 1}; }

/* A decimal number that is all of `digits`; false: it is none. */
static _Bool parse_number(const char *digits, uint32_t *value) {
  uint64_t number = 0;
  if (*digits == 0) return 0;
  for (; *digits >= '0' && *digits <= '9' && number <= UINT32_MAX; digits++) number = number * 10 + (uint64_t)(*digits - '0');
  *value = (uint32_t)number;
  return *digits == 0 && number <= UINT32_MAX;
}

static int errno_of(const char *name) {
  static const struct {
    const char *name;
    int number;
  } errors[] = {{"EINVAL", XEN_EINVAL}, {"EACCES", XEN_EACCES}, {"EEXIST", XEN_EEXIST}, {"EISDIR", XEN_EISDIR},
                {"ENOENT", XEN_ENOENT}, {"ENOMEM", XEN_ENOMEM}, {"ENOSPC", XEN_ENOSPC}, {"EIO", XEN_EIO},
                {"ENOTEMPTY", XEN_ENOTEMPTY}, {"ENOSYS", XEN_ENOSYS}, {"EROFS", XEN_EROFS}, {"EBUSY", XEN_EBUSY},
                {"EAGAIN", XEN_EAGAIN}, {"EISCONN", XEN_EISCONN}, {"E2BIG", XEN_E2BIG}, {"EPERM", XEN_EPERM}};
  for (size_t i = 0; i < array_size(errors); i++)
    if (is_equal(name, errors[i].name)) return errors[i].number;
  return XEN_EINVAL;
}

/* ---- watch events ---- */

static void queue_event(const char *payload, uint32_t length) {
  uint32_t path_bytes = (uint32_t)length_of(payload) + 1, number;
  if (path_bytes >= length || !parse_number(payload + path_bytes, &number) || number >= XENSTORE_WATCHES_MAX) return;
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
    if (event->watch < XENSTORE_WATCHES_MAX) call_handler(&watches[event->watch], event->path);
    xen_block_free(event, sizeof *event + event->bytes);
  }
  for (struct watch *watch = watches; watch < watches + XENSTORE_WATCHES_MAX; watch++)
    if (watch->overflow) {
      watch->overflow = 0;
      call_handler(watch, watch->path);
    }
  delivering = 0;
  if (event_first != NULL) deliver();
}

/* ---- messages ---- */

static int broken(void) { return store.state = -XEN_EIO; }

/* Takes in what the ring holds, up to the answer to request `wanted` (0: none). 1: it is in the reader. */
static int receive(uint32_t wanted) {
  uint32_t before = store.page->rsp_cons;
  int status;
  while ((status = xenstore_reader_fill(&store.reader, store.page)) == 1) {
    const struct xsd_sockmsg *head = &store.reader.head;
    store.reader.got = 0;
    if (head->type == XS_WATCH_EVENT) queue_event(store.reader.payload, head->len);
    else if (wanted != 0 && head->req_id == wanted) break;
  }
  if (store.page->rsp_cons != before) xen_event_send(store.port);
  return status < 0 ? broken() : status;
}

static void on_event(evtchn_port_t port, void *context) {
  (void)port, (void)context;
  if (store.state != 1) return;
  _Bool on = xen_upcalls_off();
  receive(0);
  xen_upcalls_restore(on);
  deliver();
}

static int send_bytes(const void *bytes, size_t length) {
  const char *from = bytes;
  while (length > 0) {
    int count = xenstore_ring_put(store.page, from, (uint32_t)length);
    if (count < 0) return broken();
    from += count;
    length -= (size_t)count;
    if (length == 0) break;
    xen_event_send(store.port);
    if (receive(0) < 0) return store.state;
    if (count == 0 && xen_event_wait(store.port, 0) < 0) return broken();
  }
  return 0;
}

/* Sends a request and waits for its answer, which is in the reader then. 0 or a negative errno. */
static int exchange(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count) {
  struct xsd_sockmsg head = {.type = type, .tx_id = tx};
  for (unsigned int i = 0; i < count; i++) head.len += (uint32_t)pieces[i].length;
  if (head.len > XENSTORE_PAYLOAD_MAX) return -XEN_E2BIG;
  if (++store.request == 0) store.request = 1;
  head.req_id = store.request;
  int status = send_bytes(&head, sizeof head);
  for (unsigned int i = 0; i < count && status == 0; i++) status = send_bytes(pieces[i].bytes, pieces[i].length);
  if (status < 0) return status;
  xen_event_send(store.port);
  while ((status = receive(head.req_id)) == 0)
    if (xen_event_wait(store.port, 0) < 0) return broken();
  if (status < 0) return status;
  if (store.reader.head.type == XS_ERROR) return -errno_of(store.reader.payload);
  return store.reader.head.type == type ? 0 : broken();
}

/* The same; stores as much of the answer as fits `to`, and a terminator. Returns the answer's length. */
static int ask(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count, char *to, size_t size) {
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
  if (on) deliver();
  return status;
}

/* A request with an answer that says no more than that it was done. */
static int command(uint32_t type, xenstore_tx_t tx, const struct piece *pieces, unsigned int count) {
  int status = ask(type, tx, pieces, count, NULL, 0);
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
  int status = xen_event_on(port, on_event, NULL);
  return status < 0 ? store.state = status : 0;
}

evtchn_port_t xenstore_port(void) { return store.port; }

/* ---- nodes ---- */

int xenstore_read(xenstore_tx_t tx, const char *path, char *value, size_t size) {
  struct piece pieces[] = {text(path)};
  return ask(XS_READ, tx, pieces, 1, value, size);
}

int xenstore_read_number(xenstore_tx_t tx, const char *path, uint32_t *value) {
  char digits[NUMBER_BYTES];
  int length = xenstore_read(tx, path, digits, sizeof digits);
  if (length < 0) return length;
  return length < NUMBER_BYTES && parse_number(digits, value) ? 0 : -XEN_EINVAL;
}

int xenstore_write(xenstore_tx_t tx, const char *path, const void *value, size_t length) {
  struct piece pieces[] = {text(path), {value, length}};
  return command(XS_WRITE, tx, pieces, 2);
}

int xenstore_write_string(xenstore_tx_t tx, const char *path, const char *value) {
  return xenstore_write(tx, path, value, length_of(value));
}

int xenstore_write_number(xenstore_tx_t tx, const char *path, uint32_t value) {
  char digits[NUMBER_BYTES];
  int length = xen_snprintf(digits, sizeof digits, "%u", (unsigned int)value);
  return xenstore_write(tx, path, digits, (size_t)length);
}

int xenstore_mkdir(xenstore_tx_t tx, const char *path) {
  struct piece pieces[] = {text(path)};
  return command(XS_MKDIR, tx, pieces, 1);
}

int xenstore_rm(xenstore_tx_t tx, const char *path) {
  struct piece pieces[] = {text(path)};
  return command(XS_RM, tx, pieces, 1);
}

/* A directory too big for one message, in parts; each begins with the generation of the list that it is of. */
static int directory_parts(xenstore_tx_t tx, const char *path, char *names, size_t size) {
  char part[XENSTORE_PAYLOAD_MAX + 1], generation[24] = "", offset[NUMBER_BYTES];
  size_t total = 0;
  for (;;) {
    xen_snprintf(offset, sizeof offset, "%u", (unsigned int)total);
    struct piece pieces[] = {text(path), text(offset)};
    int length = ask(XS_DIRECTORY_PART, tx, pieces, 2, part, sizeof part);
    if (length < 0) return length;
    size_t at = length_of(part) + 1, count;
    if (at > (size_t)length || at > sizeof generation) return broken();
    if (total > 0 && !is_equal(part, generation)) {
      total = 0;
      continue;
    }
    __builtin_memcpy(generation, part, at);
    count = (size_t)length - at;
    /* An empty name ends the list. */
    _Bool last = count == 0 || (part[length - 1] == 0 && (count == 1 || part[length - 2] == 0));
    if (last && count > 0) count--;
    for (size_t i = 0; i < count && total + i < size; i++) names[total + i] = part[at + i];
    total += count;
    if (last) return (int)total;
  }
}

int xenstore_directory(xenstore_tx_t tx, const char *path, char *names, size_t size) {
  struct piece pieces[] = {text(path)};
  int status = ask(XS_DIRECTORY, tx, pieces, 1, names, size);
  return status == -XEN_E2BIG ? directory_parts(tx, path, names, size) : status;
}

const char *xenstore_next_name(const char *names, size_t length, const char *name) {
  size_t at = name == NULL ? 0 : (size_t)(name - names) + length_of(name) + 1;
  return at < length ? names + at : NULL;
}

int xenstore_get_permissions(xenstore_tx_t tx, const char *path, struct xenstore_permission *list, uint32_t count_max) {
  char answer[XENSTORE_PAYLOAD_MAX + 1];
  struct piece pieces[] = {text(path)};
  int length = ask(XS_GET_PERMS, tx, pieces, 1, answer, sizeof answer), count = 0;
  if (length < 0) return length;
  for (const char *at = xenstore_next_name(answer, (size_t)length, NULL); at != NULL;
       at = xenstore_next_name(answer, (size_t)length, at), count++) {
    uint32_t domid;
    if (!parse_number(at + 1, &domid)) return -XEN_EINVAL;
    if ((uint32_t)count < count_max) list[count] = (struct xenstore_permission){(domid_t)domid, *at};
  }
  return count;
}

int xenstore_set_permissions(xenstore_tx_t tx, const char *path, const struct xenstore_permission *list,
                             uint32_t count) {
  char words[32 * PERMISSION_BYTES];
  size_t length = 0;
  if (count == 0 || count > 32) return -XEN_EINVAL;
  for (uint32_t i = 0; i < count; i++)
    length += (size_t)xen_snprintf(words + length, PERMISSION_BYTES, "%c%u", list[i].access,
                                   (unsigned int)list[i].domid) + 1;
  struct piece pieces[] = {text(path), {words, length}};
  return command(XS_SET_PERMS, tx, pieces, 2);
}

int xenstore_domain_path(domid_t domid, char *path, size_t size) {
  char digits[NUMBER_BYTES];
  xen_snprintf(digits, sizeof digits, "%u", (unsigned int)domid);
  struct piece pieces[] = {text(digits)};
  int length = ask(XS_GET_DOMAIN_PATH, XENSTORE_NO_TX, pieces, 1, path, size);
  /* This answer has a terminator of its own. */
  return length > 0 ? length - 1 : length;
}

int xenstore_domid(void) {
  uint32_t domid;
  int status = xenstore_read_number(XENSTORE_NO_TX, "domid", &domid);
  return status < 0 ? status : (int)domid;
}

/* ---- watches ---- */

static int watch_command(uint32_t type, uint32_t number) {
  char token[NUMBER_BYTES];
  xen_snprintf(token, sizeof token, "%u", (unsigned int)number);
  struct piece pieces[] = {text(watches[number].path), text(token)};
  return command(type, XENSTORE_NO_TX, pieces, 2);
}

static _Bool is_watch(int number) {
  return number >= 0 && number < XENSTORE_WATCHES_MAX && watches[number].path != NULL;
}

int xenstore_watch(const char *path, xenstore_watch_handler handler, void *context) {
  uint32_t number = 0;
  while (number < XENSTORE_WATCHES_MAX && watches[number].path != NULL) number++;
  if (number == XENSTORE_WATCHES_MAX) return -XEN_ENOSPC;
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
    if (event->watch == (uint32_t)watch) event->watch = XENSTORE_WATCHES_MAX;
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

/* ---- transactions ---- */

int xenstore_transaction_start(xenstore_tx_t *tx) {
  char digits[NUMBER_BYTES];
  struct piece pieces[] = {text("")};
  int length = ask(XS_TRANSACTION_START, XENSTORE_NO_TX, pieces, 1, digits, sizeof digits);
  if (length < 0) return length;
  return parse_number(digits, tx) && *tx != XENSTORE_NO_TX ? 0 : -XEN_EIO;
}

int xenstore_transaction_end(xenstore_tx_t tx, _Bool commit) {
  struct piece pieces[] = {text(commit ? "T" : "F")};
  return command(XS_TRANSACTION_END, tx, pieces, 1);
}

int xenstore_transact(int (*body)(xenstore_tx_t tx, void *context), void *context) {
  xenstore_tx_t tx;
  int status = -XEN_EAGAIN;
  for (unsigned int attempt = 0; attempt < XENSTORE_ATTEMPTS_MAX && status == -XEN_EAGAIN; attempt++) {
    if ((status = xenstore_transaction_start(&tx)) < 0) return status;
    status = body(tx, context);
    int ended = xenstore_transaction_end(tx, status >= 0);
    if (status >= 0 && ended < 0) status = ended;
  }
  return status;
}
