/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two guests and one secret page, which is also how they talk: the owner's word is at 0, the user's at 4.
 *
 *   command line of the owner: 1, the user's id
 *   command line of the user:  2, the owner's id
 *
 * The owner's number of the secret is 0, its first. The user is there first: an offer is to a domain that there is.
 */
#include "c-check.h"
#include <xenolith/secrets.h>

static uint32_t load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static void store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
static void wait_for(const uint32_t *word, uint32_t value) {
  while (load(word) != value) xen_sleep_until(xen_time_ns() + 1000000);
}

static void own(domid_t user) {
  void *address = NULL;
  int id = secret_alloc(2, &address);
  uint32_t *words = address;
  check("a secret is made", id >= 0);
  store(&words[0], 42);
  check_equal("it is offered", secret_share((uint32_t)id, user, 0), 0);
  check_equal("once", secret_share((uint32_t)id, user, 0), -XEN_EEXIST);
  check_equal("by the number 0", id, 0);
  wait_for(&words[1], 23);
  struct xen_secret_query query;
  secret_query((uint32_t)id, &query);
  check("it is shared now", (query.flags & XENSECRET_IS_SHARED) != 0);
  check_equal("it is taken back", secret_revoke((uint32_t)id, user), 0);
  secret_query((uint32_t)id, &query);
  check("it is shared no more", (query.flags & XENSECRET_IS_SHARED) == 0);
  store(&words[1], 0);
  /* Whatever the user writes now, it does not come here. */
  xen_sleep_until(xen_time_ns() + 50000000);
  check_equal("what the user writes then stays with the user", load(&words[1]), 0);
  check_equal("the owner still has it", load(&words[0]), 42);
  check_equal("it is offered for reading", secret_share((uint32_t)id, user, XENSECRET_READONLY), 0);
  store(&words[0], 43);
  secret_query((uint32_t)id, &query);
  while ((query.flags & XENSECRET_IS_SHARED) == 0) {
    xen_sleep_until(xen_time_ns() + 1000000);
    secret_query((uint32_t)id, &query);
  }
  xen_sleep_until(xen_time_ns() + 50000000);
  /* Ends with the secret mapped here and there. */
}

/* Accepts the owner's first object once it is offered. */
static int accept_soon(domid_t owner) {
  int id;
  while ((id = secret_accept(owner, 0)) == -XEN_ENOENT) xen_sleep_until(xen_time_ns() + 1000000);
  return id;
}

static void use(domid_t owner) {
  void *address = NULL, *second = NULL;
  /* The library's own records are there afterwards. */
  secret_release((uint32_t)secret_alloc(1, &address));
  int owned = xen_pages_current();
  xen_printk("waiting\n");
  int id = accept_soon(owner);
  check_equal("a secret that was not offered is not there", secret_accept(owner, 1), -XEN_ENOENT);
  check("an offer is accepted", id >= 0);
  check_equal("once", secret_accept(owner, 0), -XEN_ENOENT);
  check_equal("who accepted it does not seal it", secret_seal((uint32_t)id), -XEN_ENOENT);
  check_equal("nor share it on", secret_share((uint32_t)id, 30000, 0), -XEN_ENOENT);
  check_equal("nor take it back", secret_revoke((uint32_t)id, DOMID_INVALID), -XEN_ENOENT);
  check_equal("it is mapped for writing", secret_map((uint32_t)id, 0, 1, 0, &address), 0);
  check_equal("which costs a page", xen_pages_current(), owned + 1);
  check_equal("and for reading", secret_map((uint32_t)id, 0, 1, XENSECRET_READONLY, &second), 0);
  check_equal("which costs none", xen_pages_current(), owned + 1);
  uint32_t *words = address;
  check_equal("it says what its owner has written", load(&words[0]), 42);
  check_equal("both of its places do", load(second), 42);
  store(&words[1], 23);
  /* It is taken away while we use it. */
  while (load(&words[0]) == 42) words[2]++;
  check_equal("a page of our own is there then", load(&words[0]), 0);
  /* The other place may be a moment later. */
  wait_for(second, 0);
  store(&words[1], 99);
  store(&words[0], 7);
  check("which is nobody else's, and not that of the other place", load(second) == 0 && load(&words[0]) == 7);
  struct xen_secret_query query;
  secret_query((uint32_t)id, &query);
  check("it was revoked", (query.flags & XENSECRET_IS_REVOKED) != 0 && query.bytes_mapped == 0);
  void *third;
  check_equal("it is not mapped again", secret_map((uint32_t)id, 0, 1, 0, &third), -XEN_ENOENT);
  check_equal("it is given up", secret_release((uint32_t)id), 0);
  check_equal("and our page with it", xen_pages_current(), owned);
  id = accept_soon(owner);
  check_equal("an offer for reading is not mapped for writing", secret_map((uint32_t)id, 0, 1, 0, &third), -XEN_EPERM);
  check_equal("but for reading", secret_map((uint32_t)id, 0, 2, XENSECRET_READONLY, &third), 0);
  xen_printk("reading\n");
  /* Its owner ends. */
  wait_for(third, 0);
  check_equal("of a dead owner's secret nothing is left", load((uint32_t *)third + 1), 0);
  check_equal("nor of its place", secret_unmap(third), 0);
}

void xen_main(const struct start_info *start) {
  const char *words = (const char *)start->cmd_line;
  uint32_t role = next_number(&words);
  domid_t other = (domid_t)next_number(&words);
  if (role == 1) own(other);
  else use(other);
  finish();
}
