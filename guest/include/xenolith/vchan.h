/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vchan: a stream of bytes, or of packets, each way between two domains, through memory that one of them (the server) shares
 * with the other (the client). Layout and negotiation are those of libxenvchan, whose programs can be the other end.
 *
 * Plain mode. The control page below is shared writable, and either holds a ring or lists the pages of the rings.
 * "left" runs from the client to the server, "right" from the server to the client; a ring has 2^order bytes: order 10
 * stands at byte 1024 of the control page, order 11 at 2048, orders 12 to 20 in pages of their own. Indices run freely. In the
 * xenstore, `<path>/ring-ref` and `<path>/event-channel` say where it is; only the client may read them.
 *
 * Revokable mode (VCHAN_REVOKABLE, chosen by the server). All pages are granted revokable, so the server, or the
 * hypervisor when the server dies, takes them back at any moment. Three things are added:
 *
 *   1. the word behind the last page in `grants` holds the channel's *epoch*, a number that is not 0;
 *   2. the word behind that holds the reference of the *guard*, one more page, whose first word is the epoch too;
 *   3. the node `<path>/revokable` holds the epoch in decimal. A client that does not know the node fails to map
 *      the pages (permission denied); a server without the node is in plain mode.
 *
 * The client maps the pages with replacements that read as zeros. Rules that make the end of the channel orderly:
 *
 *   R1. Nobody trusts an index twice: each side keeps its own two indices privately, and reads each of the other's once.
 *   R2. The server has the control page revoked *before* any page of a ring. Of the channel's references the control
 *       page has the lowest and the guard the highest: when a domain dies the hypervisor revokes from one end of its
 *       table to the other, so that one of the two goes before all rings, whichever end that is.
 *   R3. The client copies bytes out of the ring first and looks at both epochs afterwards. Both are right: control page
 *       and guard were still the server's, hence the rings were, hence the bytes are fresh. One is not (0): some bytes may
 *       be those of a replacement, so none is delivered, and the channel is closed for good.
 *   R4. An index is judged after the epochs too: on a replacement page all of them are 0.
 *   R5. What the client still writes goes to pages that nobody else sees.
 *
 * So the client receives a prefix of what the server sent, then -ENOTCONN; it never faults and never receives bytes
 * that were not sent. Unmap notifications do not exist for revokable pages (see <xenolith/grants.h>). Instead each side asks
 * for an event, should it die, by means of a grant to nobody; the other side then finds the epoch gone, or, the
 * server, that its control page is not mapped any more (GTF_writing of its own grant entry).
 */
#ifndef XENOLITH_VCHAN_H
#define XENOLITH_VCHAN_H

#include <xenolith/guest.h>

#define VCHAN_ORDER_MIN 10
#define VCHAN_ORDER_MAX 20
/* Bits of cli_notify and srv_notify: tell me when you have written, when you have read. */
#define VCHAN_NOTIFY_WRITE 1
#define VCHAN_NOTIFY_READ 2

/* Indices of one ring. */
struct vchan_indices {
  uint32_t cons;
  uint32_t prod;
};

/* The control page. */
struct vchan_control {
  struct vchan_indices left;
  struct vchan_indices right;
  uint16_t left_order;
  uint16_t right_order;
  /* 0 gone, 1 there; of the client 2: not there yet. */
  uint8_t cli_live;
  uint8_t srv_live;
  /* What the client is asked to tell; set by the server, cleared by the client. The other the other way round. */
  uint8_t cli_notify;
  uint8_t srv_notify;
  /* Pages of the left ring, then those of the right ring; none for orders 10 and 11. */
  uint32_t grants[];
};
XEN_CHECK_OFFSET(struct vchan_control, left.cons, 0);
XEN_CHECK_OFFSET(struct vchan_control, right.cons, 8);
XEN_CHECK_OFFSET(struct vchan_control, left_order, 16);
XEN_CHECK_OFFSET(struct vchan_control, cli_live, 20);
XEN_CHECK_OFFSET(struct vchan_control, srv_live, 21);
XEN_CHECK_OFFSET(struct vchan_control, cli_notify, 22);
XEN_CHECK_OFFSET(struct vchan_control, srv_notify, 23);
XEN_CHECK_OFFSET(struct vchan_control, grants, 24);

/* One direction, as one end sees it. */
struct vchan_ring {
  struct vchan_indices *shared;
  char *data;
  uint32_t size;
  /* This end's own index; `shared` has a copy for the other end. */
  uint32_t index;
};

#define VCHAN_PATH_MAX 128

/* An end of a channel; it stays where it was opened. Read `port`, set `blocking`; the rest is the library's. */
struct vchan {
  /* Whether calls sleep until they can do their work. 1 after opening. */
  _Bool blocking;
  /* Events of the channel come here. Without a handler the calls below take care of them. */
  evtchn_port_t port;
  _Bool server;
  _Bool revokable;
  /* Closed for good, and why: -ENOTCONN, or -EIO after indices that cannot be. */
  int error;
  domid_t remote;
  struct vchan_control *control;
  struct vchan_ring read;
  struct vchan_ring write;
  uint32_t epoch;
  const volatile uint32_t *epoch_word;
  const volatile uint32_t *guard;
  /* Server: the pages, control page first, and its reference. */
  uint32_t page_count;
  uint32_t ring_ref;
  /* Client: pages mapped. Laid over: of own pages. */
  _Bool laid_over;
  void *left_pages, *right_pages, *guard_page;
  /* The grant to nobody; 0: none. */
  uint32_t beacon;
  /* Server: where it stands in the xenstore; empty: nowhere. */
  char path[VCHAN_PATH_MAX];
};

/* Server: the pages may be taken back with vchan_revoke. */
#define VCHAN_REVOKABLE 1u
/* Client of a revokable channel: replaced by pages of its own, not by what the hypervisor provides. */
#define VCHAN_LAY_OVER 2u

/* ---- opening and closing; 0 or a negative errno ---- */

/*
 * Offers a channel to `client` at `path` in the xenstore, which the caller may write; rings have at least `left_bytes` and
 * `right_bytes` (at most 1 MiB). Does not wait for the client, but its domain must exist: the store forgets permissions
 * for domains that it does not know.
 */
int vchan_server_init(struct vchan *channel, domid_t client, const char *path, size_t left_bytes, size_t right_bytes,
                      unsigned int flags);
/* Connects to the channel that `server` offers at `path`. -ENOENT, -EACCES: it offers none (yet). */
int vchan_client_init(struct vchan *channel, domid_t server, const char *path, unsigned int flags);
/* The same, but sleeps until it is offered or `deadline_ns` of system time (0: none) has passed. */
int vchan_client_wait_init(struct vchan *channel, domid_t server, const char *path, unsigned int flags,
                           uint64_t deadline_ns);
/* Without the xenstore: what the other end must be told is ring_ref, port and epoch (0 in plain mode). */
int vchan_server_open(struct vchan *channel, domid_t client, size_t left_bytes, size_t right_bytes, unsigned int flags);
int vchan_client_open(struct vchan *channel, domid_t server, uint32_t ring_ref, evtchn_port_t port, uint32_t epoch,
                      unsigned int flags);
/*
 * Server of a revokable channel: takes all pages back. When this returns the client can neither read nor change them. What it
 * had written before can still be read; then reads say -ENOTCONN. -EINVAL: not such a channel.
 */
int vchan_revoke(struct vchan *channel);
/* Ends the channel; frees everything. A plain channel's pages are freed when the other end has unmapped them too. */
void vchan_close(struct vchan *channel);

/* ---- using ---- */

/* 1: the other end is there; 2: the client has not come yet; 0: the other end is gone, or the channel is broken. */
int vchan_is_open(struct vchan *channel);
/*
 * Reads up to `size` bytes: at least one when blocking. 0: nothing there (not blocking). -ENOTCONN: the other end is gone
 * and all that can be delivered has been. -EIO: the other end broke the rules. After a negative result `to` may have changed.
 */
int vchan_read(struct vchan *channel, void *to, size_t size);
/* Writes all of it when blocking, else what fits now; returns how much. -ENOTCONN, -EIO as above. */
int vchan_write(struct vchan *channel, const void *from, size_t size);
/* All of it or nothing: 0 when there is no room (not blocking). -E2BIG: more than the ring can hold. */
int vchan_send(struct vchan *channel, const void *from, size_t size);
/* Exactly `size` bytes or nothing. */
int vchan_recv(struct vchan *channel, void *to, size_t size);
/* Bytes that can be read, or written, now; or a negative errno. */
int vchan_data_ready(struct vchan *channel);
int vchan_buffer_space(struct vchan *channel);
/* Sleeps until the other end has done something or `deadline_ns` of system time (0: none) has passed; may wake early. */
int vchan_wait(struct vchan *channel, uint64_t deadline_ns);
/* Sleeps until the other end has read everything that was written. */
int vchan_flush(struct vchan *channel, uint64_t deadline_ns);

#endif
