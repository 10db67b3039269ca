/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose vCPUs make every secret_op there is with arguments at random, out of structs that they all change while
 * the calls read them.
 *
 *   command line: a seed, the calls of each vCPU
 */
#include "c-check.h"
#include <xenolith/secrets.h>

#define VCPUS 4u
#define GFN 0x80000u
#define WORDS 11u

static char stacks[VCPUS][16384] __attribute__((aligned(16)));
/* One for all: what one vCPU asks for another changes. */
static volatile uint32_t structs[2][WORDS];
static uint32_t seed, calls;
static uint32_t ended, allowed;

static uint32_t next_random(uint32_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return *state;
}

/* A number that could mean something, or one that does not. */
static uint32_t any(uint32_t *state) {
  uint32_t random = next_random(state);
  switch (random >> 29) {
    case 0: return GFN + (random & 15);
    case 1: return random & 0xff;
    case 2: return random;
    case 3: return 1;
    case 4: return 0;
    default: return random & 7;
  }
}

static void *argument(uint32_t *state) {
  switch (next_random(state) & 15) {
    case 0: return (void *)(uintptr_t)next_random(state);
    case 1: return (void *)(uintptr_t)((GFN + (next_random(state) & 15)) << 12);
    case 2: return (void *)(uintptr_t)0xfffffffcu;
    default: return (void *)structs[next_random(state) & 1];
  }
}

static void hammer(uint32_t vcpu) {
  uint32_t state = seed + vcpu * 2654435761u;
  if (state == 0) state = 1;
  for (uint32_t call = 0; call < calls; call++) {
    volatile uint32_t *words = structs[next_random(&state) & 1];
    for (uint32_t word = 0; word < WORDS; word++) words[word] = any(&state);
    uint32_t command = next_random(&state) % 11;
    /* Objects, and mappings of them, are made more often than they are ended. */
    if (command > 8) command = next_random(&state) & 1;
    if (HYPERVISOR_secret_op(command, argument(&state)) == 0) __atomic_add_fetch(&allowed, 1, __ATOMIC_RELAXED);
  }
  __atomic_add_fetch(&ended, 1, __ATOMIC_SEQ_CST);
}

__attribute__((export_name("xen_vcpu_start"))) void xen_vcpu_start(uint32_t vcpu, uint32_t argument) {
  (void)argument;
  hammer(vcpu);
  HYPERVISOR_vcpu_op(VCPUOP_down, vcpu, NULL);
  for (;;) HYPERVISOR_sched_op(SCHEDOP_block, NULL);
}

void xen_main(const struct start_info *start) {
  const char *text = (const char *)start->cmd_line;
  seed = next_number(&text);
  calls = next_number(&text);
  xen_printk("begins\n");
  for (uint32_t vcpu = 1; vcpu < VCPUS; vcpu++) {
    /* struct vcpu_hvm_context of a 32-bit vCPU: esp. */
    static uint32_t context[64];
    context[6] = (uint32_t)(uintptr_t)(stacks[vcpu] + sizeof(stacks[vcpu]));
    if (HYPERVISOR_vcpu_op(VCPUOP_initialise, vcpu, context) == 0) HYPERVISOR_vcpu_op(VCPUOP_up, vcpu, NULL);
  }
  hammer(0);
  while (__atomic_load_n(&ended, __ATOMIC_SEQ_CST) < VCPUS) xen_sleep_until(xen_time_ns() + 1000000);
  xen_printk("made %u calls, %u were allowed\n", VCPUS * calls, (unsigned int)allowed);
}
