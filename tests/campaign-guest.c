/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that makes hypercalls with random numbers, commands and arguments for ever: half of them likely (small ids,
 * structs inside memory), half of them anything. What it draws follows from the seed in its command line. A call that
 * ends the domain is as welcome as any other; the control domain starts the next guest. Other vCPUs do the same with the
 * same data, so that everything is also changed while it is looked at.
 *
 * Grants are likely ones: entries for domains that may exist, mappings where nothing stands, over own pages and twice,
 * unmappings of what is mapped, of what is not any more and of halves; pages that are mapped are used.
 */
#include <xenolith/grant_table.h>
#include <xenolith/guest.h>

#define ARENA 0x80000000u
#define ARENA_PAGES 64
#define TABLE 0x40000000u
#define TABLE_FRAMES 2
#define MAPS 0x50000000u
#define MAP_PAGES 64
#define REFS 48
#define CHANNELS 4
#define FIRST_CHANNEL_REF 40
#define LIST 8
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

/* Texts, lengths and keyrings as key_op has them, or nearly. */
static void fill_key(uint32_t cmd) {
  static const char type[] = "user", name[] = "k0k1k2k3";
  static const uint32_t rings[] = {-1u, -2u, -3u, -4u, -5u, 0};
  uint32_t texts[] = {(uint32_t)(uintptr_t)type, 4, (uint32_t)(uintptr_t)name + 2 * below(4), 2, pointer(), below(40),
                      below(2), rings[below(6)]};
  if (cmd == 2) words[0] = rings[below(6)];
  for (uint32_t i = 0; i < 8; i++) words[i + (cmd == 2)] = texts[i];
  if (cmd > 2) words[0] = rings[below(6)], words[1] = cmd == 8 || cmd == 9 ? rings[below(6)] : pointer(), words[3] = below(2);
}

static const uint8_t numbers[] = {12, 12, 12, 13, 15, 17, 18, 24, 29, 32, 32, 32, 33, 34, 35, 36, 20, 21, 27, 37, 41, 48, 49, 99};

static void call(void) {
  uint32_t number_ = below(16) ? numbers[below(sizeof numbers)] : below(64);
  uint32_t cmd = below(8) ? below(32) : number();
  /* Few of the calls that end or stop us for long. */
  if (number_ == 29 && cmd != 0 && below(32)) cmd = 3;
  if (number_ == 29 && cmd == 1) return;
  if (number_ == 24 && cmd == 2 && below(64)) cmd = 3;
  fill();
  if (number_ == 49 && below(8)) fill_key(cmd %= 15);
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

/* ---- grants ---- */

static domid_t self;
static uint32_t handles[MAP_PAGES], mapped[MAP_PAGES];
static struct gnttab_map_grant_ref maps[LIST];
static struct gnttab_map_revokable revokable;
static struct gnttab_unmap_grant_ref unmaps[LIST];
static struct gnttab_copy copies[LIST];
static uint32_t store_page, store_port;

static uint32_t stacks[4][4096] __attribute__((aligned(16)));

/* Each vCPU has places of its own to map at, or a mapping would seldom live long enough to be used. */
static uint32_t own_slots(void) {
  uint32_t here, at = (uint32_t)(uintptr_t)&here - (uint32_t)(uintptr_t)stacks;
  return below(400) ? (at < sizeof stacks ? at / sizeof stacks[0] : 0) * (MAP_PAGES / 4) : below(MAP_PAGES - 2 * LIST);
}

static uint32_t own_page(void) { return ARENA / 4096 + below(ARENA_PAGES); }

/* Ourselves, the control domain, or one of about the same age. */
static domid_t somebody(void) {
  uint32_t kind = below(8);
  if (kind == 0) return self;
  if (kind < 4) return 0;
  if (kind == 7) return (domid_t)number();
  return (domid_t)(self + below(16) - 8);
}

static volatile struct grant_entry_v1 *entry(uint32_t ref) { return (volatile struct grant_entry_v1 *)TABLE + ref; }

static void grant(void) {
  static const uint16_t kinds[] = {GTF_permit_access, GTF_permit_access, GTF_permit_access | GTF_readonly, GTF_permit_access | GTF_revokable,
                                   GTF_permit_access | GTF_revokable, GTF_permit_access | GTF_revokable | GTF_readonly, 0, GTF_transitive};
  uint32_t ref = below(below(16) ? FIRST_CHANNEL_REF : REFS);
  entry(ref)->frame = below(8) ? own_page() : below(2) ? MAPS / 4096 + below(MAP_PAGES) : number();
  entry(ref)->domid = somebody();
  entry(ref)->flags = below(16) ? kinds[below(8)] : (uint16_t)draw();
}

/* A reference that somebody may have given us: guests use the low ones, the control domain those from 8. */
static grant_ref_t reference(void) { return below(16) ? below(REFS) : number(); }

static uint32_t place(uint32_t slot) {
  if (below(24) == 0) return ARENA + below(ARENA_PAGES) * 4096;
  if (below(500) == 0) return number() << 12;
  return MAPS + slot * 4096;
}

static void map(void) {
  uint32_t count = 1 + below(LIST), from = own_slots() + below(LIST);
  domid_t granter = somebody();
  grant_ref_t ref = reference();
  for (uint32_t i = 0; i < count; i++) {
    /* Where something stands already we would be crashed; sometimes we want that. */
    if (mapped[from + i] && below(300)) return;
    uint32_t flags = GNTMAP_host_map | (below(2) ? GNTMAP_readonly : 0);
    if (below(40) == 0) flags = draw();
    maps[i] = (struct gnttab_map_grant_ref){.host_addr = place(from + i), .flags = flags, .ref = ref + i, .dom = granter};
  }
  if (HYPERVISOR_grant_table_op(GNTTABOP_map_grant_ref, maps, count)) return;
  for (uint32_t i = 0; i < count; i++)
    if (maps[i].status == 0 && maps[i].host_addr == MAPS + (from + i) * 4096) {
      handles[from + i] = maps[i].handle;
      mapped[from + i] = 1 + !(maps[i].flags & GNTMAP_readonly);
    }
}

static void map_revokable(void) {
  uint32_t slot = own_slots() + below(2 * LIST), flags = GNTMAP_host_map | (below(2) ? GNTMAP_readonly : 0);
  if (mapped[slot]) return;
  revokable.map = (struct gnttab_map_grant_ref){.host_addr = MAPS + slot * 4096, .flags = flags, .ref = reference(), .dom = somebody()};
  revokable.lgfn = below(2) ? 0xffffffffu : below(8) ? own_page() : number();
  /* Laid over an own page; then it is never a hole. */
  if (below(3) == 0) revokable.lgfn = own_page(), revokable.map.host_addr = (uint64_t)revokable.lgfn << 12;
  if (HYPERVISOR_grant_table_op(GNTTABOP_map_revokable, &revokable, 1) || revokable.map.status) return;
  handles[slot] = revokable.map.handle;
  mapped[slot] = revokable.map.host_addr == MAPS + slot * 4096 ? 1 + !(flags & GNTMAP_readonly) : 3;
}

static void unmap(void) {
  uint32_t count = 1 + below(LIST), from = own_slots() + below(LIST);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t slot = from + i, address = MAPS + slot * 4096;
    unmaps[i] = (struct gnttab_unmap_grant_ref){.host_addr = mapped[slot] == 3 ? number() : address, .handle = handles[slot]};
    switch (below(24)) {
      case 0: unmaps[i].handle = number(); break;
      case 1: unmaps[i].host_addr = 0; break;
      case 2: unmaps[i].host_addr = number(); break;
      case 3: unmaps[i].dev_bus_addr = number(); break;
      case 4: unmaps[i] = unmaps[0]; break;
    }
    mapped[slot] = 0;
  }
  HYPERVISOR_grant_table_op(below(16) ? GNTTABOP_unmap_grant_ref : GNTTABOP_unmap_and_replace, unmaps, count);
  if (below(8) == 0) HYPERVISOR_grant_table_op(GNTTABOP_unmap_grant_ref, unmaps, count);
}

/* Uses what is mapped; another vCPU may have unmapped it, then the domain ends here. */
static void use(void) {
  for (uint32_t i = 0; i < 8; i++) {
    uint32_t slot = own_slots() + below(2 * LIST);
    volatile uint32_t *page = (volatile uint32_t *)(MAPS + slot * 4096);
    if (mapped[slot] == 0 || mapped[slot] > 2) continue;
    uint32_t value = page[below(1024)];
    if (mapped[slot] == 2) page[below(4) ? below(16) : below(1024)] = below(2) ? value : number();
  }
}

static void revoke(void) {
  struct gnttab_revoke one = {.ref = below(16) ? below(below(16) ? FIRST_CHANNEL_REF : REFS) : number()};
  if (one.ref < REFS && below(8)) entry(one.ref)->flags &= (uint16_t)~GTF_type_mask;
  HYPERVISOR_grant_table_op(GNTTABOP_revoke, &one, 1);
}

static void copy(void) {
  uint32_t count = 1 + below(LIST);
  domid_t from = somebody(), to = somebody();
  for (uint32_t i = 0; i < count; i++) {
    uint32_t kind = below(4);
    copies[i] = (struct gnttab_copy){.flags = (uint16_t)kind, .len = (uint16_t)(below(2) ? 4096 : below(4100))};
    copies[i].source.domid = kind & GNTCOPY_source_gref ? from : DOMID_SELF;
    copies[i].dest.domid = kind & GNTCOPY_dest_gref ? to : DOMID_SELF;
    if (kind & GNTCOPY_source_gref) copies[i].source.u.ref = reference();
    else copies[i].source.u.gmfn = own_page();
    if (kind & GNTCOPY_dest_gref) copies[i].dest.u.ref = reference();
    else copies[i].dest.u.gmfn = own_page();
    if (copies[i].len < 4096) copies[i].source.offset = (uint16_t)below(8), copies[i].dest.offset = (uint16_t)below(5000);
  }
  HYPERVISOR_grant_table_op(GNTTABOP_copy, copies, count);
}

static void notify(void) {
  struct gnttab_unmap_notify one = {.target = handles[below(MAP_PAGES)], .action = below(4), .offset = below(4200), .port = below(24)};
  if (below(3) == 0) one.target = below(REFS), one.action |= UNMAP_NOTIFY_REF;
  HYPERVISOR_grant_table_op(GNTTABOP_unmap_notify, &one, 1);
}

static void other_grant_calls(void) {
  fill();
  words[0] = below(2) ? DOMID_SELF : words[0];
  HYPERVISOR_grant_table_op(below(20), below(4) ? (void *)words : (void *)(uintptr_t)pointer(), below(4) ? 1 : number());
}

/* ---- the xenstore ring ---- */

static void store_byte(uint32_t at, uint8_t value) { ((volatile uint8_t *)(uintptr_t)store_page)[at] = value; }
static volatile uint32_t *store_word(uint32_t at) { return (volatile uint32_t *)(uintptr_t)(store_page + at); }

/* A request, mostly one that could be meant; replies are taken unread, or not at all. */
static void ask_store(void) {
  static const char *const paths[] = {"data", "data/a", "data/a/b", "device/vif/0/state", "/", "/local/domain/0", "@releaseDomain", "..", "vc", "/local"};
  uint8_t bytes[128] = {0};
  uint32_t *header = (uint32_t *)bytes, length = 0;
  if (!store_page) return;
  for (const char *path = paths[below(10)]; *path; path++) bytes[16 + length++] = (uint8_t)*path;
  length++;
  for (uint32_t i = below(24); i; i--) bytes[16 + length++] = below(4) ? 'x' : (uint8_t)draw();
  header[0] = below(8) ? below(20) : number();
  header[1] = draw();
  header[2] = below(4) ? 0 : below(12);
  header[3] = below(64) ? length : number();
  uint32_t producer = *store_word(2052);
  if (1024 - (producer - *store_word(2048)) < 16 + length) length = 0;
  for (uint32_t i = 0; length && i < 16 + length; i++) store_byte((producer + i) % 1024, bytes[i]);
  if (length) *store_word(2052) = producer + 16 + length;
  if (below(4)) *store_word(2056) = *store_word(2060);
  if (below(400) == 0) *store_word(2048 + 4 * below(6)) = number();
  xen_hypercall(32, EVTCHNOP_send, (uint32_t)(uintptr_t)&store_port, 0, 0, 0);
}

/* ---- channels offered to the control domain ---- */

/* References from 40, pages from 60 and these ports are what the control domain looks for. */
static evtchn_port_t channel_ports[CHANNELS];

static volatile uint32_t *channel_page(uint32_t channel) {
  return (volatile uint32_t *)(uintptr_t)(ARENA + (ARENA_PAGES - CHANNELS + channel) * 4096);
}

/* The page of a server that waits for its client, right in all or in most. */
static void offer(uint32_t channel) {
  volatile uint32_t *page = channel_page(channel);
  volatile struct grant_entry_v1 *shared = entry(FIRST_CHANNEL_REF + channel);
  /* Orders of the rings: both in the page itself, or behind more references. */
  page[4] = below(3) ? 10 | 11 << 16 : below(2) ? 12 | 13 << 16 : number();
  page[6] = reference();
  page[7] = reference();
  /* cli_live, srv_live, cli_notify, srv_notify */
  page[5] = below(16) ? 2 | 1 << 8 | 3 << 16 : number();
  shared->frame = (uint32_t)(uintptr_t)page >> 12;
  shared->domid = 0;
  shared->flags = below(8) ? GTF_permit_access : GTF_permit_access | GTF_revokable;
}

/* Offers a channel again, or changes what its client believed: indices, orders, references. */
static void play_server(void) {
  uint32_t channel = below(CHANNELS);
  switch (below(4)) {
    case 0: offer(channel); break;
    case 1: channel_page(channel)[below(4)] += below(3000); break;
    case 2: channel_page(channel)[below(8)] = number(); break;
    default: xen_hypercall(32, EVTCHNOP_send, (uint32_t)(uintptr_t)&channel_ports[channel], 0, 0, 0);
  }
}

static void grant_call(void) {
  switch (below(20)) {
    case 0: case 1: case 2: grant(); break;
    case 3: case 4: case 5: map(); break;
    case 6: case 7: case 8: map_revokable(); break;
    case 9: case 10: case 11: case 12: unmap(); break;
    case 13: revoke(); break;
    case 14: copy(); break;
    case 15: use(); break;
    case 16: notify(); break;
    case 17: if (below(2)) ask_store(); else play_server(); break;
    case 18: if (below(40) == 0) HYPERVISOR_grant_table_op(GNTTABOP_reset, words, 1); else other_grant_calls(); break;
    default: use(); break;
  }
}

static void set_up_grants(const struct start_info *start) {
  store_page = (uint32_t)start->store_mfn << 12;
  store_port = start->store_evtchn;
  for (uint32_t i = 0; i < TABLE_FRAMES; i++) {
    struct xen_add_to_physmap frame = {.domid = DOMID_SELF, .space = XENMAPSPACE_grant_table, .idx = i, .gpfn = TABLE / 4096 + i};
    HYPERVISOR_memory_op(XENMEM_add_to_physmap, &frame);
  }
  static xen_pfn_t gfns[ARENA_PAGES];
  for (uint32_t i = 0; i < ARENA_PAGES; i++) gfns[i] = ARENA / 4096 + i;
  struct xen_memory_reservation pages = {.nr_extents = ARENA_PAGES, .domid = DOMID_SELF};
  pages.extent_start.p = gfns;
  HYPERVISOR_memory_op(XENMEM_populate_physmap, &pages);
  struct evtchn_alloc_unbound unbound = {.dom = DOMID_SELF, .remote_dom = DOMID_SELF};
  if (HYPERVISOR_event_channel_op(EVTCHNOP_alloc_unbound, &unbound)) return;
  struct evtchn_status status = {.dom = DOMID_SELF, .port = unbound.port};
  HYPERVISOR_event_channel_op(EVTCHNOP_status, &status);
  self = status.u.unbound.dom;
  for (uint32_t i = 0; i < 2 * REFS; i++) grant();
  /* Ports for the control domain's ends of channels. */
  for (uint32_t i = 0; i < CHANNELS; i++) {
    unbound.remote_dom = 0;
    HYPERVISOR_event_channel_op(EVTCHNOP_alloc_unbound, &unbound);
    channel_ports[i] = unbound.port;
    offer(i);
  }
}

static uint32_t grant_share;

static _Noreturn void play(void) {
  for (;;)
    if (below(100) < grant_share) grant_call();
    else call();
}

__attribute__((export_name("xen_vcpu_start"))) void xen_vcpu_start(uint32_t vcpu, uint32_t argument) { play(); }

static void bring_up(uint32_t vcpu) {
  /* struct vcpu_hvm_context of a 32-bit vCPU: eax, esp. */
  static uint32_t context[64];
  context[2] = 0;
  context[6] = (uint32_t)(uintptr_t)(stacks[vcpu] + 4096);
  if (HYPERVISOR_vcpu_op(VCPUOP_initialise, vcpu, context) == 0) HYPERVISOR_vcpu_op(VCPUOP_up, vcpu, NULL);
}

static uint32_t seed_of(const char *text) {
  uint32_t value = 2463534242u;
  while (*text) value = value * 31 + (uint8_t)*text++;
  return value ? value : 1;
}

void xen_main(const struct start_info *start) {
  state = seed_of((const char *)start->cmd_line);
  set_up_grants(start);
  static const uint32_t shares[] = {0, 50, 99, 99, 100, 100};
  grant_share = shares[below(6)];
  for (uint32_t vcpu = 1; vcpu < 4; vcpu++)
    if (below(2)) bring_up(vcpu);
  play();
}
