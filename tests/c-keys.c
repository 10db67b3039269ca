/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of c-keys.test.ts. Its command line says what it does:
 *
 *   checks        every call of <xenolith/keys.h>, by itself
 *   hold DESC     has the key built and its payload in a secret page, says what it has, and stays
 *   plain DESC    the same in ordinary memory: what a memory scan finds
 *   ask DESC      asks for the key with the callout "please" and says the answer
 *   spy SERIAL    tries everything on another domain's key
 *   many DESC     eight vCPUs ask for one key at once
 *   use DESC      uses a key that it was given, until that is taken back
 */
#include "c-check.h"
#include <xenolith/hypercall.h>
#include <xenolith/keys.h>
#include <xenolith/secret_op.h>

#define VCPUS 8

static char ordinary[40960] __attribute__((aligned(4096)));
static uint8_t stacks[VCPUS][8192] __attribute__((aligned(16)));
static volatile int answers[VCPUS];
static const char *wanted;

static void *secret_page(void) {
  struct xen_secret_allocate object = {.pages = 1};
  int status = HYPERVISOR_secret_op(XENSECRET_allocate, &object);
  void *page = xen_holes_alloc(1);
  struct xen_secret_map map = {.id = object.id, .gfn = (uint32_t)(uintptr_t)page >> XEN_PAGE_SHIFT, .pages = 1};
  if (status == 0) status = HYPERVISOR_secret_op(XENSECRET_map, &map);
  if (status != 0) xen_printk("no secret page: %d\n", status);
  return page;
}

static _Bool same(const char *a, const char *b, uint32_t length) {
  for (uint32_t i = 0; i < length; i++)
    if (a[i] != b[i]) return 0;
  return 1;
}

/* FNV-1a: says what is there without saying it. */
static uint32_t hash(const char *bytes, int length) {
  uint32_t value = 2166136261u;
  for (int i = 0; i < length; i++) value = (value ^ (uint8_t)bytes[i]) * 16777619u;
  return value;
}

static _Noreturn void stay(void) {
  for (;;) HYPERVISOR_sched_op(SCHEDOP_block, NULL);
}

static void hold(const char *description, _Bool is_secret) {
  char *buffer = is_secret ? secret_page() : ordinary;
  key_serial_t key = key_request("user", description, "", 0);
  int length = is_secret ? key_read(key, buffer, 4096) : key_read_ordinary(key, buffer, 4096);
  xen_printk("key %d: %d bytes, %x\n", key, length, hash(buffer, length));
  stay();
}

static void check_lengths(char *secret) {
  static char text[4200];
  for (uint32_t i = 0; i < sizeof(text) - 1; i++) text[i] = 'x';
  text[XENKEY_DESCRIPTION_MAX + 1] = 0;
  check_equal("a description that is one too long", key_add("user", text, "1", 1, XENKEY_SESSION_KEYRING), -XEN_EINVAL);
  check_equal("a callout that is one too long", key_request("user", "x", text, 0), -XEN_EINVAL);
  text[XENKEY_DESCRIPTION_MAX] = 0;
  key_serial_t longest = key_add("user", text, "1", 1, XENKEY_SESSION_KEYRING);
  check("the longest description", longest > 0);
  check_equal("ends", key_unlink(longest, XENKEY_SESSION_KEYRING), 0);
  text[32] = 0;
  check_equal("a type that is one too long", key_add(text, "x", "1", 1, XENKEY_SESSION_KEYRING), -XEN_EINVAL);
  text[31] = 0;
  check_equal("the longest type, which there is not", key_add(text, "x", "1", 1, XENKEY_SESSION_KEYRING), -XEN_ENODEV);
  check_equal("no type", key_add("", "x", "1", 1, XENKEY_SESSION_KEYRING), -XEN_EINVAL);
  check_equal("a type of the service", key_add(".request_key_auth", "x", "1", 1, -3), -XEN_EPERM);
  check_equal("no payload", key_add("user", "x", "", 0, XENKEY_SESSION_KEYRING), -XEN_EINVAL);
  check_equal("a payload over the quota", key_add("user", "x", ordinary, 32767, XENKEY_SESSION_KEYRING), -XEN_EDQUOT);
  check_equal("over the type's limit", key_add("user", "x", ordinary, 32768, XENKEY_SESSION_KEYRING), -XEN_EINVAL);
  check_equal("a payload off the end", key_add("user", "x", (void *)0xfffffffcu, 8, -3), -XEN_EFAULT);
  check_equal("a payload longer than any", key_add("user", "x", ordinary, 0xffffffff, -3), -XEN_EINVAL);
  check_equal("an ordinary payload as secret", key_add_secret("user", "x", ordinary, 8, -3), -XEN_EPERM);
  check_equal("a secret payload as ordinary", key_add("user", "x", secret, 8, -3), -XEN_EFAULT);
  check_equal("a struct off the end", HYPERVISOR_key_op(XENKEY_add, (void *)0xfffffff0u), -XEN_EFAULT);
  check_equal("a struct in a secret page", HYPERVISOR_key_op(XENKEY_read, secret), -XEN_EFAULT);
  check_equal("no such command", HYPERVISOR_key_op(14, ordinary), -XEN_ENOSYS);
}

static void check_rings(void) {
  check_equal("no thread keyring", key_get_keyring_id(XENKEY_THREAD_KEYRING, 0), -XEN_ENOKEY);
  check("until one is made", key_get_keyring_id(XENKEY_THREAD_KEYRING, 1) > 0);
  key_serial_t ring = key_add("keyring", "mine", NULL, 0, XENKEY_SESSION_KEYRING);
  check("a keyring", ring > 0);
  key_serial_t key = key_add("user", "in mine", "abc", 3, ring);
  check_equal("search", key_search(ring, "user", "in mine", 0), key);
  check_equal("search for what is not there", key_search(ring, "user", "nothing", 0), -XEN_ENOKEY);
  check_equal("link", key_link(key, XENKEY_PROCESS_KEYRING), 0);
  check_equal("a circle", key_link(XENKEY_SESSION_KEYRING, ring), -XEN_EDEADLK);
  int32_t list[4];
  check_equal("a keyring is a list", key_read_ordinary(ring, list, sizeof(list)), 4);
  check_equal("of its keys", list[0], key);
  check_equal("clear", key_clear(ring), 0);
  check_equal("it is still in the other", key_search(XENKEY_PROCESS_KEYRING, "user", "in mine", 0), key);
  check_equal("unlink", key_unlink(key, XENKEY_PROCESS_KEYRING), 0);
  check_equal("nobody has it", key_read_ordinary(key, list, sizeof(list)), -XEN_ENOKEY);
  check("another session", key_join_session("work") > 0);
  check("with the same name another one", key_join_session("work") > 0);
  check_equal("what was in the old one is gone", key_request("keyring", "mine", NULL, 0), -XEN_ENOKEY);
  check("a session without a name", key_join_session(NULL) > 0);
}

static void checks(void) {
  char *secret = secret_page();
  key_serial_t key = key_add("user", "db:mine", "first", 5, XENKEY_SESSION_KEYRING);
  check("add", key > 0);
  check_equal("request", key_request("user", "db:mine", NULL, 0), key);
  check_equal("read", key_read(key, secret, 4096), 5);
  check("what was added", same(secret, "first", 6));
  check_equal("read into ordinary memory", key_read(key, ordinary, 4096), -XEN_EPERM);
  check("nothing came", ordinary[0] == 0);
  check_equal("unless it is wanted", key_read_ordinary(key, ordinary, 4096), 5);
  check("so", same(ordinary, "first", 5));
  check_equal("read at the end of the page", key_read(key, secret + 4091, 5), 5);
  check_equal("and over it", key_read(key, secret + 4092, 5), -XEN_EPERM);
  check_equal("the size, when there is no room", key_read(key, secret, 4), 5);
  check_equal("update out of a secret page", key_update_secret(key, secret + 4091, 4), 0);
  check_equal("is shorter", key_read(key, secret, 4096), 4);
  check_equal("update", key_update(key, "second", 6), 0);
  check_equal("read", key_read(key, secret, 4096), 6);
  check("the second", same(secret, "second", 6));
  check("a key out of a secret page", key_add_secret("user", "db:copy", secret, 6, XENKEY_SESSION_KEYRING) > 0);
  check("describe", key_describe(key, ordinary, sizeof(ordinary)) > 20 && same(ordinary, "user;", 5));
  check("logon", key_add("logon", "tls:cert", "12345", 5, XENKEY_SESSION_KEYRING) > 0);
  check_equal("nobody reads that", key_read(key_request("logon", "tls:cert", NULL, 0), secret, 64), -XEN_EOPNOTSUPP);
  check_equal("a timeout", key_set_timeout(key, 1000), 0);
  check_equal("none", key_set_timeout(key, 0), 0);
  check_equal("revoke", key_revoke(key), 0);
  check_equal("it is of no use", key_read(key, secret, 64), -XEN_EKEYREVOKED);
  key = key_request("user", "db:copy", NULL, 0);
  check_equal("invalidate", key_invalidate(key), 0);
  check_equal("it is gone", key_read(key, secret, 64), -XEN_ENOKEY);
  check_lengths(secret);
  check_rings();
  finish();
}

static void spy(key_serial_t key) {
  char *secret = secret_page();
  check_equal("find", key_request("user", "db:orders", NULL, 0), -XEN_ENOKEY);
  check_equal("read", key_read(key, secret, 4096), -XEN_ENOKEY);
  check_equal("describe", key_describe(key, ordinary, sizeof(ordinary)), -XEN_ENOKEY);
  check_equal("link", key_link(key, XENKEY_SESSION_KEYRING), -XEN_ENOKEY);
  check_equal("update", key_update(key, "x", 1), -XEN_ENOKEY);
  check_equal("revoke", key_revoke(key), -XEN_ENOKEY);
  check_equal("invalidate", key_invalidate(key), -XEN_ENOKEY);
  check_equal("unlink", key_unlink(key, XENKEY_SESSION_KEYRING), -XEN_ENOKEY);
  check_equal("set_timeout", key_set_timeout(key, 1), -XEN_ENOKEY);
  check_equal("search in it", key_search(key, "user", "db:orders", 0), -XEN_ENOKEY);
  check_equal("add to it", key_add("user", "x", "x", 1, key), -XEN_ENOKEY);
  check_equal("clear", key_clear(key), -XEN_ENOKEY);
  finish();
}

static void use(const char *description) {
  char *secret = secret_page();
  key_serial_t key = key_request("user", description, NULL, 0);
  check_equal("read", key_read(key, secret, 4096), 5);
  check("what was given", same(secret, "given", 6));
  check_equal("update", key_update(key, "x", 1), -XEN_EACCES);
  check_equal("revoke", key_revoke(key), -XEN_EACCES);
  check_equal("set_timeout", key_set_timeout(key, 1), -XEN_EACCES);
  check_equal("link", key_link(key, XENKEY_SESSION_KEYRING), -XEN_EACCES);
  xen_printk("used\n");
  while (key_request("user", description, NULL, 0) == key) {
  }
  check_equal("taken back", key_read(key, secret, 4096), -XEN_ENOKEY);
  finish();
}

__attribute__((export_name("xen_vcpu_start"))) void xen_vcpu_start(uint32_t vcpu, uint32_t argument) {
  answers[vcpu] = key_request("user", wanted, "", 0);
  HYPERVISOR_vcpu_op(VCPUOP_down, vcpu, NULL);
  stay();
}

static void many(void) {
  for (uint32_t vcpu = 1; vcpu < VCPUS; vcpu++) {
    /* struct vcpu_hvm_context of a 32-bit vCPU: esp. */
    static uint32_t context[64];
    context[6] = (uint32_t)(uintptr_t)(stacks[vcpu] + sizeof(stacks[vcpu]));
    if (HYPERVISOR_vcpu_op(VCPUOP_initialise, vcpu, context) == 0) HYPERVISOR_vcpu_op(VCPUOP_up, vcpu, NULL);
  }
  answers[0] = key_request("user", wanted, "", 0);
  for (uint32_t vcpu = 0; vcpu < VCPUS;)
    if (answers[vcpu] == 0) HYPERVISOR_sched_op(SCHEDOP_yield, NULL);
    else vcpu++;
  for (uint32_t vcpu = 1; vcpu < VCPUS; vcpu++) check_equal("the same key", answers[vcpu], answers[0]);
  check("a key", answers[0] > 0);
  finish();
}

void xen_main(const struct start_info *start) {
  const char *words = (const char *)start->cmd_line;
  wanted = words;
  while (*wanted != 0 && *wanted != ' ') wanted++;
  while (*wanted == ' ') wanted++;
  if (same(words, "checks", 6)) checks();
  else if (same(words, "hold", 4)) hold(wanted, 1);
  else if (same(words, "plain", 5)) hold(wanted, 0);
  else if (same(words, "spy", 3)) spy((key_serial_t)next_number(&wanted));
  else if (same(words, "many", 4)) many();
  else if (same(words, "use", 3)) use(wanted);
  else if (same(words, "ask", 3)) {
    xen_printk("asks\n");
    xen_printk("answer %d\n", key_request("user", wanted, "please", 0));
  }
}
