/* SPDX-License-Identifier: Apache-2.0 */
/* Where a channel is offered and found: its nodes in the xenstore. See <xenolith/vchan.h>. */
#include "internal.h"
#include "vchan-internal.h"
#include <xenolith/xenstore.h>

/* `path`/`name` in `node`; false: too long. */
static _Bool join(char *node, const char *path, const char *name) {
  return xen_snprintf(node, VCHAN_PATH_MAX, "%s/%s", path, name) < VCHAN_PATH_MAX;
}

void xen_vchan_withdraw(struct vchan *channel) {
  static const char *const names[] = {"ring-ref", "event-channel", "revokable"};
  char node[VCHAN_PATH_MAX];
  if (channel->path[0] == 0) return;
  for (size_t i = 0; i < array_size(names) - !channel->revokable; i++)
    if (join(node, channel->path, names[i])) xenstore_rm(XENSTORE_NO_TX, node);
  channel->path[0] = 0;
}

struct offer {
  const struct vchan *channel;
  domid_t own;
};

static int publish(xenstore_tx_t tx, void *context) {
  const struct offer *offer = context;
  const struct vchan *channel = offer->channel;
  const struct xenstore_permission access[] = {{offer->own, 'n'}, {channel->remote, 'r'}};
  const struct {
    const char *name;
    uint32_t value;
  } nodes[] = {{"ring-ref", channel->ring_ref}, {"event-channel", channel->port}, {"revokable", channel->epoch}};
  char node[VCHAN_PATH_MAX];
  for (size_t i = 0; i < array_size(nodes) - !channel->revokable; i++) {
    if (!join(node, channel->path, nodes[i].name)) return -XEN_E2BIG;
    int status = xenstore_write_number(tx, node, nodes[i].value);
    if (status == 0) status = xenstore_set_permissions(tx, node, access, array_size(access));
    if (status < 0) return status;
  }
  return 0;
}

int vchan_server_init(struct vchan *channel, domid_t client, const char *path, size_t left_bytes, size_t right_bytes,
                      unsigned int flags) {
  struct offer offer = {.channel = channel};
  *channel = (struct vchan){.server = 1};
  int own = xenstore_domid();
  if (own < 0) return own;
  offer.own = (domid_t)own;
  int status = vchan_server_open(channel, client, left_bytes, right_bytes, flags);
  if (status < 0) return status;
  int length = xen_snprintf(channel->path, sizeof channel->path, "%s", path);
  status = length < VCHAN_PATH_MAX ? xenstore_transact(publish, &offer) : -XEN_E2BIG;
  if (status < 0) {
    channel->path[0] = 0;
    vchan_close(channel);
  }
  return status;
}

/* A number at `path`/`name`. */
static int read_node(const char *path, const char *name, uint32_t *value) {
  char node[VCHAN_PATH_MAX];
  return join(node, path, name) ? xenstore_read_number(XENSTORE_NO_TX, node, value) : -XEN_E2BIG;
}

int vchan_client_init(struct vchan *channel, domid_t server, const char *path, unsigned int flags) {
  uint32_t ring_ref, port, epoch = 0;
  *channel = (struct vchan){.remote = server};
  int status = read_node(path, "ring-ref", &ring_ref);
  if (status == 0) status = read_node(path, "event-channel", &port);
  if (status < 0) return status;
  /* A node that is not there is as good as forbidden in a directory that one may not read. */
  status = read_node(path, "revokable", &epoch);
  if (status < 0 && status != -XEN_ENOENT && status != -XEN_EACCES) return status;
  return vchan_client_open(channel, server, ring_ref, port, epoch, flags);
}

int vchan_client_wait_init(struct vchan *channel, domid_t server, const char *path, unsigned int flags,
                           uint64_t deadline_ns) {
  int watch = xenstore_watch(path, NULL, NULL), status;
  if (watch < 0) return watch;
  for (;;) {
    status = vchan_client_init(channel, server, path, flags);
    if (status != -XEN_ENOENT && status != -XEN_EACCES) break;
    if (xenstore_watch_wait(watch, deadline_ns) == 0) {
      status = -XEN_ETIMEDOUT;
      break;
    }
  }
  xenstore_unwatch(watch);
  return status;
}
