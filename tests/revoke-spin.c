/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both guests of revoke-spin.test.ts. The granter gives pages and takes them back; the mapper's vCPU 0 maps and unmaps
 * them while its vCPU 1 uses them all the time with every kind of access and judges each value that it sees.
 *
 * The lower half of a page says whose it is and is never written through a mapping; the upper half is. The granter
 * marks the upper half once the page is its own again, and looks whether the mark stays.
 */
#include <xenolith/grant_table.h>
#include <xenolith/hypercall.h>
#include <xenolith/memory.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name))) name
#define PAGES 16
#define MAPPINGS 2
#define PAGE_WORDS 1024
#define HALF_WORDS 512
#define HALF_BYTES 2048
#define TABLE 0x40000000u
#define HOLES 0x50000000u
#define REF_FIRST 8

/* What stands in a page: who it is of (lower half), and what was written last (upper half). */
#define GRANTED 0xa0000000u
#define OWN 0xb0000000u
#define FRESH 0xd0000000u
#define TAKEN 0xe0000000u
#define OWN_FRESH 0xf0000000u
#define TAG 0xc0000000u

enum { READ_ONLY = 1, LAID_OVER = 2, WITHOUT_HOLES = 4 };

__attribute__((import_module("wasi"), import_name("thread-spawn"))) int spawn(uint32_t argument);

typedef volatile uint32_t word;

static uint32_t pages[PAGES][PAGE_WORDS] __attribute__((aligned(4096)));
static uint32_t own[MAPPINGS][PAGES][PAGE_WORDS] __attribute__((aligned(4096)));
static uint32_t spin_stack[4096] __attribute__((aligned(16)));
static uint32_t buffer[2 * PAGE_WORDS] __attribute__((aligned(16)));
static uint32_t handles[MAPPINGS][PAGES];
static int statuses[MAPPINGS][PAGES];
static uint32_t mode, mapping_count, extent_base;
/* Odd: vCPU 1 is to stop, and has when it says the same number. */
static word wanted = 1, reached;

/* For the test: what was seen. The first three of a wrong value are kept. */
struct findings {
  uint32_t wrong, kind, mapping, page, value;
  uint32_t granted, replaced, sweeps, lost_marks, maps, refusals, bad_statuses, last_status;
};
static volatile struct findings found;

uint32_t EXPORT(findings)(void) { return (uint32_t)(uintptr_t)&found; }
uint32_t EXPORT(own_pages)(void) { return (uint32_t)(uintptr_t)own; }

static int grant_op(uint32_t command, void *list) { return HYPERVISOR_grant_table_op(command, list, 1); }

int EXPORT(set_up)(uint32_t how, uint32_t mappings, uint32_t extents) {
  mode = how;
  mapping_count = mappings;
  extent_base = extents;
  for (uint32_t m = 0; m < MAPPINGS; m++)
    for (uint32_t i = 0; i < PAGES; i++)
      for (uint32_t w = 0; w < PAGE_WORDS; w++) own[m][i][w] = (w < HALF_WORDS ? OWN : OWN_FRESH) | m << 8 | i;
  struct xen_add_to_physmap frame = {.domid = DOMID_SELF, .space = XENMAPSPACE_grant_table, .gpfn = TABLE >> 12};
  return HYPERVISOR_memory_op(XENMEM_add_to_physmap, &frame);
}

/* ---- the granter ---- */

static struct grant_entry_v1 *entry(uint32_t i) { return (struct grant_entry_v1 *)TABLE + REF_FIRST + i; }

static void look_at_marks(void) {
  for (uint32_t i = 0; i < PAGES; i++)
    for (uint32_t w = 0; w < PAGE_WORDS; w++)
      if (pages[i][w] != ((w < HALF_WORDS ? GRANTED : TAKEN) | i)) found.lost_marks++;
}

/* Gives all pages. Whoever had them before must not have touched them since they were taken back. */
void EXPORT(give)(uint32_t domid, uint32_t isFirst) {
  if (!isFirst) look_at_marks();
  for (uint32_t i = 0; i < PAGES; i++) {
    for (uint32_t w = 0; w < PAGE_WORDS; w++) pages[i][w] = (w < HALF_WORDS ? GRANTED : FRESH) | i;
    entry(i)->domid = (domid_t)domid;
    entry(i)->frame = (uint32_t)(uintptr_t)pages[i] >> 12;
    uint16_t flags = GTF_permit_access | GTF_revokable | (mode & READ_ONLY ? GTF_readonly : 0);
    __atomic_store_n(&entry(i)->flags, flags, __ATOMIC_SEQ_CST);
  }
}

/* Takes all of them back; then they are marked. */
void EXPORT(take)(void) {
  for (uint32_t i = 0; i < PAGES; i++) {
    __atomic_fetch_and(&entry(i)->flags, (uint16_t)~GTF_type_mask, __ATOMIC_SEQ_CST);
    struct gnttab_revoke revoke = {.ref = REF_FIRST + i};
    if (grant_op(GNTTABOP_revoke, &revoke) || revoke.status) found.bad_statuses++, found.last_status = revoke.status;
    if (__atomic_load_n(&entry(i)->flags, __ATOMIC_SEQ_CST) & (GTF_reading | GTF_writing)) found.bad_statuses++;
    for (uint32_t w = HALF_WORDS; w < PAGE_WORDS; w++) pages[i][w] = TAKEN | i;
  }
}

/* ---- the mapper's vCPU 0 ---- */

static uint32_t view(uint32_t m, uint32_t i) {
  if (extent_base) return extent_base + i * 4096;
  return mode & LAID_OVER ? (uint32_t)(uintptr_t)own[m][i] : HOLES + (m * 256 + i) * 4096;
}

static void park(void) {
  uint32_t number = wanted | 1, seen;
  __atomic_store_n(&wanted, number, __ATOMIC_SEQ_CST);
  while ((seen = __atomic_load_n(&reached, __ATOMIC_SEQ_CST)) != number)
    __builtin_wasm_memory_atomic_wait32((int *)&reached, (int)seen, -1);
}

void EXPORT(go)(void) {
  __atomic_store_n(&wanted, (wanted | 1) + 1, __ATOMIC_SEQ_CST);
  __builtin_wasm_memory_atomic_notify((int *)&wanted, 1);
}

void EXPORT(map)(uint32_t domid, uint32_t ref) {
  for (uint32_t m = 0; m < mapping_count; m++)
    for (uint32_t i = 0; i < PAGES; i++) {
      struct gnttab_map_revokable map = {.map = {.host_addr = view(m, i), .flags = GNTMAP_host_map, .dom = (domid_t)domid, .ref = ref + i}};
      if (mode & READ_ONLY) map.map.flags |= GNTMAP_readonly;
      map.lgfn = mode & LAID_OVER ? view(m, i) >> 12 : 0xffffffffu;
      int result = grant_op(GNTTABOP_map_revokable, &map);
      statuses[m][i] = map.map.status;
      handles[m][i] = map.map.handle;
      if (map.map.status == 0) found.maps++;
      else found.refusals++;
      /* Taken back already, or in the middle of it: that is a refusal as well. */
      _Bool mayFail = (mode & LAID_OVER) && map.map.status == GNTST_general_error;
      if (result || (map.map.status && !mayFail)) found.bad_statuses++, found.last_status = map.map.status;
    }
}

void EXPORT(unmap)(void) {
  if (!(mode & LAID_OVER)) park();
  for (uint32_t m = 0; m < mapping_count; m++)
    for (uint32_t i = 0; i < PAGES; i++) {
      if (statuses[m][i]) continue;
      struct gnttab_unmap_grant_ref unmap = {.host_addr = view(m, i), .handle = handles[m][i]};
      int result = grant_op(GNTTABOP_unmap_grant_ref, &unmap);
      if (result || unmap.status) found.bad_statuses++, found.last_status = unmap.status;
    }
}

/* ---- its vCPU 1 ---- */

static void judge(uint32_t kind, uint32_t m, uint32_t i, uint32_t value, _Bool isLegal) {
  if (isLegal) return;
  if (!found.wrong) found.kind = kind, found.mapping = m, found.page = i, found.value = value;
  found.wrong++;
}

static uint32_t own_word(uint32_t m, uint32_t i) { return mode & LAID_OVER ? OWN | m << 8 | i : 0; }
static uint32_t tag(uint32_t m, uint32_t i) { return TAG | m << 8 | i; }

static void judge_owner(uint32_t kind, uint32_t m, uint32_t i, uint32_t value) {
  _Bool isGranted = value == (GRANTED | i), isOwn = value == own_word(m, i);
  if (isGranted) found.granted++;
  if (isOwn) found.replaced++;
  judge(kind, m, i, value, isGranted || isOwn);
}

/* In the granted page: what its owner wrote, or any mapping's tag. In an own page: what was there, or this one's tag. */
static void judge_data(uint32_t kind, uint32_t m, uint32_t i, uint32_t value, _Bool isSurelyOwn) {
  uint32_t fresh = mode & LAID_OVER ? OWN_FRESH | m << 8 | i : 0;
  _Bool isOwn = value == fresh || (!(mode & READ_ONLY) && value == tag(m, i));
  _Bool isGranted = value == (FRESH | i) || (!(mode & READ_ONLY) && (value == tag(0, i) || value == tag(1, i)));
  judge(kind, m, i, value, isOwn || (isGranted && !isSurelyOwn));
}

static volatile uint32_t whole_page = 4096, half_page = HALF_BYTES, some_bytes = 192;

static void read_all_ways(uint32_t m, uint32_t i, uint32_t turn) {
  word *at = (word *)view(m, i);
  uint32_t w = (turn * 7) % 508;
  judge_owner(1, m, i, at[w]);
  uint64_t pair = *(volatile uint64_t *)(at + (w & ~1u));
  judge_owner(2, m, i, (uint32_t)pair), judge_owner(2, m, i, (uint32_t)(pair >> 32));
  judge_owner(3, m, i, __atomic_load_n(at + w, __ATOMIC_SEQ_CST));
  uint64_t atomic = __atomic_load_n((uint64_t *)(at + (w & ~1u)), __ATOMIC_SEQ_CST);
  /* An aligned 64-bit access is one access: of one page. */
  judge(4, m, i, (uint32_t)atomic, (uint32_t)atomic == (uint32_t)(atomic >> 32));
  v128_t lanes = wasm_v128_load((const void *)(at + w));
  judge_owner(5, m, i, (uint32_t)wasm_i32x4_extract_lane(lanes, 0));
  judge_owner(5, m, i, (uint32_t)wasm_i32x4_extract_lane(lanes, 3));
  __builtin_memcpy(buffer, (const void *)at, half_page);
  for (uint32_t k = 0; k < HALF_WORDS; k += 61) judge_owner(6, m, i, buffer[k]);
  judge_owner(6, m, i, buffer[HALF_WORDS - 1]);
  uint8_t low = *(volatile uint8_t *)(at + w);
  judge(7, m, i, low, low == (uint8_t)i || low == (uint8_t)own_word(m, i));
  /* In one go over the border of two pages. */
  if (i + 1 < PAGES) {
    __builtin_memcpy(buffer, (const void *)(at + HALF_WORDS), whole_page);
    for (uint32_t k = 0; k < HALF_WORDS; k += 127) judge_data(8, m, i, buffer[k], 0);
    for (uint32_t k = HALF_WORDS; k < PAGE_WORDS; k += 127) judge_owner(8, m, i + 1, buffer[k]);
  }
}

static void write_all_ways(uint32_t m, uint32_t i, uint32_t turn) {
  word *at = (word *)view(m, i);
  word *to = at + HALF_WORDS + (turn * 8) % 384;
  uint32_t mine = tag(m, i);
  /* Without holes between, nothing that was taken back comes again before vCPU 1 has been parked. */
  _Bool isOwn = !(mode & (LAID_OVER | WITHOUT_HOLES)) && at[0] == own_word(m, i);
  judge_data(11, m, i, to[0], isOwn);
  to[0] = mine;
  *(volatile uint64_t *)(to + 2) = (uint64_t)mine << 32 | mine;
  __atomic_store_n(to + 4, mine, __ATOMIC_SEQ_CST);
  judge_data(12, m, i, __atomic_exchange_n(to + 5, mine, __ATOMIC_SEQ_CST), isOwn);
  uint32_t expected = mine;
  __atomic_compare_exchange_n(to + 6, &expected, mine, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  judge_data(13, m, i, expected, isOwn);
  judge_data(14, m, i, __atomic_fetch_or(to + 7, 0, __ATOMIC_SEQ_CST), isOwn);
  wasm_v128_store((void *)(to + 8), wasm_i32x4_splat((int32_t)mine));
  v128_t lanes = wasm_v128_load((const void *)(to + 8));
  judge_data(15, m, i, (uint32_t)wasm_i32x4_extract_lane(lanes, 2), isOwn);
  for (uint32_t k = 0; k < 48; k++) buffer[k] = mine;
  __builtin_memcpy((void *)(to + 16), buffer, some_bytes);
  judge_data(16, m, i, to[16 + turn % 48], isOwn);
}

static void spin(void) {
  for (uint32_t turn = 0;; turn++) {
    uint32_t number;
    while ((number = __atomic_load_n(&wanted, __ATOMIC_SEQ_CST)) & 1) {
      __atomic_store_n(&reached, number, __ATOMIC_SEQ_CST);
      __builtin_wasm_memory_atomic_notify((int *)&reached, 1);
      __builtin_wasm_memory_atomic_wait32((int *)&wanted, (int)number, -1);
    }
    for (uint32_t m = 0; m < mapping_count; m++) {
      uint32_t i = turn % PAGES;
      read_all_ways(m, i, turn);
      if (!(mode & READ_ONLY)) write_all_ways(m, i, turn);
    }
    found.sweeps++;
  }
}

__asm__(".globaltype __stack_pointer, i32\n");

void EXPORT(wasi_thread_start)(uint32_t thread, uint32_t argument) {
  __asm__ volatile("local.get %0\nglobal.set __stack_pointer" ::"r"(spin_stack + 4096));
  spin();
}

/* Begins to spin on what `map` mapped; from then on vCPU 1 stops only in `unmap`, where there will be a hole. */
int EXPORT(begin)(void) { return spawn(0); }
