/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest as somebody writes it against Xen's public interface alone: its own declarations in the 32-bit x86 layout, its
 * own start, its own event scan, and hypercalls routed to the imports. Nothing of the guest library. Prints a line
 * "ok NAME" or "FAILED NAME" for each rule, and shuts down with SHUTDOWN_crash when any failed.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64 __attribute__((aligned(4)));

#define IMPORT(name) __attribute__((import_module("xen"), import_name(name)))
IMPORT("memory_op") int memory_op(u32 cmd, void *arg);
IMPORT("event_channel_op") int event_channel_op(u32 cmd, void *arg);
IMPORT("sched_op") int sched_op(u32 cmd, void *arg);
IMPORT("xen_version") int xen_version(u32 cmd, void *arg);
IMPORT("console_io") int console_io(u32 cmd, u32 count, const char *buffer);
IMPORT("vcpu_op") int vcpu_op(u32 cmd, u32 vcpu, void *arg);
IMPORT("hvm_op") int hvm_op(u32 op, void *arg);
IMPORT("multicall") int multicall(void *calls, u32 count);
IMPORT("hypercall") int hypercall(u32 number, u32 a, u32 b, u32 c, u32 d, u32 e);

struct reservation { u32 extent_start; u32 nr_extents; u32 order; u32 flags; u16 domid; };
struct vcpu_info { u8 pending; u8 mask; u16 pad; u32 sel; u32 arch[6]; u32 version; u32 pad0; u64 tsc; u64 system_time; u32 mul; signed char shift; u8 flags; u8 pad1[2]; };
struct start_info { char magic[32]; u32 nr_pages; u32 shared_info; u32 flags; };
struct call { u32 op; u32 result; u32 args[6]; };
struct hvm_param { u16 domid; u16 pad; u32 index; u64 value; };

_Static_assert(sizeof(struct reservation) == 20, "reservation");
_Static_assert(sizeof(struct vcpu_info) == 64, "vcpu_info");
_Static_assert(sizeof(struct hvm_param) == 16, "hvm_param");

static int failures;

static void say(const char *text) {
  u32 length = 0;
  while (text[length]) length++;
  console_io(0, length, text);
}

static void check(const char *name, int holds) {
  say(holds ? "ok " : "FAILED ");
  say(name);
  say("\n");
  failures += !holds;
}

static void memory(void) {
  u32 gfns[2] = {0x90000, 0x90001};
  struct reservation op = {.extent_start = (u32)gfns, .nr_extents = 2, .domid = 0x7ff0};
  struct { u16 domid; } self = {0x7ff0};
  int before = memory_op(3, &self);
  check("populate returns the number of extents", memory_op(6, &op) == 2);
  check("current_reservation counts them", memory_op(3, &self) == before + 2);
  volatile u32 *page = (volatile u32 *)0x90000000u;
  check("new pages are zero", page[0] == 0 && page[1023] == 0);
  page[5] = 7;
  check("and hold what is written", page[5] == 7);
  check("decrease returns the number of extents", memory_op(1, &op) == 2);
  check("and the reservation is as before", memory_op(3, &self) == before);
  check("a hole ends decrease with 0", memory_op(1, &op) == 0);
  check("an unknown memory_op is ENOSYS", memory_op(63, &op) == -38);
  check("a struct beyond memory is EFAULT", memory_op(3, (void *)0xfffff000u) == -14);
}

static void events(volatile u8 *shared) {
  struct { u32 vcpu; u32 port; } ipi = {0, 0};
  check("bind_ipi", event_channel_op(7, &ipi) == 0 && ipi.port >= 1);
  struct { u32 port; } send = {ipi.port};
  check("send", event_channel_op(4, &send) == 0);
  volatile u32 *pending = (volatile u32 *)(shared + 2048);
  volatile struct vcpu_info *info = (volatile struct vcpu_info *)shared;
  check("the pending bit is set", pending[ipi.port / 32] >> ipi.port % 32 & 1);
  check("the selector bit is set", info->sel >> ipi.port / 32 & 1);
  check("the upcall is pending", info->pending == 1);
  check("block returns at once when an upcall is pending", sched_op(1, 0) == 0);
  check("close", event_channel_op(3, &send) == 0);
  check("send on a closed port is EINVAL", event_channel_op(4, &send) == -22);
}

static void others(void) {
  char extra[16];
  for (u32 i = 0; i < sizeof extra; i++) extra[i] = 1;
  check("version is 4.x", xen_version(0, 0) >> 16 == 4);
  check("extraversion fills all 16 bytes", xen_version(1, extra) == 0 && extra[15] == 0);
  check("pagesize", xen_version(7, 0) == 4096);
  check("an unknown hypercall is ENOSYS", hypercall(99, 0, 0, 0, 0, 0) == -38);
  check("vcpu 0 is up", vcpu_op(3, 0, 0) == 1);
  check("vcpu 31 is not there", vcpu_op(3, 31, 0) == -2);
  struct hvm_param param = {.domid = 0x7ff0, .index = 15, .value = 0x1234};
  check("set_param", hvm_op(0, &param) == 0);
  param.value = 0;
  check("get_param", hvm_op(1, &param) == 0 && param.value == 0x1234);
  struct call calls[2] = {{.op = 17, .args = {0}}, {.op = 17, .args = {7}}};
  check("multicall", multicall(calls, 2) == 0 && calls[1].result == 4096 && calls[0].result >> 16 == 4);
}

__attribute__((export_name("xen_start"))) void xen_start(const struct start_info *start) {
  struct { u32 reason; } shutdown;
  memory();
  events((volatile u8 *)start->shared_info);
  others();
  shutdown.reason = failures ? 3 : 0;
  sched_op(2, &shutdown);
}
