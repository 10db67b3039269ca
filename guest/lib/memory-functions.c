/* SPDX-License-Identifier: Apache-2.0 */
/* memcpy and friends for guests that link no libc: the compiler may call them whatever the source says. */
#include <stddef.h>

__attribute__((weak)) void *memcpy(void *restrict to, const void *restrict from, size_t length) {
  __builtin_memcpy(to, from, length);
  return to;
}

__attribute__((weak)) void *memmove(void *to, const void *from, size_t length) {
  __builtin_memmove(to, from, length);
  return to;
}

__attribute__((weak)) void *memset(void *to, int byte, size_t length) {
  __builtin_memset(to, byte, length);
  return to;
}

__attribute__((weak)) int memcmp(const void *left, const void *right, size_t length) {
  const unsigned char *a = left, *b = right;
  for (size_t i = 0; i < length; i++)
    if (a[i] != b[i]) return a[i] - b[i];
  return 0;
}

__attribute__((weak)) size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length] != 0) length++;
  return length;
}
