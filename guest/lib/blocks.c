/* SPDX-License-Identifier: Apache-2.0 */
/* Small memory for the library's records: blocks of 32 bytes to half a page in lists by size, whole pages above that. */
#include "internal.h"

#define SMALLEST_LOG2 5
#define CLASS_COUNT 7
#define BLOCK_BYTES_MAX (1u << (SMALLEST_LOG2 + CLASS_COUNT - 1))

struct free_block {
  struct free_block *next;
};

static struct free_block *lists[CLASS_COUNT];

static unsigned int class_of(size_t size) {
  unsigned int class = 0;
  while (size > 1u << (SMALLEST_LOG2 + class)) class++;
  return class;
}

static uint32_t pages_of(size_t size) { return (uint32_t)((size + XEN_PAGE_SIZE - 1) >> XEN_PAGE_SHIFT); }

static void cut(char *page, unsigned int class) {
  size_t size = 1u << (SMALLEST_LOG2 + class);
  for (size_t at = 0; at < XEN_PAGE_SIZE; at += size) {
    struct free_block *block = (struct free_block *)(page + at);
    block->next = lists[class];
    lists[class] = block;
  }
}

void *xen_block_alloc(size_t size) {
  if (size > BLOCK_BYTES_MAX) return xen_pages_alloc_run(pages_of(size));
  unsigned int class = class_of(size);
  if (lists[class] == NULL) {
    char *page = xen_pages_alloc(0);
    if (page == NULL) return NULL;
    cut(page, class);
  }
  struct free_block *block = lists[class];
  lists[class] = block->next;
  return __builtin_memset(block, 0, 1u << (SMALLEST_LOG2 + class));
}

void xen_block_free(void *memory, size_t size) {
  struct free_block *block = memory;
  if (block == NULL) return;
  if (size > BLOCK_BYTES_MAX) {
    xen_pages_free_run(memory, pages_of(size));
    return;
  }
  block->next = lists[class_of(size)];
  lists[class_of(size)] = block;
}
