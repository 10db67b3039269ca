/**
 * Every hypercall that takes a structure, with arguments that are in order: what the tests of copies, pointers and
 * replies go through.
 */
import * as abi from "@xenolith/abi";
import { hypercall } from "../src/hypercall.ts";
import type { Guest } from "./machine.ts";
import { Machine, poke } from "./machine.ts";
import { beginVcpu } from "../src/vcpu-life.ts";
import { mapPirq, permitIrq } from "../src/pirq.ts";
import { setMaxPages } from "../src/memory-limits.ts";

/** Where lists stand that a structure points to: in page 6 of the guest. */
export const LIST = 0x6000;
/** Where a structure stands that may be read and written. */
export const STRUCT = 0x3000;

/** One call. */
export interface Call {
  readonly name: string;
  readonly number: number;
  readonly command: number;
  /** Words of the structure, and its size in bytes. */
  readonly words: readonly number[];
  readonly sizeBytes: number;
  /** Position of the structure's address among the arguments. */
  readonly at: number;
  /** Arguments between the command and the address. */
  readonly between: readonly number[];
  /** The structure is written to when the call succeeds. */
  readonly writes: boolean;
  /** What the call returns for a bad address: a count of extents is 0. */
  readonly fault: number;
  /** Who makes it. */
  readonly by: "guest" | "dom0";
}

type Given = Partial<Call> & Pick<Call, "name" | "number" | "command" | "words" | "sizeBytes">;
const define = (given: Given): Call => {
  const between = given.between ?? [];
  return { at: 1 + between.length, between, writes: false, fault: -abi.EFAULT, by: "guest", ...given };
};

const { DOMID_SELF } = abi;

const memory = (
  name: string,
  command: number,
  words: readonly number[],
  sizeBytes: number,
  more: Partial<Call> = {},
): Call => define({ name, number: abi.__HYPERVISOR_memory_op, command, words, sizeBytes, ...more });
const event = (name: string, command: number, words: readonly number[], sizeBytes: number, writes = false): Call =>
  define({ name, number: abi.__HYPERVISOR_event_channel_op, command, words, sizeBytes, writes });
const sched = (name: string, command: number, words: readonly number[], sizeBytes: number): Call =>
  define({ name, number: abi.__HYPERVISOR_sched_op, command, words, sizeBytes });
const vcpu = (name: string, command: number, words: readonly number[], sizeBytes: number, writes = false): Call =>
  define({ name, number: abi.__HYPERVISOR_vcpu_op, command, words, sizeBytes, writes, between: [0] });
const physdev = (name: string, command: number, words: readonly number[], sizeBytes: number, writes = false): Call =>
  define({ name, number: abi.__HYPERVISOR_physdev_op, command, words, sizeBytes, writes });
const hvm = (name: string, command: number, words: readonly number[], sizeBytes: number, writes = false): Call =>
  define({ name, number: abi.__HYPERVISOR_hvm_op, command, words, sizeBytes, writes });
const version = (name: string, command: number, sizeBytes: number): Call =>
  define({ name, number: abi.__HYPERVISOR_xen_version, command, words: [0], sizeBytes, writes: true });
const control = (name: string, number: number, words: readonly number[], sizeBytes: number, writes = false): Call =>
  define({ name, number, command: 0, words, sizeBytes, writes, at: 0, by: "dom0" });

const reservation = (list: number): readonly number[] => [list, 1, 0, 0, DOMID_SELF];
const counted = { fault: 0 } as const;

/** See the file's comment. `prepare` makes all of them succeed. */
export const calls: readonly Call[] = [
  memory("populate_physmap", abi.XENMEM_populate_physmap, reservation(LIST), 20, counted),
  memory("decrease_reservation", abi.XENMEM_decrease_reservation, reservation(LIST + 4), 20, counted),
  memory("increase_reservation", abi.XENMEM_increase_reservation, reservation(LIST + 8), 20, counted),
  memory("current_reservation", abi.XENMEM_current_reservation, [DOMID_SELF], 2),
  memory("maximum_reservation", abi.XENMEM_maximum_reservation, [DOMID_SELF], 2),
  memory("maximum_gpfn", abi.XENMEM_maximum_gpfn, [DOMID_SELF], 2),
  memory("add_to_physmap", abi.XENMEM_add_to_physmap, [DOMID_SELF, 0, 0, 70], 16),
  memory("add_to_physmap_batch", abi.XENMEM_add_to_physmap_batch, [DOMID_SELF, 1, LIST + 32, LIST + 36, LIST + 40], 20),
  memory("remove_from_physmap", abi.XENMEM_remove_from_physmap, [DOMID_SELF, 7], 8),
  memory("exchange", abi.XENMEM_exchange, [...reservation(LIST + 12), ...reservation(LIST + 12), 0], 44, {
    writes: true,
  }),
  memory("set_memory_map", abi.XENMEM_set_memory_map, [DOMID_SELF, 1, LIST + 64], 12),
  memory("memory_map", abi.XENMEM_memory_map, [1, LIST + 128], 8, { writes: true }),
  event("alloc_unbound", abi.EVTCHNOP_alloc_unbound, [DOMID_SELF], 8, true),
  event("bind_interdomain", abi.EVTCHNOP_bind_interdomain, [0, 1], 12, true),
  event("bind_virq", abi.EVTCHNOP_bind_virq, [abi.VIRQ_TIMER, 0], 12, true),
  event("bind_ipi", abi.EVTCHNOP_bind_ipi, [0], 8, true),
  event("bind_pirq", abi.EVTCHNOP_bind_pirq, [20, 0], 12, true),
  event("bind_vcpu", abi.EVTCHNOP_bind_vcpu, [1, 0], 8),
  event("send", abi.EVTCHNOP_send, [1], 4),
  event("unmask", abi.EVTCHNOP_unmask, [1], 4),
  event("status", abi.EVTCHNOP_status, [DOMID_SELF, 1], 24, true),
  event("close", abi.EVTCHNOP_close, [1], 4),
  event("reset", abi.EVTCHNOP_reset, [DOMID_SELF], 2),
  sched("poll", abi.SCHEDOP_poll, [LIST + 16, 1, 1, 0], 16),
  sched("shutdown_code", abi.SCHEDOP_shutdown_code, [1], 4),
  sched("watchdog", abi.SCHEDOP_watchdog, [0, 100], 8),
  vcpu("get_runstate_info", abi.VCPUOP_get_runstate_info, [0], 44, true),
  vcpu("set_periodic_timer", abi.VCPUOP_set_periodic_timer, [5_000_000, 0], 8),
  vcpu("set_singleshot_timer", abi.VCPUOP_set_singleshot_timer, [5_000_000, 0, 0], 12),
  vcpu("register_vcpu_info", abi.VCPUOP_register_vcpu_info, [5, 0, 0, 0], 16),
  vcpu("register_runstate_memory_area", abi.VCPUOP_register_runstate_memory_area, [LIST + 256, 0], 8),
  vcpu("register_vcpu_time_memory_area", abi.VCPUOP_register_vcpu_time_memory_area, [LIST + 512, 0], 8),
  physdev("eoi", abi.PHYSDEVOP_eoi, [20], 4),
  physdev("irq_status_query", abi.PHYSDEVOP_irq_status_query, [20, 0], 8, true),
  physdev("map_pirq", abi.PHYSDEVOP_map_pirq, [DOMID_SELF, abi.MAP_PIRQ_TYPE_GSI, 21, -1, 0, 0, 0, 0, 0], 36, true),
  physdev("get_free_pirq", abi.PHYSDEVOP_get_free_pirq, [abi.MAP_PIRQ_TYPE_GSI, 0], 8, true),
  physdev("pirq_eoi_gmfn", abi.PHYSDEVOP_pirq_eoi_gmfn_v2, [5], 4),
  hvm("set_param", abi.HVMOP_set_param, [DOMID_SELF, abi.HVM_PARAM_CALLBACK_IRQ, 1, 0], 16),
  hvm("get_param", abi.HVMOP_get_param, [DOMID_SELF, abi.HVM_PARAM_CALLBACK_IRQ, 0, 0], 16, true),
  hvm("get_time", abi.HVMOP_get_time, [0, 0], 8, true),
  hvm("get_mem_type", abi.HVMOP_get_mem_type, [DOMID_SELF, 0, 5, 0], 16, true),
  version("extraversion", abi.XENVER_extraversion, abi.XEN_EXTRAVERSION_LEN),
  version("compile_info", abi.XENVER_compile_info, abi.xen_compile_info.sizeBytes),
  version("capabilities", abi.XENVER_capabilities, abi.XEN_CAPABILITIES_INFO_LEN),
  version("changeset", abi.XENVER_changeset, abi.XEN_CHANGESET_INFO_LEN),
  version("commandline", abi.XENVER_commandline, abi.XEN_COMMANDLINE_LEN),
  version("get_features", abi.XENVER_get_features, abi.xen_feature_info.sizeBytes),
  version("guest_handle", abi.XENVER_guest_handle, 16),
  define({
    name: "console_io",
    number: abi.__HYPERVISOR_console_io,
    command: 0,
    words: [0x0a41],
    sizeBytes: 40,
    between: [40],
  }),
  control(
    "getdomaininfo",
    abi.__HYPERVISOR_domctl,
    [abi.XEN_DOMCTL_getdomaininfo, abi.XEN_DOMCTL_INTERFACE_VERSION, 1],
    abi.xen_domctl.sizeBytes,
    true,
  ),
  control(
    "createdomain",
    abi.__HYPERVISOR_domctl,
    [abi.XEN_DOMCTL_createdomain, abi.XEN_DOMCTL_INTERFACE_VERSION],
    abi.xen_domctl.sizeBytes,
    true,
  ),
  control(
    "physinfo",
    abi.__HYPERVISOR_sysctl,
    [abi.XEN_SYSCTL_physinfo, abi.XEN_SYSCTL_INTERFACE_VERSION],
    abi.xen_sysctl.sizeBytes,
    true,
  ),
];

/** A machine whose guest can make every one of `calls` with success, and who makes them. */
export const prepare = (): { readonly machine: Machine; readonly guest: Guest; readonly dom0: Guest } => {
  const machine = new Machine();
  const { hypervisor, dom0 } = machine;
  const guest = machine.guest();
  beginVcpu(guest.cpu);
  setMaxPages(hypervisor, guest.slot, 100);
  for (const irq of [20, 21]) permitIrq(hypervisor, guest.slot, irq, true);
  mapPirq(hypervisor, guest.slot, 20, 20);
  const list = new DataView(new ArrayBuffer(1024));
  // Gfns of populate, decrease, increase and exchange, the port of poll; further up those of the batch.
  for (const [index, word] of [80, 4, 0, 2, 1, 0, 0, 0, 0, 75, 0].entries()) list.setUint32(index * 4, word, true);
  poke(guest, LIST, new Uint8Array(list.buffer));
  const unbound = (caller: Guest, remote: number): void => {
    poke(caller, STRUCT, new Uint8Array(Uint16Array.from([DOMID_SELF, remote, 0, 0]).buffer));
    hypercall(caller.cpu, abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_alloc_unbound, STRUCT, 0, 0, 0);
  };
  unbound(guest, 0);
  unbound(dom0, guest.domid);
  poke(guest, STRUCT, new Uint8Array(Uint32Array.from([DOMID_SELF, 1, LIST + 64]).buffer));
  hypercall(guest.cpu, abi.__HYPERVISOR_memory_op, abi.XENMEM_set_memory_map, STRUCT, 0, 0, 0);
  poke(guest, STRUCT, new Uint8Array(64));
  poke(dom0, STRUCT, new Uint8Array(64));
  machine.parts.platform.nowNs = 10;
  return { machine, guest, dom0 };
};

/** The bytes of a call's structure. */
export const bytesOf = (call: Call): Uint8Array => {
  const bytes = new Uint8Array(call.sizeBytes + 4);
  const view = new DataView(bytes.buffer);
  for (const [index, word] of call.words.entries())
    if (index * 4 < call.sizeBytes) view.setUint32(index * 4, word >>> 0, true);
  if (call.name === "createdomain") fillCreate(view);
  return bytes.subarray(0, call.sizeBytes);
};

const fillCreate = (view: DataView): void => {
  const { createdomain } = abi.xen_domctl.u;
  abi.xen_domctl.domain.set(view, 0, abi.DOMID_ANY);
  createdomain.flags.set(view, 0, abi.XEN_DOMCTL_CDF_hvm | abi.XEN_DOMCTL_CDF_hap);
  createdomain.max_vcpus.set(view, 0, 1);
  createdomain.max_evtchn_port.set(view, 0, 100);
  createdomain.max_grant_frames.set(view, 0, 4);
  createdomain.grant_opts.set(view, 0, 1);
};

/** Makes `call` with its structure at `address`, which is filled already. `junk` goes into the arguments it does not have. */
export const make = (guest: Guest, call: Call, address: number, junk = 0): number => {
  const given: readonly number[] = call.at === 0 ? [address] : [call.command, ...call.between, address];
  const [a = junk, b = junk, c = junk, d = junk, e = junk] = given;
  return hypercall(guest.cpu, call.number, a, b, c, d, e);
};

/** The caller of `call` among those that `prepare` made. */
export const callerOf = (call: Call, world: ReturnType<typeof prepare>): Guest =>
  call.by === "dom0" ? world.dom0 : world.guest;
