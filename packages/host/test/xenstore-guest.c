/* SPDX-License-Identifier: Apache-2.0 */
/* Guests of xenstore, good and bad; the command line says which. The bad ones never end by themselves. */
#include <xenolith/balloon.h>
#include <xenolith/guest.h>
#include <xenolith/xenstore.h>

static struct xenstore_domain_interface *ring;
static evtchn_port_t port;
static uint32_t seed = 1;

static uint32_t random_word(void) {
  seed ^= seed << 13;
  seed ^= seed >> 17;
  return seed ^= seed << 5;
}

/* Puts a message as it is, or as much of it as there is room for, whatever it says. */
static void put(const void *bytes, uint32_t length) {
  const char *from = bytes;
  for (uint32_t i = 0; i < length; i++) ring->req[(ring->req_prod + i) % XENSTORE_RING_SIZE] = from[i];
  __atomic_store_n(&ring->req_prod, ring->req_prod + length, __ATOMIC_SEQ_CST);
}

static void put_request(uint32_t type, const char *payload, uint32_t length, uint32_t said) {
  struct xsd_sockmsg head = {.type = type, .req_id = 1, .len = said};
  while (XENSTORE_RING_SIZE - (ring->req_prod - __atomic_load_n(&ring->req_cons, __ATOMIC_SEQ_CST)) < sizeof head + length) {
    if (__atomic_load_n(&ring->error, __ATOMIC_SEQ_CST) != 0) return;
    xen_event_send(port);
    xen_sleep_until(xen_time_ns() + 100000);
  }
  put(&head, sizeof head);
  put(payload, length);
  xen_event_send(port);
}

/* Asks for a new connection: what the daemon refuses once it has to refuse again. */
static void reconnect(void) {
  __atomic_store_n(&ring->connection, XENSTORE_RECONNECT, __ATOMIC_SEQ_CST);
  xen_event_send(port);
  while (__atomic_load_n(&ring->connection, __ATOMIC_SEQ_CST) != XENSTORE_CONNECTED) xen_sleep_until(xen_time_ns() + 100000);
}

static unsigned int events;
static void on_change(const char *path, void *context) {
  (void)context;
  events++;
  xen_printk("changed %s\n", path);
}

static void polite(void) {
  char text[64];
  uint32_t domid = 0;
  struct xenstore_permission list[4];
  xen_printk("name %d %s\n", xenstore_read(XENSTORE_NO_TX, "name", text, sizeof text), text);
  xenstore_read_number(XENSTORE_NO_TX, "domid", &domid);
  xen_printk("domid %u self %d\n", (unsigned int)domid, xenstore_domid());
  xen_printk("watch %d\n", xenstore_watch("data/topic", on_change, NULL) >= 0);
  xen_printk("write %d\n", xenstore_write_string(XENSTORE_NO_TX, "data/topic/a", "from C"));
  xen_printk("forbidden %d\n", xenstore_write_string(XENSTORE_NO_TX, "name", "mine"));
  xen_printk("absent %d\n", xenstore_read(XENSTORE_NO_TX, "nowhere", text, sizeof text));
  int count = xenstore_get_permissions(XENSTORE_NO_TX, "data", list, 4);
  xen_printk("owner %d %d %c\n", count, list[0].domid == domid, list[0].access);
  xenstore_tx_t tx;
  xen_printk("start %d\n", xenstore_transaction_start(&tx));
  xenstore_write_string(tx, "data/tx", "1");
  xen_printk("hidden %d\n", xenstore_read(XENSTORE_NO_TX, "data/tx", text, sizeof text));
  xen_printk("commit %d\n", xenstore_transaction_end(tx, 1));
  xen_printk("shown %d\n", xenstore_read(XENSTORE_NO_TX, "data/tx", text, sizeof text));
}

/* Waits until the toolstack says what to do, and answers it. */
static void obedient(void) {
  char text[64];
  int watch = xenstore_watch("control/shutdown", NULL, NULL);
  for (;;) {
    int length = xenstore_read(XENSTORE_NO_TX, "control/shutdown", text, sizeof text);
    if (length > 0) break;
    xenstore_watch_wait(watch, 0);
  }
  xen_printk("asked to %s\n", text);
  xenstore_write_string(XENSTORE_NO_TX, "control/shutdown", "");
}

static void busy(void) {
  uint32_t value = 0;
  for (uint32_t i = 1; i <= 200; i++) {
    xenstore_write_number(XENSTORE_NO_TX, "data/counter", i);
    xenstore_read_number(XENSTORE_NO_TX, "data/counter", &value);
    if (value != i) xen_printk("LOST %u\n", (unsigned int)i);
  }
  xen_printk("counted to %u\n", (unsigned int)value);
}

static void jump(void) {
  for (;;) {
    ring->req_prod = random_word();
    ring->rsp_cons = random_word();
    ring->req_cons = random_word();
    ring->rsp_prod = random_word();
    ring->connection = random_word() % 3;
    xen_event_send(port);
  }
}

static void lengths(void) {
  static const uint32_t wrong[] = {4097, 0x7fffffff, 0x80000000, 0xffffffff};
  for (uint32_t i = 0;; i++) {
    put_request(XS_READ, "name", 5, wrong[i % 4]);
    reconnect();
  }
}

static void garbage(void) {
  for (;;) {
    char bytes[64];
    for (unsigned int i = 0; i < sizeof bytes; i++) bytes[i] = (char)random_word();
    put_request(random_word(), bytes, sizeof bytes, sizeof bytes);
    if (__atomic_load_n(&ring->error, __ATOMIC_SEQ_CST) != 0) reconnect();
  }
}

/* Asks and never takes an answer. */
static void deaf(void) {
  for (;;) put_request(XS_DIRECTORY, "/", 2, 2);
}

static void knock(void) {
  for (;;) xen_event_send(port);
}

/* Gives the page and the channel back and goes on. */
static void vanish(void) {
  xen_pfn_t gfn = xen_start_info->store_mfn;
  struct xen_memory_reservation reservation = {.nr_extents = 1, .domid = DOMID_SELF};
  set_xen_guest_handle(reservation.extent_start, &gfn);
  put_request(XS_READ, "name", 5, 5);
  xen_printk("gave back %d\n", HYPERVISOR_memory_op(XENMEM_decrease_reservation, &reservation));
  xen_printk("closed %d\n", xen_event_close(port));
}

void xen_main(const struct start_info *start) {
  static const struct {
    const char *name;
    void (*run)(void);
    /* Uses the ring by itself. */
    _Bool is_raw;
  } modes[] = {{"polite", polite, 0},   {"obedient", obedient, 0}, {"busy", busy, 0},
               {"jump", jump, 1},       {"lengths", lengths, 1},   {"garbage", garbage, 1},
               {"deaf", deaf, 1},       {"knock", knock, 1},       {"vanish", vanish, 1}};
  ring = (struct xenstore_domain_interface *)(start->store_mfn << XEN_PAGE_SHIFT);
  port = start->store_evtchn;
  for (unsigned int i = 0; i < sizeof modes / sizeof *modes; i++) {
    const char *a = modes[i].name, *b = (const char *)start->cmd_line;
    while (*a != 0 && *a == *b) a++, b++;
    if (*a != *b) continue;
    if (modes[i].is_raw) xen_balloon_end();
    modes[i].run();
  }
}
