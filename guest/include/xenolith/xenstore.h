/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The xenstore, over the page and event channel that the domain was built with. The connection is made at the first call.
 *
 *   char name[64];
 *   if (xenstore_read(XENSTORE_NO_TX, "name", name, sizeof name) >= 0) xen_printk("I am %s\n", name);
 *
 * Paths are absolute, or relative to /local/domain/<own domid>. Calls return 0 (or what they say) or a negative errno: the
 * one that the store answered (-ENOENT, -EACCES, -ENOSPC, ...), -ENODEV without a store, -EIO once the store has broken
 * the protocol, -E2BIG for more than a message holds. A call sleeps until the answer is there, with upcalls off.
 */
#ifndef XENOLITH_XENSTORE_H
#define XENOLITH_XENSTORE_H

#include <xenolith/guest.h>
#include <xenolith/io/xs_wire.h>

typedef uint32_t xenstore_tx_t;
/* Outside any transaction. */
#define XENSTORE_NO_TX 0u

/* Connects, if that has not been done. */
int xenstore_init(void);
/* The event channel of the connection; 0 before it is made. */
evtchn_port_t xenstore_port(void);

/*
 * The value of a node: its whole length is returned; at most size - 1 bytes of it are stored, and a terminator (values
 * may hold zero bytes themselves).
 */
int xenstore_read(xenstore_tx_t tx, const char *path, char *value, size_t size);
/* A value that is a decimal number; -EINVAL when it is none. */
int xenstore_read_number(xenstore_tx_t tx, const char *path, uint32_t *value);
/* Creates the node, and those above it, when they do not exist. */
int xenstore_write(xenstore_tx_t tx, const char *path, const void *value, size_t length);
int xenstore_write_string(xenstore_tx_t tx, const char *path, const char *value);
int xenstore_write_number(xenstore_tx_t tx, const char *path, uint32_t value);
int xenstore_mkdir(xenstore_tx_t tx, const char *path);
/* The node and all below it. No error when the node does not exist but the one above it does. */
int xenstore_rm(xenstore_tx_t tx, const char *path);
/* Names of the nodes below, each with its terminator: their whole length is returned, as many as fit are stored. */
int xenstore_directory(xenstore_tx_t tx, const char *path, char *names, size_t size);
/* The name after `name` in such a list of `length` bytes, or the first for NULL; NULL: no more. */
const char *xenstore_next_name(const char *names, size_t length, const char *name);

/* Access: 'n' none, 'r' read, 'w' write, 'b' both. The first of a list is the owner, with what all others may. */
struct xenstore_permission {
  domid_t domid;
  char access;
};
/* How many there are; at most `count_max` are stored. */
int xenstore_get_permissions(xenstore_tx_t tx, const char *path, struct xenstore_permission *list, uint32_t count_max);
int xenstore_set_permissions(xenstore_tx_t tx, const char *path, const struct xenstore_permission *list,
                             uint32_t count);

/* /local/domain/<domid>: its length; stored as by xenstore_read. */
int xenstore_domain_path(domid_t domid, char *path, size_t size);
/* The domain's own id. */
int xenstore_domid(void);

/* ---- watches ---- */

#define XENSTORE_WATCHES_MAX 32

/* Something at or below a watched path may have changed: `path` says where. */
typedef void (*xenstore_watch_handler)(const char *path, void *context);

/*
 * Watches `path` (that stays in memory); returns the watch's number. With a handler it is called from the event loop, or
 * at the end of any xenstore call, one at a time; it may make such calls. When events come faster than they are handled, many
 * become one for the watched path itself. Without a handler they are counted for xenstore_watch_poll. There is one event at once.
 */
int xenstore_watch(const char *path, xenstore_watch_handler handler, void *context);
int xenstore_unwatch(int watch);
/* Events since the last time. */
unsigned int xenstore_watch_poll(int watch);
/* The same, but sleeps until there is one or `deadline_ns` of system time (0: none) has passed. */
unsigned int xenstore_watch_wait(int watch, uint64_t deadline_ns);

/* ---- transactions ---- */

/* -EAGAIN: somebody changed what it read or wrote; do all of it again. */
int xenstore_transaction_start(xenstore_tx_t *tx);
int xenstore_transaction_end(xenstore_tx_t tx, _Bool commit);
#define XENSTORE_ATTEMPTS_MAX 1000
/*
 * Calls `body` in a transaction and commits it, again and again while the answer is -EAGAIN (at most
 * XENSTORE_ATTEMPTS_MAX times). When `body` returns a negative errno the transaction is dropped and that is the result.
 */
int xenstore_transact(int (*body)(xenstore_tx_t tx, void *context), void *context);

#endif
