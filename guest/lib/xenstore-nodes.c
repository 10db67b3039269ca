/* SPDX-License-Identifier: Apache-2.0 */
/* The requests of the xenstore client: nodes, permissions, transactions. See <xenolith/xenstore.h>. */
#include "xenstore-client.h"

#define PERMISSION_BYTES 8

/* ---- nodes ---- */

int xenstore_read(xenstore_tx_t tx, const char *path, char *value, size_t size) {
  struct piece pieces[] = {xenstore_text(path)};
  return xenstore_ask(XS_READ, tx, pieces, 1, value, size);
}

int xenstore_read_number(xenstore_tx_t tx, const char *path, uint32_t *value) {
  char digits[NUMBER_BYTES];
  int length = xenstore_read(tx, path, digits, sizeof digits);
  if (length < 0) return length;
  return length < NUMBER_BYTES && parse_number(digits, value) ? 0 : -XEN_EINVAL;
}

int xenstore_write(xenstore_tx_t tx, const char *path, const void *value, size_t length) {
  struct piece pieces[] = {xenstore_text(path), {value, length}};
  return xenstore_command(XS_WRITE, tx, pieces, 2);
}

int xenstore_write_string(xenstore_tx_t tx, const char *path, const char *value) {
  return xenstore_write(tx, path, value, text_length(value));
}

int xenstore_write_number(xenstore_tx_t tx, const char *path, uint32_t value) {
  char digits[NUMBER_BYTES];
  int length = xen_snprintf(digits, sizeof digits, "%u", (unsigned int)value);
  return xenstore_write(tx, path, digits, (size_t)length);
}

int xenstore_mkdir(xenstore_tx_t tx, const char *path) {
  struct piece pieces[] = {xenstore_text(path)};
  return xenstore_command(XS_MKDIR, tx, pieces, 1);
}

int xenstore_rm(xenstore_tx_t tx, const char *path) {
  struct piece pieces[] = {xenstore_text(path)};
  return xenstore_command(XS_RM, tx, pieces, 1);
}

/* A directory too big for one message, in parts; each begins with the generation of the list that it is of. */
static int directory_parts(xenstore_tx_t tx, const char *path, char *names, size_t size) {
  char part[XENSTORE_PAYLOAD_MAX + 1], generation[24] = "", offset[NUMBER_BYTES];
  size_t total = 0;
  for (;;) {
    xen_snprintf(offset, sizeof offset, "%u", (unsigned int)total);
    struct piece pieces[] = {xenstore_text(path), xenstore_text(offset)};
    int length = xenstore_ask(XS_DIRECTORY_PART, tx, pieces, 2, part, sizeof part);
    if (length < 0) return length;
    size_t at = text_length(part) + 1, count;
    if (at > (size_t)length || at > sizeof generation) return xenstore_broken();
    if (total > 0 && !text_equals(part, generation)) {
      total = 0;
      continue;
    }
    __builtin_memcpy(generation, part, at);
    count = (size_t)length - at;
    /* An empty name ends the list. */
    _Bool last = count == 0 || (part[length - 1] == 0 && (count == 1 || part[length - 2] == 0));
    if (last && count > 0) count--;
    for (size_t i = 0; i < count && total + i < size; i++) names[total + i] = part[at + i];
    total += count;
    if (last) return (int)total;
  }
}

int xenstore_directory(xenstore_tx_t tx, const char *path, char *names, size_t size) {
  struct piece pieces[] = {xenstore_text(path)};
  int status = xenstore_ask(XS_DIRECTORY, tx, pieces, 1, names, size);
  return status == -XEN_E2BIG ? directory_parts(tx, path, names, size) : status;
}

const char *xenstore_next_name(const char *names, size_t length, const char *name) {
  size_t at = name == NULL ? 0 : (size_t)(name - names) + text_length(name) + 1;
  return at < length ? names + at : NULL;
}

int xenstore_get_permissions(xenstore_tx_t tx, const char *path, struct xenstore_permission *list, uint32_t count_max) {
  char answer[XENSTORE_PAYLOAD_MAX + 1];
  struct piece pieces[] = {xenstore_text(path)};
  int length = xenstore_ask(XS_GET_PERMS, tx, pieces, 1, answer, sizeof answer), count = 0;
  if (length < 0) return length;
  for (const char *at = xenstore_next_name(answer, (size_t)length, NULL); at != NULL;
       at = xenstore_next_name(answer, (size_t)length, at), count++) {
    uint32_t domid;
    if (!parse_number(at + 1, &domid)) return -XEN_EINVAL;
    if ((uint32_t)count < count_max) list[count] = (struct xenstore_permission){(domid_t)domid, *at};
  }
  return count;
}

int xenstore_set_permissions(xenstore_tx_t tx, const char *path, const struct xenstore_permission *list,
                             uint32_t count) {
  char words[32 * PERMISSION_BYTES];
  size_t length = 0;
  if (count == 0 || count > 32) return -XEN_EINVAL;
  for (uint32_t i = 0; i < count; i++)
    length += (size_t)xen_snprintf(words + length, PERMISSION_BYTES, "%c%u", list[i].access,
                                   (unsigned int)list[i].domid) + 1;
  struct piece pieces[] = {xenstore_text(path), {words, length}};
  return xenstore_command(XS_SET_PERMS, tx, pieces, 2);
}

int xenstore_domain_path(domid_t domid, char *path, size_t size) {
  char digits[NUMBER_BYTES];
  xen_snprintf(digits, sizeof digits, "%u", (unsigned int)domid);
  struct piece pieces[] = {xenstore_text(digits)};
  int length = xenstore_ask(XS_GET_DOMAIN_PATH, XENSTORE_NO_TX, pieces, 1, path, size);
  /* This answer has a terminator of its own. */
  return length > 0 ? length - 1 : length;
}

int xenstore_domid(void) {
  uint32_t domid;
  int status = xenstore_read_number(XENSTORE_NO_TX, "domid", &domid);
  return status < 0 ? status : (int)domid;
}

/* ---- transactions ---- */

int xenstore_transaction_start(xenstore_tx_t *tx) {
  char digits[NUMBER_BYTES];
  struct piece pieces[] = {xenstore_text("")};
  int length = xenstore_ask(XS_TRANSACTION_START, XENSTORE_NO_TX, pieces, 1, digits, sizeof digits);
  if (length < 0) return length;
  return parse_number(digits, tx) && *tx != XENSTORE_NO_TX ? 0 : -XEN_EIO;
}

int xenstore_transaction_end(xenstore_tx_t tx, _Bool commit) {
  struct piece pieces[] = {xenstore_text(commit ? "T" : "F")};
  return xenstore_command(XS_TRANSACTION_END, tx, pieces, 1);
}

int xenstore_transact(int (*body)(xenstore_tx_t tx, void *context), void *context) {
  xenstore_tx_t tx;
  int status = -XEN_EAGAIN;
  for (unsigned int attempt = 0; attempt < XENSTORE_ATTEMPTS_MAX && status == -XEN_EAGAIN; attempt++) {
    if ((status = xenstore_transaction_start(&tx)) < 0) return status;
    status = body(tx, context);
    int ended = xenstore_transaction_end(tx, status >= 0);
    if (status >= 0 && ended < 0) status = ended;
  }
  return status;
}
