/* SPDX-License-Identifier: Apache-2.0 */
/* States of the two ends of a device in the xenstore, and how they wait for each other. */
#ifndef XENOLITH_XENBUS_H
#define XENOLITH_XENBUS_H

#include <xenolith/xenstore.h>

enum xenbus_state {
  XenbusStateUnknown = 0,
  XenbusStateInitialising = 1,
  XenbusStateInitWait = 2,
  XenbusStateInitialised = 3,
  XenbusStateConnected = 4,
  XenbusStateClosing = 5,
  XenbusStateClosed = 6,
  XenbusStateReconfiguring = 7,
  XenbusStateReconfigured = 8,
};

#define XENBUS_PATH_MAX 256

/* One end of a device. */
struct xenbus_device {
  /* Own directory, e.g. "device/vchan/0". */
  char path[XENBUS_PATH_MAX];
  /* Directory of the other end, and the state node in it. */
  char other[XENBUS_PATH_MAX];
  char other_state[XENBUS_PATH_MAX];
  domid_t other_domid;
  /* Watch of other_state. */
  int watch;
};

/* A set of states, for xenbus_wait. */
#define XENBUS_STATE_BIT(state) (1u << (state))

/* The state in a node; XenbusStateUnknown when there is none, or no number from 0 to 8. */
enum xenbus_state xenbus_read_state(xenstore_tx_t tx, const char *state_path);
/* Opens the front end in `path`: reads `backend` and `backend-id` and watches the other end's state. */
int xenbus_open_frontend(struct xenbus_device *device, const char *path);
/* The same for a back end: `frontend` and `frontend-id`. */
int xenbus_open_backend(struct xenbus_device *device, const char *path);
/* Takes the watch away. */
void xenbus_close(struct xenbus_device *device);
/* Writes the own state, unless it is that already or the device's directory has been removed (-ENOENT). */
int xenbus_switch_state(const struct xenbus_device *device, enum xenbus_state state);
enum xenbus_state xenbus_other_state(const struct xenbus_device *device);
/*
 * Sleeps until the other end's state is in the set `states`; XenbusStateUnknown in it: gone. Returns the state, or
 * -ETIMEDOUT after `deadline_ns` of system time (0: none).
 */
int xenbus_wait(struct xenbus_device *device, unsigned int states, uint64_t deadline_ns);
/*
 * Shuts a front end down as mini-os does: Closing until the other end is at least Closing, Closed until it is at least
 * Closed, Initialising until it is InitWait again; each also ends when the other end is gone. 0 or a negative errno.
 */
int xenbus_shutdown_frontend(struct xenbus_device *device, uint64_t deadline_ns);
/* Writes `message` to the device's `error` node and goes to Closing. */
int xenbus_fail(const struct xenbus_device *device, const char *message);

#endif
