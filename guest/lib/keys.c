/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: the wrappers of key_op. */
#include <xenolith/hypercall.h>
#include <xenolith/keys.h>

/* What the length of a text is that no key can have: the hypervisor refuses it. */
#define TOO_LONG (XENKEY_DESCRIPTION_MAX + 1u)

/* Not strlen: without a libc there is none. */
static uint32_t length_of(const char *text) {
  uint32_t length = 0;
  while (length < TOO_LONG && text[length] != 0) length++;
  return length;
}

static XEN_GUEST_HANDLE(char) text_at(const char *text) { return (XEN_GUEST_HANDLE(char)){(char *)(uintptr_t)text}; }
static XEN_GUEST_HANDLE(void) bytes_at(const void *bytes) { return (XEN_GUEST_HANDLE(void)){(void *)(uintptr_t)bytes}; }

static key_serial_t add(const char *type, const char *description, const void *payload, uint32_t length, uint32_t flags,
                        key_serial_t ring) {
  struct xen_key_add op = {.type = text_at(type),
                           .type_len = length_of(type),
                           .description = text_at(description),
                           .description_len = length_of(description),
                           .payload = bytes_at(payload),
                           .payload_len = length,
                           .flags = flags,
                           .ring = ring};
  return HYPERVISOR_key_op(XENKEY_add, &op);
}

key_serial_t key_add(const char *type, const char *description, const void *payload, uint32_t length, key_serial_t ring) {
  return add(type, description, payload, length, 0, ring);
}

key_serial_t key_add_secret(const char *type, const char *description, const void *payload, uint32_t length,
                            key_serial_t ring) {
  return add(type, description, payload, length, XENKEYF_secret_payload, ring);
}

static int update(key_serial_t key, const void *payload, uint32_t length, uint32_t flags) {
  struct xen_key_update op = {.key = key, .payload = bytes_at(payload), .payload_len = length, .flags = flags};
  return HYPERVISOR_key_op(XENKEY_update, &op);
}

int key_update(key_serial_t key, const void *payload, uint32_t length) { return update(key, payload, length, 0); }

int key_update_secret(key_serial_t key, const void *payload, uint32_t length) {
  return update(key, payload, length, XENKEYF_secret_payload);
}

key_serial_t key_request(const char *type, const char *description, const char *callout, key_serial_t ring) {
  struct xen_key_request op = {.type = text_at(type),
                               .type_len = length_of(type),
                               .description = text_at(description),
                               .description_len = length_of(description),
                               .callout = text_at(callout),
                               .callout_len = callout == NULL ? 0 : length_of(callout),
                               .flags = callout == NULL ? 0 : XENKEYF_callout,
                               .ring = ring};
  return HYPERVISOR_key_op(XENKEY_request, &op);
}

key_serial_t key_search(key_serial_t ring, const char *type, const char *description, key_serial_t destination) {
  struct xen_key_search op = {.ring = ring,
                              .type = text_at(type),
                              .type_len = length_of(type),
                              .description = text_at(description),
                              .description_len = length_of(description),
                              .destination = destination};
  return HYPERVISOR_key_op(XENKEY_search, &op);
}

static int read_into(key_serial_t key, void *buffer, uint32_t length, uint32_t flags) {
  struct xen_key_read op = {.key = key, .buffer = bytes_at(buffer), .length = length, .flags = flags};
  return HYPERVISOR_key_op(XENKEY_read, &op);
}

int key_read(key_serial_t key, void *buffer, uint32_t length) { return read_into(key, buffer, length, 0); }

int key_read_ordinary(key_serial_t key, void *buffer, uint32_t length) {
  return read_into(key, buffer, length, XENKEYF_ordinary_memory);
}

int key_describe(key_serial_t key, char *buffer, uint32_t length) {
  struct xen_key_describe op = {.key = key, .buffer = text_at(buffer), .length = length};
  return HYPERVISOR_key_op(XENKEY_describe, &op);
}

static int on_key(unsigned int command, key_serial_t key) {
  struct xen_key_id op = {.key = key};
  return HYPERVISOR_key_op(command, &op);
}

int key_revoke(key_serial_t key) { return on_key(XENKEY_revoke, key); }
int key_invalidate(key_serial_t key) { return on_key(XENKEY_invalidate, key); }
int key_clear(key_serial_t ring) { return on_key(XENKEY_clear, ring); }

int key_set_timeout(key_serial_t key, uint32_t seconds) {
  struct xen_key_set_timeout op = {.key = key, .seconds = seconds};
  return HYPERVISOR_key_op(XENKEY_set_timeout, &op);
}

static int on_link(unsigned int command, key_serial_t key, key_serial_t ring) {
  struct xen_key_link op = {.key = key, .ring = ring};
  return HYPERVISOR_key_op(command, &op);
}

int key_link(key_serial_t key, key_serial_t ring) { return on_link(XENKEY_link, key, ring); }
int key_unlink(key_serial_t key, key_serial_t ring) { return on_link(XENKEY_unlink, key, ring); }

key_serial_t key_get_keyring_id(key_serial_t ring, _Bool create) {
  struct xen_key_get_keyring_id op = {.ring = ring, .flags = create ? XENKEYF_create : 0};
  return HYPERVISOR_key_op(XENKEY_get_keyring_id, &op);
}

key_serial_t key_join_session(const char *name) {
  struct xen_key_join_session op = {.name = text_at(name),
                                    .name_len = name == NULL ? 0 : length_of(name),
                                    .flags = name == NULL ? 0 : XENKEYF_named};
  return HYPERVISOR_key_op(XENKEY_join_session, &op);
}
