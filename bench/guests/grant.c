/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of the grant bench: what each command does is said in grant.bench.ts, whose list it is. */
#include "mailbox.h"
#include <xenolith/grants.h>

enum {
  GRANT = 1,
  MAP_CONTROL,
  MAP_ONE,
  MAP_RUN,
  HOLD,
  RELEASE,
  NULL_CALL,
  COPY,
  MAP_REVOKABLE,
  ARM,
  REVOKE,
  FOLLOW,
  UNMAP_REVOKABLE,
};

#define BATCH 512
#define HELD_MAX 32768
/* Where mappings go: one page, runs, what is held all the time, and the page for agreements with the granter. */
#define ONE 0x40000000u
#define RUN 0x42000000u
#define HELD 0x50000000u
#define CONTROL 0x3f000000u

static struct gnttab_map_grant_ref maps[BATCH];
static struct gnttab_unmap_grant_ref unmaps[BATCH];
static struct gnttab_map_revokable revokables[BATCH];
static struct gnttab_copy copies[BATCH];
static grant_handle_t held[HELD_MAX];
static uint32_t held_count;
/* Granter: the pages, from the first one granted. */
static char *pages;
/* Where copies go. */
static char *target;

static volatile uint32_t *word_at(uint32_t address) { return (volatile uint32_t *)(uintptr_t)address; }

static int grants(unsigned int command, void *operations, uint32_t count) {
  return HYPERVISOR_grant_table_op(command, operations, count);
}

/* (domid, count, step, flags): shares every step-th of a run of own pages; answers the first reference. */
static void grant(void) {
  uint32_t count = arg(1), step = arg(2);
  pages = xen_pages_alloc_run(count * step);
  require(pages != NULL);
  int first = -1;
  for (uint32_t i = 0; i < count; i++) {
    char *page = pages + i * step * XEN_PAGE_SIZE;
    *(volatile uint32_t *)page = 1;
    int ref = grant_access((domid_t)arg(0), (uint32_t)(uintptr_t)page >> XEN_PAGE_SHIFT, arg(3));
    if (i == 0) first = ref;
    require(ref == first + (int)i);
  }
  answer(0, (uint32_t)first);
  answer(1, (uintptr_t)pages);
}

static void set_map(struct gnttab_map_grant_ref *map, uint32_t address, domid_t domid, grant_ref_t ref, uint32_t flags) {
  *map = (struct gnttab_map_grant_ref){.host_addr = address, .flags = GNTMAP_host_map | flags, .ref = ref, .dom = domid};
}

static void map_run(uint32_t address, domid_t domid, grant_ref_t first, uint32_t count, uint32_t flags) {
  for (uint32_t i = 0; i < count; i++) set_map(&maps[i], address + i * XEN_PAGE_SIZE, domid, first + i, flags);
  grants(GNTTABOP_map_grant_ref, maps, count);
  for (uint32_t i = 0; i < count; i++) require(maps[i].status == GNTST_okay);
}

/* (domid, ref, turns): maps one page and unmaps it; answers the time of all turns. */
static void map_one(void) {
  set_map(maps, ONE, (domid_t)arg(0), arg(1), 0);
  unmaps[0] = (struct gnttab_unmap_grant_ref){.host_addr = ONE};
  uint64_t start = xen_time_ns();
  for (uint32_t turn = 0; turn < arg(2); turn++) {
    grants(GNTTABOP_map_grant_ref, maps, 1);
    unmaps[0].handle = maps[0].handle;
    grants(GNTTABOP_unmap_grant_ref, unmaps, 1);
  }
  answer(0, xen_time_ns() - start);
  require(maps[0].status == GNTST_okay && unmaps[0].status == GNTST_okay);
}

static uint32_t read_pages(uint32_t address, uint32_t count) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < count; i++) sum += *word_at(address + i * XEN_PAGE_SIZE);
  return sum;
}

static uint64_t map_time, read_time, unmap_time;

static void map_and_unmap(uint32_t count, _Bool touched) {
  uint64_t start = xen_time_ns();
  grants(GNTTABOP_map_grant_ref, maps, count);
  uint64_t mapped = xen_time_ns();
  uint32_t sum = touched ? read_pages(RUN, count) : count;
  uint64_t read = xen_time_ns();
  require(sum == count);
  for (uint32_t i = 0; i < count; i++) {
    require(maps[i].status == GNTST_okay);
    unmaps[i] = (struct gnttab_unmap_grant_ref){.host_addr = RUN + i * XEN_PAGE_SIZE, .handle = maps[i].handle};
  }
  uint64_t before = xen_time_ns();
  grants(GNTTABOP_unmap_grant_ref, unmaps, count);
  map_time += mapped - start;
  read_time += touched ? read - mapped : 0;
  unmap_time += xen_time_ns() - before;
  for (uint32_t i = 0; i < count; i++) require(unmaps[i].status == GNTST_okay);
}

/* (domid, first ref, count, whether to read each page, turns): answers the times of mapping, reading, unmapping. */
static void map_many(void) {
  uint32_t count = arg(2);
  for (uint32_t i = 0; i < count; i++) set_map(&maps[i], RUN + i * XEN_PAGE_SIZE, (domid_t)arg(0), arg(1) + i, 0);
  map_time = read_time = unmap_time = 0;
  for (uint32_t turn = 0; turn < arg(4); turn++) map_and_unmap(count, arg(3) != 0);
  answer(0, map_time);
  answer(1, read_time);
  answer(2, unmap_time);
}

/* (domid, first ref, count): maps and keeps them. */
static void hold(void) {
  for (uint32_t at = 0; at < arg(2); at += BATCH) {
    uint32_t count = arg(2) - at < BATCH ? arg(2) - at : BATCH;
    map_run(HELD + at * XEN_PAGE_SIZE, (domid_t)arg(0), arg(1) + at, count, 0);
    for (uint32_t i = 0; i < count; i++) held[at + i] = maps[i].handle;
  }
  held_count = arg(2);
}

static void release(void) {
  for (uint32_t at = 0; at < held_count; at += BATCH) {
    uint32_t count = held_count - at < BATCH ? held_count - at : BATCH;
    for (uint32_t i = 0; i < count; i++)
      unmaps[i] = (struct gnttab_unmap_grant_ref){.host_addr = HELD + (at + i) * XEN_PAGE_SIZE, .handle = held[at + i]};
    grants(GNTTABOP_unmap_grant_ref, unmaps, count);
    for (uint32_t i = 0; i < count; i++) require(unmaps[i].status == GNTST_okay);
  }
  held_count = 0;
}

/* (turns): the hypercall that does least. */
static void null_call(void) {
  uint64_t start = xen_time_ns();
  for (uint32_t turn = 0; turn < arg(0); turn++) HYPERVISOR_xen_version(XENVER_version, NULL);
  answer(0, xen_time_ns() - start);
}

static void set_copies(uint32_t count, uint16_t length) {
  if (target == NULL) target = xen_pages_alloc_run(BATCH);
  for (uint32_t i = 0; i < count; i++)
    copies[i] = (struct gnttab_copy){
        .source = {.u.ref = arg(1) + i, .domid = (domid_t)arg(0)},
        .dest = {.u.gmfn = ((uint32_t)(uintptr_t)target >> XEN_PAGE_SHIFT) + i, .domid = DOMID_SELF},
        .len = length,
        .flags = GNTCOPY_source_gref,
    };
}

/* (domid, first ref, count, bytes, turns): `count` copies a hypercall. */
static void copy(void) {
  uint32_t count = arg(2);
  set_copies(count, (uint16_t)arg(3));
  uint64_t start = xen_time_ns();
  for (uint32_t turn = 0; turn < arg(4); turn++) grants(GNTTABOP_copy, copies, count);
  answer(0, xen_time_ns() - start);
  for (uint32_t i = 0; i < count; i++) {
    require(copies[i].status == GNTST_okay);
    require(*(volatile uint32_t *)(target + i * XEN_PAGE_SIZE) == 1);
  }
}

/* (domid, first ref, count, flags): maps revokable grants and reads them. */
static void map_revokable(void) {
  uint32_t count = arg(2);
  for (uint32_t i = 0; i < count; i++) {
    set_map(&revokables[i].map, RUN + i * XEN_PAGE_SIZE, (domid_t)arg(0), arg(1) + i, arg(3));
    revokables[i].lgfn = ~0u;
  }
  grants(GNTTABOP_map_revokable, revokables, count);
  for (uint32_t i = 0; i < count; i++) require(revokables[i].map.status == GNTST_okay);
  require(read_pages(RUN, count) == count);
}

static void unmap_revokable(void) {
  uint32_t count = arg(0);
  require(read_pages(RUN, count) == 0);
  for (uint32_t i = 0; i < count; i++)
    unmaps[i] =
        (struct gnttab_unmap_grant_ref){.host_addr = RUN + i * XEN_PAGE_SIZE, .handle = revokables[i].map.handle};
  grants(GNTTABOP_unmap_grant_ref, unmaps, count);
  for (uint32_t i = 0; i < count; i++) require(unmaps[i].status == GNTST_okay);
}

static volatile struct grant_entry_v1 *entry_of(grant_ref_t ref) {
  /* Where the library has the table. */
  return (volatile struct grant_entry_v1 *)(uintptr_t)0xeffc0000u + ref;
}

/* (first ref, count): gives access again. */
static void arm(void) {
  for (uint32_t i = 0; i < arg(1); i++)
    __atomic_store_n(&entry_of(arg(0) + i)->flags, GTF_permit_access | GTF_revokable, __ATOMIC_SEQ_CST);
}

static void revoke_one(grant_ref_t ref) {
  struct gnttab_revoke op = {.ref = ref};
  __atomic_fetch_and(&entry_of(ref)->flags, (uint16_t)~GTF_type_mask, __ATOMIC_SEQ_CST);
  grants(GNTTABOP_revoke, &op, 1);
  require(op.status == GNTST_okay);
}

/* (first ref, count, address of the control word or 0): revokes one by one; with a control word each when the reader is there. */
static void revoke(void) {
  uint64_t sum = 0, start = xen_time_ns();
  for (uint32_t i = 0; i < arg(1); i++) {
    if (arg(2) != 0) {
      while (__atomic_load_n(word_at(arg(2)), __ATOMIC_SEQ_CST) != i + 1) continue;
      start = xen_time_ns();
    }
    revoke_one(arg(0) + i);
    if (arg(2) != 0) sum += xen_time_ns() - start;
  }
  answer(0, arg(2) != 0 ? sum : xen_time_ns() - start);
  if (arg(2) != 0) __atomic_store_n(word_at(arg(2)), 0, __ATOMIC_SEQ_CST);
}

/* (count): spins on each page until another one is there. */
static void follow(void) {
  for (uint32_t i = 0; i < arg(0); i++) {
    volatile uint32_t *word = word_at(RUN + i * XEN_PAGE_SIZE);
    (void)*word;
    __atomic_store_n(word_at(CONTROL), i + 1, __ATOMIC_SEQ_CST);
    while (*word != 0) continue;
  }
}

static void perform(uint32_t command) {
  switch (command) {
    case GRANT: grant(); break;
    case MAP_CONTROL: map_run(CONTROL, (domid_t)arg(0), arg(1), 1, 0); break;
    case MAP_ONE: map_one(); break;
    case MAP_RUN: map_many(); break;
    case HOLD: hold(); break;
    case RELEASE: release(); break;
    case NULL_CALL: null_call(); break;
    case COPY: copy(); break;
    case MAP_REVOKABLE: map_revokable(); break;
    case ARM: arm(); break;
    case REVOKE: revoke(); break;
    case FOLLOW: follow(); break;
    case UNMAP_REVOKABLE: unmap_revokable(); break;
    default: require(0);
  }
}

void xen_main(const struct start_info *start) {
  (void)start;
  serve_mailbox();
}
