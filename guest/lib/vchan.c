/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing channels. See <xenolith/vchan.h> for the protocol. */
#include "internal.h"
#include "vchan-internal.h"
#include <xenolith/grants.h>

#define SMALL_ORDERS_END 12
#define GRANTS_MAX (2u << (VCHAN_ORDER_MAX - XEN_PAGE_SHIFT))

/* What a closed channel points at, so that nobody stumbles over it. */
static struct vchan_indices nothing;

static uint32_t pages_of_order(unsigned int order) {
  return order < SMALL_ORDERS_END ? 0 : 1u << (order - XEN_PAGE_SHIFT);
}

/* Smallest order from `least` on for `size` bytes. */
static unsigned int order_for(size_t size, unsigned int least) {
  while (1u << least < size) least++;
  return least;
}

static _Bool choose_orders(size_t left, size_t right, unsigned int *left_order, unsigned int *right_order) {
  if (left > 1u << VCHAN_ORDER_MAX || right > 1u << VCHAN_ORDER_MAX) return 0;
  if (left <= 1024 && right <= 2048) *left_order = 10, *right_order = 11;
  else if (left <= 2048 && right <= 1024) *left_order = 11, *right_order = 10;
  else if (left <= 2048) *left_order = 11, *right_order = order_for(right, SMALL_ORDERS_END);
  else if (right <= 2048) *left_order = order_for(left, SMALL_ORDERS_END), *right_order = 11;
  else *left_order = order_for(left, SMALL_ORDERS_END), *right_order = order_for(right, SMALL_ORDERS_END);
  return 1;
}

/* Where a ring of this order stands: in the control page, or at `pages`. */
static char *place(struct vchan_control *control, unsigned int order, void *pages) {
  return order < SMALL_ORDERS_END ? (char *)control + (1u << order) : pages;
}

static struct vchan_ring ring_of(struct vchan_indices *shared, char *data, unsigned int order, uint32_t index) {
  return (struct vchan_ring){.shared = shared, .data = data, .size = 1u << order, .index = index};
}

/* ---- the event that follows one's own death ---- */

/* A page of zeros that is granted to nobody: what counts is that the grant goes when the domain does. */
static void *beacon_page;

/*
 * The reference is above all others of the channel: when a domain dies its references are gone through from the lowest to
 * the highest, so that the pages have been taken back when the event is sent.
 */
static int light_beacon(struct vchan *channel, grant_ref_t least) {
  if (beacon_page == NULL) beacon_page = xen_pages_alloc(0);
  if (beacon_page == NULL) return -XEN_ENOMEM;
  int ref = xen_grant_take_ref_above(least);
  if (ref < 0) return ref;
  xen_grant_give((grant_ref_t)ref, DOMID_INVALID, gfn_of(beacon_page), GTF_readonly);
  channel->beacon = (uint32_t)ref;
  return 0;
}

static void put_out_beacon(struct vchan *channel) {
  if (channel->beacon == 0) return;
  grant_set_unmap_notify(channel->beacon, 0, 0, 0);
  grant_end(channel->beacon);
  channel->beacon = 0;
}

/* ---- server ---- */

static uint32_t new_epoch(void) {
  static uint32_t count;
  uint32_t epoch = (uint32_t)(xen_time_ns() >> 10) * 2654435761u + ++count;
  return epoch == 0 ? 1 : epoch;
}

/* Lays out the pages that gntalloc gave: control page, left ring, right ring, and in revokable mode the guard. */
static void lay_out(struct vchan *channel, unsigned int left_order, unsigned int right_order, char *pages,
                    const grant_ref_t *refs) {
  struct vchan_control *control = (struct vchan_control *)pages;
  uint32_t left_pages = pages_of_order(left_order), ring_pages = left_pages + pages_of_order(right_order);
  char *left = pages + XEN_PAGE_SIZE, *right = left + left_pages * XEN_PAGE_SIZE;
  channel->control = control;
  channel->ring_ref = refs[0];
  for (uint32_t i = 0; i < ring_pages; i++) control->grants[i] = refs[i + 1];
  control->left_order = (uint16_t)left_order;
  control->right_order = (uint16_t)right_order;
  channel->read = ring_of(&control->left, place(control, left_order, left), left_order, 0);
  channel->write = ring_of(&control->right, place(control, right_order, right), right_order, 0);
  if (!channel->revokable) return;
  uint32_t *guard = (uint32_t *)(pages + (ring_pages + 1) * XEN_PAGE_SIZE);
  control->grants[ring_pages] = *guard = channel->epoch = new_epoch();
  control->grants[ring_pages + 1] = refs[ring_pages + 1];
  channel->epoch_word = &control->grants[ring_pages];
}

static int share_pages(struct vchan *channel, unsigned int left_order, unsigned int right_order) {
  uint32_t count = 1 + pages_of_order(left_order) + pages_of_order(right_order) + channel->revokable;
  unsigned int flags = GNTALLOC_WRITABLE | (channel->revokable ? GNTALLOC_REVOKABLE : 0);
  grant_ref_t *refs = xen_block_alloc(count * sizeof *refs);
  void *pages;
  if (refs == NULL) return -XEN_ENOMEM;
  int status = gntalloc_alloc(channel->remote, flags, count, refs, &pages);
  if (status == 0) {
    channel->page_count = count;
    lay_out(channel, left_order, right_order, pages, refs);
  }
  xen_block_free(refs, count * sizeof *refs);
  return status;
}

/* The port has no other end yet; the event goes to the client that has bound it by then. */
static int watch_over_server(struct vchan *channel) {
  const unsigned int both = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT;
  if (!channel->revokable) return gntalloc_set_unmap_notify(&channel->control->srv_live, both, channel->port);
  int status = light_beacon(channel, channel->epoch_word[1]);
  return status < 0 ? status : grant_set_unmap_notify(channel->beacon, UNMAP_NOTIFY_SEND_EVENT, 0, channel->port);
}

static int open_server(struct vchan *channel, unsigned int left_order, unsigned int right_order) {
  int status = share_pages(channel, left_order, right_order);
  if (status == 0) status = watch_over_server(channel);
  if (status < 0) return status;
  struct vchan_control *control = channel->control;
  control->cli_notify = VCHAN_NOTIFY_WRITE;
  control->cli_live = 2;
  __atomic_store_n(&control->srv_live, 1, __ATOMIC_SEQ_CST);
  return 0;
}

int vchan_server_open(struct vchan *channel, domid_t client, size_t left_bytes, size_t right_bytes,
                      unsigned int flags) {
  unsigned int left_order, right_order;
  *channel = (struct vchan){.blocking = 1, .server = 1, .remote = client};
  channel->revokable = (flags & VCHAN_REVOKABLE) != 0;
  if (flags & ~VCHAN_REVOKABLE || !choose_orders(left_bytes, right_bytes, &left_order, &right_order))
    return -XEN_EINVAL;
  int port = xen_event_alloc_unbound(client);
  if (port < 0) return port;
  channel->port = (evtchn_port_t)port;
  /* Masked: who waits finds the pending bit, and no upcall takes it away. */
  xen_event_on(channel->port, NULL, NULL);
  int status = open_server(channel, left_order, right_order);
  if (status < 0) vchan_close(channel);
  return status;
}

int vchan_revoke(struct vchan *channel) {
  struct vchan_control *control = channel->control;
  if (!channel->server || !channel->revokable || control == NULL) return -XEN_EINVAL;
  __atomic_store_n(&control->srv_live, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n((uint32_t *)(uintptr_t)channel->epoch_word, 0, __ATOMIC_SEQ_CST);
  int status = gntalloc_revoke(control, channel->page_count);
  __atomic_store_n(&control->cli_live, 0, __ATOMIC_SEQ_CST);
  xen_event_send(channel->port);
  return status;
}

static void close_server(struct vchan *channel) {
  if (channel->control == NULL) return;
  __atomic_store_n(&channel->control->srv_live, 0, __ATOMIC_SEQ_CST);
  if (channel->revokable) vchan_revoke(channel);
  gntalloc_free(channel->control, channel->page_count);
}

/* ---- client ---- */

/* Maps `count` pages in the channel's mode. */
static int map_pages(struct vchan *channel, uint32_t count, const struct gntdev_ref *refs, unsigned int prot,
                     void **pages) {
  *pages = NULL;
  if (count == 0) return 0;
  if (!channel->revokable) return gntdev_map(count, refs, prot, pages);
  if (!channel->laid_over) return gntdev_map_revokable(count, refs, prot, GNTDEV_PROVIDED, pages);
  void *own = xen_pages_alloc_run(count);
  if (own == NULL) return -XEN_ENOMEM;
  *pages = own;
  int status = gntdev_map_revokable(count, refs, prot, GNTDEV_LAY_OVER, pages);
  if (status == 0) return 0;
  xen_pages_free_run(own, count);
  *pages = NULL;
  return status;
}

static void unmap_pages(struct vchan *channel, void *pages, uint32_t count) {
  if (pages == NULL) return;
  gntdev_unmap(pages, count);
  if (channel->laid_over) xen_pages_free_run(pages, count);
}

static int watch_over_client(struct vchan *channel) {
  const unsigned int both = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT;
  if (!channel->revokable) return gntdev_set_unmap_notify(&channel->control->cli_live, both, channel->port);
  int status = light_beacon(channel, 0);
  return status < 0 ? status : grant_set_unmap_notify(channel->beacon, UNMAP_NOTIFY_SEND_EVENT, 0, channel->port);
}

/* Every word is read once. */
static _Bool read_orders(const volatile struct vchan_control *control, unsigned int *left, unsigned int *right) {
  *left = control->left_order;
  *right = control->right_order;
  return *left >= VCHAN_ORDER_MIN && *left <= VCHAN_ORDER_MAX && *right >= VCHAN_ORDER_MIN &&
         *right <= VCHAN_ORDER_MAX && (*left != *right || *left >= SMALL_ORDERS_END);
}

static int map_rings(struct vchan *channel, uint32_t left_pages, uint32_t right_pages) {
  const volatile uint32_t *grants = channel->control->grants;
  struct gntdev_ref *refs = xen_block_alloc(GRANTS_MAX * sizeof *refs);
  if (refs == NULL) return -XEN_ENOMEM;
  for (uint32_t i = 0; i < left_pages + right_pages; i++) refs[i] = (struct gntdev_ref){channel->remote, grants[i]};
  int status = map_pages(channel, left_pages, refs, GNTDEV_READ | GNTDEV_WRITE, &channel->left_pages);
  if (status == 0) status = map_pages(channel, right_pages, refs + left_pages, GNTDEV_READ, &channel->right_pages);
  xen_block_free(refs, GRANTS_MAX * sizeof *refs);
  if (status < 0 || !channel->revokable) return status;
  channel->epoch_word = &channel->control->grants[left_pages + right_pages];
  struct gntdev_ref guard = {channel->remote, grants[left_pages + right_pages + 1]};
  status = map_pages(channel, 1, &guard, GNTDEV_READ, &channel->guard_page);
  channel->guard = channel->guard_page;
  return status;
}

static uint32_t left_page_count(const struct vchan *channel) {
  return channel->left_pages == NULL ? 0 : channel->write.size >> XEN_PAGE_SHIFT;
}

static uint32_t right_page_count(const struct vchan *channel) {
  return channel->right_pages == NULL ? 0 : channel->read.size >> XEN_PAGE_SHIFT;
}

static int attach(struct vchan *channel) {
  struct vchan_control *control = channel->control;
  unsigned int left, right;
  if (!read_orders(control, &left, &right)) return -XEN_EINVAL;
  uint32_t left_pages = pages_of_order(left), right_pages = pages_of_order(right);
  channel->write.size = 1u << left;
  channel->read.size = 1u << right;
  int status = map_rings(channel, left_pages, right_pages);
  if (status < 0) return status;
  channel->write = ring_of(&control->left, place(control, left, channel->left_pages), left, control->left.prod);
  channel->read = ring_of(&control->right, place(control, right, channel->right_pages), right, control->right.cons);
  if (!vchan_is_open(channel)) return -XEN_ENOTCONN;
  __atomic_store_n(&control->cli_live, 1, __ATOMIC_SEQ_CST);
  __atomic_store_n(&control->srv_notify, VCHAN_NOTIFY_WRITE, __ATOMIC_SEQ_CST);
  return xen_event_send(channel->port);
}

static int open_client(struct vchan *channel) {
  struct gntdev_ref ref = {channel->remote, channel->ring_ref};
  void *page;
  int status = map_pages(channel, 1, &ref, GNTDEV_READ | GNTDEV_WRITE, &page);
  if (status < 0) return status;
  channel->control = page;
  status = watch_over_client(channel);
  return status < 0 ? status : attach(channel);
}

int vchan_client_open(struct vchan *channel, domid_t server, uint32_t ring_ref, evtchn_port_t port, uint32_t epoch,
                      unsigned int flags) {
  *channel = (struct vchan){.blocking = 1, .remote = server, .ring_ref = ring_ref, .epoch = epoch};
  channel->revokable = epoch != 0;
  channel->laid_over = (flags & VCHAN_LAY_OVER) != 0;
  if (ring_ref == 0 || port == 0 || flags & ~VCHAN_LAY_OVER) return -XEN_EINVAL;
  int local = xen_event_bind_interdomain(server, port);
  if (local < 0) return local;
  channel->port = (evtchn_port_t)local;
  xen_event_on(channel->port, NULL, NULL);
  int status = open_client(channel);
  if (status < 0) vchan_close(channel);
  return status;
}

static void close_client(struct vchan *channel) {
  if (channel->control == NULL) return;
  unmap_pages(channel, channel->left_pages, left_page_count(channel));
  unmap_pages(channel, channel->right_pages, right_page_count(channel));
  unmap_pages(channel, channel->guard_page, 1);
  __atomic_store_n(&channel->control->cli_live, 0, __ATOMIC_SEQ_CST);
  unmap_pages(channel, channel->control, 1);
}

/* ---- both ---- */

void vchan_close(struct vchan *channel) {
  evtchn_port_t port = channel->port;
  if (channel->server) {
    xen_vchan_withdraw(channel);
    close_server(channel);
  } else close_client(channel);
  put_out_beacon(channel);
  if (port != 0) {
    xen_event_send(port);
    xen_event_close(port);
  }
  channel->port = 0;
  channel->error = -XEN_ENOTCONN;
  channel->control = NULL;
  channel->left_pages = channel->right_pages = channel->guard_page = NULL;
  channel->read = channel->write = (struct vchan_ring){.shared = &nothing};
}
