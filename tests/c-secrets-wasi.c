/* SPDX-License-Identifier: Apache-2.0 */
/* Secret memory in a WASI program: plain loads and stores reach it, no function of WASI does. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xenolith/secrets.h>

static void check(const char *name, int holds) { printf("%s %s\n", holds ? "ok" : "FAILED", name); }

/* Whether a call failed with EFAULT. */
static int faults(long result) { return result < 0 && errno == EFAULT; }

int main(void) {
  void *address = NULL;
  int id = secret_alloc(1, &address);
  char *page = address;
  check("a secret is made", id >= 0);
  memcpy(page, "correct horse", 14);
  check("the library copies it", strlen(page) == 13 && memcmp(page, "correct", 7) == 0);
  check("it is not written to a file", faults(write(1, page, 13)));
  struct iovec mixed[2] = {{"", 0}, {page, 13}};
  check("nor as a part of something", faults(writev(1, mixed, 2)));
  check("nor read into", faults(read(0, page, 13)));
  check("nor a place for random bytes", getentropy(page, 13) != 0);
  check("nor the list of what is to be written", faults(writev(1, (struct iovec *)page, 1)));
  check("it is as it was", strcmp(page, "correct horse") == 0);
  check("it is sealed", secret_seal((uint32_t)id) == 0);
  check("it is given up", secret_release((uint32_t)id) == 0);
  return 0;
}
