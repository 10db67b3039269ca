/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that makes hypercalls with random numbers, commands and arguments for ever: half of them likely (small ids,
 * structs inside memory), half of them anything. What it draws follows from the seed in its command line. A call that
 * ends the domain is as welcome as any other; the control domain starts the next guest.
 */
#include <xenolith/guest.h>

#define ARENA 0x80000000u
#define ARENA_PAGES 64
#define STRUCT_WORDS 40

static uint32_t state;
static uint32_t words[STRUCT_WORDS + 64];

static uint32_t draw(void) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

static uint32_t below(uint32_t limit) { return draw() % limit; }

static const uint32_t edges[] = {0,          1,          2,          7,          31,         32,         255,        256,
                                 511,        512,        1023,       1024,       4095,       4096,       0x7fef,     0x7ff0,
                                 0x7ff1,     0x7ff4,     0x7fff,     0x8000,     0xffff,     0x10000,    0xfffff,    0x100000,
                                 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0xfffffffc, 0xfffff000, 0x80000fff, 0x7ffffffc};

static uint32_t number(void) {
  switch (below(4)) {
    case 0: return draw();
    case 1: return edges[below(sizeof edges / sizeof edges[0])];
    case 2: return ARENA / 4096 + below(ARENA_PAGES);
    default: return below(40);
  }
}

static uint32_t pointer(void) {
  switch (below(8)) {
    case 0: return draw();
    case 1: return edges[below(sizeof edges / sizeof edges[0])];
    case 2: return ARENA + below(ARENA_PAGES) * 4096 + below(4096);
    default: return (uint32_t)(uintptr_t)words;
  }
}

static void fill(void) {
  for (uint32_t i = 0; i < STRUCT_WORDS + 64; i++) words[i] = number();
  /* A likely reservation: list inside memory, few extents, small order, ourselves. */
  if (below(2)) {
    words[0] = (uint32_t)(uintptr_t)(words + STRUCT_WORDS);
    words[1] = below(16);
    words[2] = below(4);
    words[3] = 0;
    words[4] = DOMID_SELF;
  }
}

static const uint8_t numbers[] = {12, 12, 12, 13, 15, 17, 18, 24, 29, 32, 32, 32, 33, 34, 35, 36, 20, 21, 27, 37, 41, 48, 99};

static void call(void) {
  uint32_t number_ = below(16) ? numbers[below(sizeof numbers)] : below(64);
  uint32_t cmd = below(8) ? below(32) : number();
  /* Few of the calls that end or stop us for long. */
  if (number_ == 29 && cmd != 0 && below(32)) cmd = 3;
  if (number_ == 29 && cmd == 1) return;
  if (number_ == 24 && cmd == 2 && below(64)) cmd = 3;
  fill();
  /* A deadline that has passed; without one, poll sleeps until an event comes. */
  if (number_ == 29 && cmd == 3) words[2] = 1, words[3] = 0;
  /* The interface versions, without which no control operation is looked at. */
  if (number_ == 35) words[1] = 0x16;
  if (number_ == 36) words[1] = 0x18;
  if (number_ == 29 && cmd == 3) xen_hypercall(29, cmd, (uint32_t)(uintptr_t)words, 0, 0, 0);
  else if (number_ == 18) xen_hypercall(18, below(3), below(200), pointer(), 0, 0);
  else if (number_ == 24) xen_hypercall(24, cmd, below(3), pointer(), 0, 0);
  else if (number_ == 13) xen_hypercall(13, pointer(), below(20), 0, 0, 0);
  else if (number_ == 15) xen_hypercall(15, number(), below(4) ? 0 : draw(), 0, 0, 0);
  else xen_hypercall(number_, number_ == 35 || number_ == 36 ? pointer() : cmd, pointer(), number(), number(), number());
}

static uint32_t seed_of(const char *text) {
  uint32_t value = 2463534242u;
  while (*text) value = value * 31 + (uint8_t)*text++;
  return value ? value : 1;
}

void xen_main(const struct start_info *start) {
  state = seed_of((const char *)start->cmd_line);
  for (;;) call();
}
