/* SPDX-License-Identifier: Apache-2.0 */
/* A reactor that makes bytes by itself, in a secret page and in ordinary memory, for secrets-target.ts. */
#include <xenolith/secrets.h>

#define EXPORT(name) __attribute__((export_name(#name)))
#define MARKER_BYTES 64u

static unsigned char ordinary[MARKER_BYTES];

/* What the test makes too, to look for it: a generator of 32 bits, its upper bytes. */
static void make(volatile unsigned char *bytes, uint32_t seed) {
  for (uint32_t i = 0; i < MARKER_BYTES; i++) {
    seed = seed * 1664525u + 1013904223u;
    bytes[i] = (unsigned char)(seed >> 24);
  }
}

/* Makes a marker in the middle of a secret page, offers the page to `user`; where it is, or 0. */
EXPORT(hide) uint32_t hide(uint32_t seed, uint32_t user) {
  void *address;
  int id = secret_alloc(2, &address);
  if (id != 0 || secret_share(0, (domid_t)user, XENSECRET_READONLY) != 0) return 0;
  volatile unsigned char *bytes = (volatile unsigned char *)address + XEN_PAGE_SIZE / 2;
  make(bytes, seed);
  return (uint32_t)(uintptr_t)bytes;
}

/* Accepts what `owner` offers as its secret `id`; where the marker is, or 0. */
EXPORT(use) uint32_t use(uint32_t owner, uint32_t owner_id) {
  void *address;
  int id = secret_accept((domid_t)owner, owner_id);
  if (id < 0 || secret_map((uint32_t)id, 0, 2, XENSECRET_READONLY, &address) != 0) return 0;
  return (uint32_t)(uintptr_t)address + XEN_PAGE_SIZE / 2;
}

/* Makes a marker in ordinary memory; where it is. */
EXPORT(show) uint32_t show(uint32_t seed) {
  make(ordinary, seed);
  return (uint32_t)(uintptr_t)ordinary;
}

EXPORT(sum) uint32_t sum(uint32_t at) {
  uint32_t sum = 0;
  const volatile unsigned char *bytes = (const volatile unsigned char *)(uintptr_t)at;
  for (uint32_t i = 0; i < MARKER_BYTES; i++) sum = sum * 31 + bytes[i];
  return sum;
}

EXPORT(release) int release(uint32_t id) { return secret_release(id); }
