/* SPDX-License-Identifier: Apache-2.0 */
#include "internal.h"
#include <xenolith/xenbus.h>

#define GONE XENBUS_STATE_BIT(XenbusStateUnknown)
#define RECONFIGURE (XENBUS_STATE_BIT(XenbusStateReconfiguring) | XENBUS_STATE_BIT(XenbusStateReconfigured))
#define AT_LEAST_CLOSED (XENBUS_STATE_BIT(XenbusStateClosed) | RECONFIGURE | GONE)
#define AT_LEAST_CLOSING (XENBUS_STATE_BIT(XenbusStateClosing) | AT_LEAST_CLOSED)

enum xenbus_state xenbus_read_state(xenstore_tx_t tx, const char *state_path) {
  uint32_t state;
  int status = xenstore_read_number(tx, state_path, &state);
  return status == 0 && state <= XenbusStateReconfigured ? (enum xenbus_state)state : XenbusStateUnknown;
}

/* `directory`/`name` in `to`; false: too long. */
static _Bool join(char *to, const char *directory, const char *name) {
  return xen_snprintf(to, XENBUS_PATH_MAX, "%s/%s", directory, name) < XENBUS_PATH_MAX;
}

static int open_device(struct xenbus_device *device, const char *path, const char *other) {
  char node[XENBUS_PATH_MAX], id_name[16];
  uint32_t domid;
  if (xen_snprintf(device->path, sizeof device->path, "%s", path) >= XENBUS_PATH_MAX) return -XEN_E2BIG;
  if (!join(node, path, other)) return -XEN_E2BIG;
  int length = xenstore_read(XENSTORE_NO_TX, node, device->other, sizeof device->other);
  if (length < 0) return length;
  if (length >= XENBUS_PATH_MAX || !join(device->other_state, device->other, "state")) return -XEN_E2BIG;
  xen_snprintf(id_name, sizeof id_name, "%s-id", other);
  if (!join(node, path, id_name)) return -XEN_E2BIG;
  int status = xenstore_read_number(XENSTORE_NO_TX, node, &domid);
  if (status < 0) return status;
  device->other_domid = (domid_t)domid;
  device->watch = xenstore_watch(device->other_state, NULL, NULL);
  return device->watch < 0 ? device->watch : 0;
}

int xenbus_open_frontend(struct xenbus_device *device, const char *path) {
  return open_device(device, path, "backend");
}

int xenbus_open_backend(struct xenbus_device *device, const char *path) {
  return open_device(device, path, "frontend");
}

void xenbus_close(struct xenbus_device *device) {
  if (device->watch >= 0) xenstore_unwatch(device->watch);
  device->watch = -1;
}

struct state_change {
  const char *path;
  enum xenbus_state state;
};

/* Only where a state is already: a device whose directory has been removed is not created again. */
static int write_state(xenstore_tx_t tx, void *context) {
  const struct state_change *change = context;
  uint32_t old;
  int status = xenstore_read_number(tx, change->path, &old);
  if (status == -XEN_ENOENT || (status == 0 && old == change->state)) return status;
  return xenstore_write_number(tx, change->path, change->state);
}

int xenbus_switch_state(const struct xenbus_device *device, enum xenbus_state state) {
  char node[XENBUS_PATH_MAX];
  struct state_change change = {node, state};
  return join(node, device->path, "state") ? xenstore_transact(write_state, &change) : -XEN_E2BIG;
}

enum xenbus_state xenbus_other_state(const struct xenbus_device *device) {
  return xenbus_read_state(XENSTORE_NO_TX, device->other_state);
}

int xenbus_wait(struct xenbus_device *device, unsigned int states, uint64_t deadline_ns) {
  for (;;) {
    enum xenbus_state state = xenbus_other_state(device);
    if (states & XENBUS_STATE_BIT(state)) return (int)state;
    if (xenstore_watch_wait(device->watch, deadline_ns) > 0) continue;
    int status = xenstore_init();
    return status < 0 ? status : -XEN_ETIMEDOUT;
  }
}

int xenbus_shutdown_frontend(struct xenbus_device *device, uint64_t deadline_ns) {
  static const struct {
    enum xenbus_state own;
    unsigned int other;
  } steps[] = {{XenbusStateClosing, AT_LEAST_CLOSING},
               {XenbusStateClosed, AT_LEAST_CLOSED},
               {XenbusStateInitialising, GONE | XENBUS_STATE_BIT(XenbusStateInitWait)}};
  for (size_t i = 0; i < array_size(steps); i++) {
    int status = xenbus_switch_state(device, steps[i].own);
    if (status == 0) status = xenbus_wait(device, steps[i].other, deadline_ns);
    if (status < 0) return status;
  }
  return 0;
}

int xenbus_fail(const struct xenbus_device *device, const char *message) {
  char node[XENBUS_PATH_MAX];
  if (!join(node, device->path, "error")) return -XEN_E2BIG;
  int status = xenstore_write_string(XENSTORE_NO_TX, node, message);
  return status < 0 ? status : xenbus_switch_state(device, XenbusStateClosing);
}
