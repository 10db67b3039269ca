/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The xenstore client of the guest library.
 *
 *   store        everything that one guest can do with the store
 *   front|back   the two ends of a device, whose directories the test has made
 */
#include "c-check.h"
#include <xenolith/xenbus.h>
#include <xenolith/xenstore.h>

#define BIG 4000

static char value[XENSTORE_PAYLOAD_MAX + 1];
static unsigned int handled, deepest, depth;
static char last_path[128];

static void nodes(void) {
  uint32_t number;
  check("a relative path is under the domain's home", xenstore_domid() == own_domid());
  check_equal("write", xenstore_write_string(XENSTORE_NO_TX, "data/a/b", "hello"), 0);
  check("read", xenstore_read(XENSTORE_NO_TX, "data/a/b", value, sizeof value) == 5 && value[4] == 'o' && value[5] == 0);
  check("a value that does not fit", xenstore_read(XENSTORE_NO_TX, "data/a/b", value, 3) == 5 && value[2] == 0);
  check_equal("no number", xenstore_read_number(XENSTORE_NO_TX, "data/a/b", &number), -EINVAL);
  check_equal("write a number", xenstore_write_number(XENSTORE_NO_TX, "data/n", 4294967295u), 0);
  check("read a number", xenstore_read_number(XENSTORE_NO_TX, "data/n", &number) == 0 && number == 4294967295u);
  check_equal("a missing node", xenstore_read(XENSTORE_NO_TX, "data/none", value, 1), -ENOENT);
  check_equal("somebody else's node", xenstore_write_string(XENSTORE_NO_TX, "/local/domain/0/x", "y"), -EACCES);
  check_equal("a path that cannot be", xenstore_mkdir(XENSTORE_NO_TX, "data//x"), -EINVAL);
  for (int i = 0; i < BIG; i++) value[i] = (char)i;
  check_equal("more than a message holds", xenstore_write(XENSTORE_NO_TX, "data/big", value, 4096), -E2BIG);
  check_equal("more than one ring holds", xenstore_write(XENSTORE_NO_TX, "data/big", value, 1800), 0);
  for (int i = 0; i < BIG; i++) value[i] = 0;
  _Bool same = xenstore_read(XENSTORE_NO_TX, "data/big", value, sizeof value) == 1800;
  for (int i = 0; i < 1800; i++) same &= value[i] == (char)i;
  check("comes back whole, in pieces", same);
  check_equal("mkdir", xenstore_mkdir(XENSTORE_NO_TX, "data/a/c"), 0);
  int length = xenstore_directory(XENSTORE_NO_TX, "data/a", value, sizeof value);
  const char *name = xenstore_next_name(value, (size_t)length, NULL);
  check("directory", length == 4 && name[0] == 'b' && xenstore_next_name(value, (size_t)length, name)[0] == 'c');
  check("and its end", xenstore_next_name(value, (size_t)length, value + 2) == NULL);
  check_equal("rm", xenstore_rm(XENSTORE_NO_TX, "data/a"), 0);
  check_equal("takes what is below", xenstore_read(XENSTORE_NO_TX, "data/a/b", value, 1), -ENOENT);
  check("the path of a domain", xenstore_domain_path(7, value, sizeof value) == 15 && value[14] == '7');
}

static void permissions(void) {
  struct xenstore_permission list[3] = {{own_domid(), 'n'}, {0, 'r'}};
  xenstore_write_string(XENSTORE_NO_TX, "data/p", "");
  check_equal("set permissions", xenstore_set_permissions(XENSTORE_NO_TX, "data/p", list, 2), 0);
  list[0].domid = list[1].domid = 99;
  check_equal("get permissions", xenstore_get_permissions(XENSTORE_NO_TX, "data/p", list, 3), 2);
  check("they are those", list[0].domid == own_domid() && list[0].access == 'n' && list[1].domid == 0 && list[1].access == 'r');
}

static void on_change(const char *path, void *context) {
  unsigned int *calls = context;
  depth++;
  if (depth > deepest) deepest = depth;
  (*calls)++;
  xen_snprintf(last_path, sizeof last_path, "%s", path);
  /* A handler may use the store. */
  xenstore_read(XENSTORE_NO_TX, "domid", value, sizeof value);
  depth--;
}

static void watches(void) {
  int polled = xenstore_watch("data/w", NULL, NULL);
  check("watch", polled >= 0);
  check_equal("one event at once", xenstore_watch_wait(polled, 0), 1);
  check_equal("no other", xenstore_watch_wait(polled, xen_time_ns() + 5000000), 0);
  xenstore_write_string(XENSTORE_NO_TX, "data/w/below", "x");
  check("a change below", xenstore_watch_wait(polled, 0) >= 1);
  int calling = xenstore_watch("data/w", on_change, &handled);
  while (handled == 0) xen_event_wait(xenstore_port(), xen_time_ns() + 1000000);
  handled = 0;
  /* Many events, between the answers of many requests. */
  for (int i = 0; i < 200; i++) xenstore_write_number(XENSTORE_NO_TX, "data/w/below", (uint32_t)i);
  for (int i = 0; i < 100 && handled == 0; i++) xen_event_wait(xenstore_port(), xen_time_ns() + 1000000);
  check("handlers are called, one at a time", handled > 0 && deepest == 1);
  check_equal("with the path", __builtin_memcmp(last_path, "data/w", 6), 0);
  check_equal("unwatch", xenstore_unwatch(calling) + xenstore_unwatch(polled), 0);
  handled = 0;
  xenstore_write_string(XENSTORE_NO_TX, "data/w/below", "y");
  xenstore_read(XENSTORE_NO_TX, "domid", value, sizeof value);
  check_equal("then it is quiet", handled, 0);
  check_equal("no such watch", xenstore_unwatch(polled), -EINVAL);
}

static unsigned int attempts;

static int count_up(xenstore_tx_t tx, void *context) {
  uint32_t number;
  int status = xenstore_read_number(tx, "data/t", &number);
  (void)context;
  /* Somebody else changes the node the first time: here, ourselves outside. */
  if (status == 0 && attempts++ == 0) xenstore_write_number(XENSTORE_NO_TX, "data/t", 10);
  return status < 0 ? status : xenstore_write_number(tx, "data/t", number + 1);
}

static int give_up(xenstore_tx_t tx, void *context) {
  (void)context;
  xenstore_write_number(tx, "data/t", 99);
  return -EPERM;
}

static void transactions(void) {
  uint32_t number;
  xenstore_write_number(XENSTORE_NO_TX, "data/t", 1);
  check_equal("a transaction", xenstore_transact(count_up, NULL), 0);
  xenstore_read_number(XENSTORE_NO_TX, "data/t", &number);
  check("is done again after a conflict", number == 11 && attempts == 2);
  check_equal("one that gives up", xenstore_transact(give_up, NULL), -EPERM);
  xenstore_read_number(XENSTORE_NO_TX, "data/t", &number);
  check_equal("changes nothing", number, 11);
}

static void front(void) {
  struct xenbus_device device;
  check_equal("open", xenbus_open_frontend(&device, "device/test/0"), 0);
  check_equal("the other end's id", device.other_domid, (int)own_domid() + 1);
  check_equal("wait for InitWait", xenbus_wait(&device, XENBUS_STATE_BIT(XenbusStateInitWait), 0), XenbusStateInitWait);
  check_equal("Initialised", xenbus_switch_state(&device, XenbusStateInitialised), 0);
  check_equal("wait for Connected", xenbus_wait(&device, XENBUS_STATE_BIT(XenbusStateConnected), 0),
              XenbusStateConnected);
  check_equal("Connected", xenbus_switch_state(&device, XenbusStateConnected), 0);
  check_equal("shut down", xenbus_shutdown_frontend(&device, 0), 0);
  xenbus_close(&device);
}

static void back(const char *text) {
  struct xenbus_device device;
  char path[64];
  xen_snprintf(path, sizeof path, "backend/test/%u/0", (unsigned int)next_number(&text));
  check_equal("open", xenbus_open_backend(&device, path), 0);
  xenbus_switch_state(&device, XenbusStateInitWait);
  xenbus_wait(&device, XENBUS_STATE_BIT(XenbusStateInitialised), 0);
  xenbus_switch_state(&device, XenbusStateConnected);
  check("the front end closes", xenbus_wait(&device, XENBUS_STATE_BIT(XenbusStateClosing), 0) == XenbusStateClosing);
  xenbus_switch_state(&device, XenbusStateClosing);
  xenbus_wait(&device, XENBUS_STATE_BIT(XenbusStateClosed), 0);
  xenbus_switch_state(&device, XenbusStateClosed);
  xenbus_wait(&device, XENBUS_STATE_BIT(XenbusStateInitialising), 0);
  check_equal("and is ready again", xenbus_switch_state(&device, XenbusStateInitWait), 0);
  xenbus_close(&device);
}

void xen_main(const struct start_info *start) {
  const char *text = (const char *)start->cmd_line;
  if (*text == 'f') front();
  else if (*text == 'b') back(text + 5);
  else {
    nodes();
    permissions();
    watches();
    transactions();
  }
  finish();
}
