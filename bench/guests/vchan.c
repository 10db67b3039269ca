/* SPDX-License-Identifier: Apache-2.0 */
/* Either end of the vchan bench: what each command does is said in vchan.bench.ts, whose list it is. */
#include "mailbox.h"
#include <xenolith/vchan.h>

enum { OPEN_SERVER = 1, OPEN_CLIENT, SEND, RECEIVE, PING, PONG };

#define BUFFER_BYTES (64u << 20)

static struct vchan channel;
static char *buffer;

/* (client, bytes of the ring to it): answers where the channel is. */
static void open_server(void) {
  require(vchan_server_open(&channel, (domid_t)arg(0), arg(1), arg(1), 0) == 0);
  answer(0, channel.ring_ref);
  answer(1, channel.port);
}

/* (server, reference, port) */
static void open_client(void) { require(vchan_client_open(&channel, (domid_t)arg(0), arg(1), arg(2), 0, 0) == 0); }

/* Pieces lie one behind the other in a window of arg(2) bytes. */
static char *place_of(uint32_t piece) { return buffer + piece * arg(1) % arg(2); }

/* (pieces, bytes of a piece, bytes of the window): sends them all. */
static void send_all(void) {
  for (uint32_t piece = 0; piece < arg(0); piece++) {
    *(uint32_t *)place_of(piece) = piece;
    require(vchan_write(&channel, place_of(piece), arg(1)) == (int)arg(1));
  }
}

static _Bool receive(char *to, uint32_t size) {
  uint32_t done = 0;
  while (done < size) {
    int count = vchan_read(&channel, to + done, size - done);
    if (count <= 0) return 0;
    done += (uint32_t)count;
  }
  return 1;
}

/* (the same): answers the time from the first piece's arrival to the last's. */
static void receive_all(void) {
  require(receive(buffer, arg(1)));
  uint64_t start = xen_time_ns();
  for (uint32_t piece = 1; piece < arg(0); piece++) {
    require(receive(place_of(piece), arg(1)));
    require(*(uint32_t *)place_of(piece) == piece);
  }
  answer(0, xen_time_ns() - start);
}

/* (turns, bytes): answers the time of all turns but the first, which waits for the other end. */
static void ping(void) {
  uint64_t start = 0;
  for (uint32_t turn = 0; turn <= arg(0); turn++) {
    if (turn == 1) start = xen_time_ns();
    require(vchan_send(&channel, buffer, arg(1)) == (int)arg(1));
    require(vchan_recv(&channel, buffer, arg(1)) == (int)arg(1));
  }
  answer(0, xen_time_ns() - start);
}

static void pong(void) {
  for (uint32_t turn = 0; turn <= arg(0); turn++) {
    require(vchan_recv(&channel, buffer, arg(1)) == (int)arg(1));
    require(vchan_send(&channel, buffer, arg(1)) == (int)arg(1));
  }
}

static void perform(uint32_t command) {
  switch (command) {
    case OPEN_SERVER: open_server(); break;
    case OPEN_CLIENT: open_client(); break;
    case SEND: send_all(); break;
    case RECEIVE: receive_all(); break;
    case PING: ping(); break;
    case PONG: pong(); break;
    default: require(0);
  }
}

void xen_main(const struct start_info *start) {
  (void)start;
  buffer = xen_pages_alloc_run(BUFFER_BYTES / XEN_PAGE_SIZE);
  serve_mailbox();
}
