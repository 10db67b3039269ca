/* SPDX-License-Identifier: Apache-2.0 */
/* vchan of the guest library: both ends in one guest, without the xenstore and without sleeping. */
#include "c-check.h"
#include <xenolith/grants.h>
#include <xenolith/vchan.h>

#define BYTES 6000

static domid_t self;
static struct vchan server, client;
static unsigned char sent[BYTES], received[BYTES];

static int connect(size_t left, size_t right, unsigned int server_flags, unsigned int client_flags) {
  int status = vchan_server_open(&server, self, left, right, server_flags);
  if (status < 0) return status;
  server.blocking = 0;
  status = vchan_client_open(&client, self, server.ring_ref, server.port, server.epoch, client_flags);
  client.blocking = 0;
  return status;
}

static void disconnect(void) {
  vchan_close(&client);
  vchan_close(&server);
}

static void sizes(void) {
  static const struct {
    uint32_t left, right, left_order, right_order;
  } rows[] = {{1, 1, 10, 11},       {1024, 2048, 10, 11}, {1025, 1024, 11, 10}, {2048, 1024, 11, 10},
              {2048, 2048, 11, 12}, {2049, 2048, 12, 11}, {5000, 5000, 13, 13}, {1048576, 4096, 20, 12},
              {1024, 1048576, 11, 20}};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    int status = connect(rows[i].left, rows[i].right, 0, 0);
    check_equal("the ends meet", status, 0);
    check("orders are those of libxenvchan", server.control->left_order == rows[i].left_order &&
                                                 server.control->right_order == rows[i].right_order);
    check("each reads what the other writes", client.write.size == server.read.size &&
                                                  client.read.size == server.write.size);
    disconnect();
  }
  check_equal("more than 1 MiB", vchan_server_open(&server, self, 1048577, 1, 0), -EINVAL);
}

/* Random sizes each way, many times round the rings, from indices that are about to wrap. */
static void stream(const char *name) {
  uint32_t state = 88172645, wrong = 0, in = 0, out = 0;
  for (int i = 0; i < 20000; i++) {
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    uint32_t count = state % 3000 + 1;
    for (uint32_t j = 0; j < count; j++) sent[j] = (unsigned char)((out + j) * 7);
    struct vchan *writer = i & 0x1000 ? &client : &server, *reader = i & 0x1000 ? &server : &client;
    if (state & 0x10000) {
      int done = vchan_write(writer, sent, count);
      if (done < 0) wrong++;
      else out += (uint32_t)done;
    } else {
      int got = vchan_read(reader, received, count);
      if (got < 0) wrong++;
      for (int j = 0; j < got; j++) wrong += received[j] != (unsigned char)((in + (uint32_t)j) * 7);
      if (got > 0) in += (uint32_t)got;
    }
    if ((i & 0xfff) == 0xfff) {
      int got;
      while ((got = vchan_read(reader, received, BYTES)) > 0) in += (uint32_t)got;
      wrong += in != out;
    }
  }
  check_equal(name, wrong, 0);
  check("and much of it", out > 1000000);
}

static void wrap_soon(void) {
  server.control->left.cons = server.control->left.prod = 0xfffffff0u;
  server.control->right.cons = server.control->right.prod = 0xfffffff0u;
  server.read.index = server.write.index = client.read.index = client.write.index = 0xfffffff0u;
}

static void streams(unsigned int server_flags, unsigned int client_flags) {
  check_equal("the ends meet", connect(1024, 2048, server_flags, client_flags), 0);
  wrap_soon();
  stream("small rings carry a stream");
  disconnect();
  check_equal("the ends meet", connect(4096, 10000, server_flags, client_flags), 0);
  wrap_soon();
  stream("big rings carry a stream");
  disconnect();
}

static void packets(void) {
  connect(4096, 4096, 0, 0);
  check_equal("a packet bigger than the ring", vchan_send(&client, sent, 4097), -E2BIG);
  check_equal("one as big", vchan_send(&client, sent, 4096), 4096);
  check_equal("the next has no room", vchan_send(&client, sent, 1), 0);
  check_equal("more than there is", vchan_recv(&server, received, 4096) + vchan_recv(&server, received, 1), 4096);
  check_equal("part of a packet", vchan_send(&server, sent, 10), 10);
  check_equal("is not delivered", vchan_recv(&client, received, 11), 0);
  check_equal("the whole is", vchan_recv(&client, received, 10), 10);
  check_equal("flush of an empty ring", vchan_flush(&server, 0), 0);
  vchan_send(&server, sent, 1);
  check_equal("flush in vain", vchan_flush(&server, xen_time_ns() + 1000), -ETIMEDOUT);
  disconnect();
}

static void ends(void) {
  connect(4096, 4096, 0, 0);
  check("both are open", vchan_is_open(&server) == 1 && vchan_is_open(&client) == 1);
  vchan_write(&client, "last", 4);
  vchan_close(&client);
  check("the server sees the client go", vchan_is_open(&server) == 0);
  check_equal("and reads what it left", vchan_read(&server, received, 10), 4);
  check_equal("then no more", vchan_read(&server, received, 10), -ENOTCONN);
  check_equal("and cannot write", vchan_write(&server, sent, 1), -ENOTCONN);
  check_equal("nor can the client", vchan_write(&client, sent, 1), -ENOTCONN);
  check_equal("or read", vchan_read(&client, received, 1), -ENOTCONN);
  vchan_close(&server);
  vchan_server_open(&server, self, 4096, 4096, 0);
  check("a server without a client waits", vchan_is_open(&server) == 2);
  vchan_close(&server);
  connect(4096, 4096, 0, 0);
  vchan_write(&server, "last", 4);
  vchan_close(&server);
  check("the client sees the server go", vchan_is_open(&client) == 0);
  check_equal("and reads what it left", vchan_read(&client, received, 10), 4);
  check_equal("then no more", vchan_read(&client, received, 10), -ENOTCONN);
  vchan_close(&client);
}

static void hostile(void) {
  connect(4096, 4096, 0, 0);
  server.control->left.prod = 4097;
  check_equal("more bytes than the ring holds", vchan_read(&server, received, 1), -EIO);
  check("is the end", vchan_is_open(&server) == 0);
  server.control->left.prod = 1;
  check_equal("for good", vchan_read(&server, received, 1), -EIO);
  disconnect();
  connect(4096, 4096, 0, 0);
  server.control->right.cons = 1;
  check_equal("bytes read that were not written", vchan_write(&server, sent, 1), -EIO);
  disconnect();
  vchan_server_open(&server, self, 4096, 4096, 0);
  static const uint16_t orders[][2] = {{9, 12}, {12, 21}, {10, 10}, {11, 11}, {0xffff, 12}};
  for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
    server.control->left_order = orders[i][0];
    server.control->right_order = orders[i][1];
    check_equal("orders that cannot be",
                vchan_client_open(&client, self, server.ring_ref, server.port, 0, 0), -EINVAL);
    vchan_close(&server);
    vchan_server_open(&server, self, 4096, 4096, 0);
  }
  server.control->grants[1] = 0xffffff;
  check_equal("a page that is not granted", vchan_client_open(&client, self, server.ring_ref, server.port, 0, 0),
              -EINVAL);
  vchan_close(&server);
  check_equal("no control page", vchan_client_open(&client, self, 0, 1, 0, 0), -EINVAL);
}

static void revoke(size_t size, unsigned int client_flags) {
  check_equal("a revokable channel", connect(size, size, VCHAN_REVOKABLE, client_flags), 0);
  vchan_write(&server, "fresh bytes", 11);
  vchan_write(&client, "for the server", 14);
  check("what was delivered is fresh", vchan_read(&client, received, 5) == 5 && received[4] == 'h');
  check_equal("revoke", vchan_revoke(&server), 0);
  check("the client sees the end", vchan_is_open(&client) == 0);
  check_equal("and nothing stale", vchan_read(&client, received, 6), -ENOTCONN);
  check_equal("nor a number of bytes", vchan_data_ready(&client), -ENOTCONN);
  check_equal("it cannot write", vchan_write(&client, sent, 1), -ENOTCONN);
  check_equal("the server reads what came before", vchan_read(&server, received, 100), 14);
  check("unchanged", received[0] == 'f' && received[13] == 'r');
  check_equal("then no more", vchan_read(&server, received, 100), -ENOTCONN);
  disconnect();
}

/* The pages go one by one, as when the server dies, from either end of its table. */
static void torn(_Bool upwards) {
  connect(8192, 8192, VCHAN_REVOKABLE, 0);
  for (int i = 0; i < BYTES; i++) sent[i] = 0xaa;
  vchan_write(&server, sent, BYTES);
  uint32_t count = server.page_count, stale = 0;
  grant_ref_t refs[16] = {server.ring_ref};
  for (uint32_t i = 1; i < count; i++) refs[i] = server.control->grants[i == count - 1 ? i : i - 1];
  for (uint32_t i = 0; i < count; i++) {
    grant_revoke(refs[upwards ? i : count - 1 - i]);
    int got = vchan_read(&client, received, 100);
    stale += got != -ENOTCONN;
  }
  check_equal(upwards ? "revoked upwards: no byte is delivered" : "revoked downwards: no byte is delivered", stale, 0);
  vchan_close(&client);
  /* The references are gone already; what is left is not of this test. */
}

static void takes_over_no_revoked(void) {
  vchan_server_open(&server, self, 4096, 4096, VCHAN_REVOKABLE);
  check_equal("plain clients are refused",
              vchan_client_open(&client, self, server.ring_ref, server.port, 0, 0), -EINVAL);
  check_equal("clients of an earlier epoch too",
              vchan_client_open(&client, self, server.ring_ref, server.port, server.epoch + 1, 0), -ENOTCONN);
  vchan_close(&server);
  check_equal("a plain channel is not revoked", connect(4096, 4096, 0, 0) + vchan_revoke(&server), -EINVAL);
  disconnect();
}

void xen_main(const struct start_info *start) {
  (void)start;
  self = own_domid();
  connect(1048576, 1048576, VCHAN_REVOKABLE, VCHAN_LAY_OVER);
  disconnect();
  int before = xen_pages_current();
  sizes();
  streams(0, 0);
  streams(VCHAN_REVOKABLE, 0);
  streams(VCHAN_REVOKABLE, VCHAN_LAY_OVER);
  packets();
  ends();
  hostile();
  revoke(1024, 0);
  revoke(4096, 0);
  revoke(4096, VCHAN_LAY_OVER);
  revoke(1048576, 0);
  takes_over_no_revoked();
  grant_retry_deferred();
  check("all pages are back", xen_pages_current() <= before + 8);
  torn(1);
  torn(0);
  finish();
}
