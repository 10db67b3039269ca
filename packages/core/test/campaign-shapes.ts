/**
 * Well-formed arguments for the campaign: structures whose fields are of the right kind, so that calls get past the first
 * check and change something. `pick(n)` gives the next random number below n; `domid()` the name of some domain.
 */
import * as abi from "@xenolith/abi";

/** Draws the fields of one structure. */
export interface Draw {
  readonly pick: (count: number) => number;
  readonly domid: () => number;
  /** Where a list of random small numbers stands. */
  readonly list: number;
}

/** A hypercall with its structure: the words at the address that the second argument (or the first) points to. */
export interface Shape {
  readonly number: number;
  readonly command?: number;
  readonly words: (draw: Draw) => readonly number[];
}

const reservation = ({ pick, domid, list }: Draw): readonly number[] => [
  list,
  pick(6),
  pick(3) === 0 ? pick(4) : 0,
  0,
  domid(),
];
const port = ({ pick }: Draw): readonly number[] => [pick(20)];
const ofDomain = ({ domid }: Draw): readonly number[] => [domid()];

const memory = (command: number, words: Shape["words"]): Shape => ({
  number: abi.__HYPERVISOR_memory_op,
  command,
  words,
});
const event = (command: number, words: Shape["words"]): Shape => ({
  number: abi.__HYPERVISOR_event_channel_op,
  command,
  words,
});
const physdev = (command: number, words: Shape["words"]): Shape => ({
  number: abi.__HYPERVISOR_physdev_op,
  command,
  words,
});
const domctl = (command: number, body: Shape["words"]): Shape => ({
  number: abi.__HYPERVISOR_domctl,
  words: (draw) => [command, abi.XEN_DOMCTL_INTERFACE_VERSION, draw.domid(), 0, ...body(draw)],
});
const nothing = (): readonly number[] => [];

/** Every call whose arguments have a shape. */
export const shapes: readonly Shape[] = [
  memory(abi.XENMEM_populate_physmap, reservation),
  memory(abi.XENMEM_populate_physmap, reservation),
  memory(abi.XENMEM_decrease_reservation, reservation),
  memory(abi.XENMEM_decrease_reservation, reservation),
  memory(abi.XENMEM_increase_reservation, reservation),
  memory(abi.XENMEM_claim_pages, ({ pick, domid }) => [0, pick(30), 0, 0, domid()]),
  memory(abi.XENMEM_exchange, ({ pick, list }) => [
    list,
    pick(4),
    0,
    0,
    abi.DOMID_SELF,
    list,
    pick(4),
    0,
    0,
    abi.DOMID_SELF,
    0,
  ]),
  memory(abi.XENMEM_add_to_physmap, ({ pick, domid }) => [domid(), pick(5), pick(3) === 0 ? pick(20) : 0, pick(40)]),
  memory(abi.XENMEM_remove_from_physmap, ({ pick, domid }) => [domid(), pick(40)]),
  memory(abi.XENMEM_add_to_physmap_batch, ({ pick, domid, list }) => [
    domid() | (2 << 16),
    pick(5),
    list,
    list + 16,
    0x3000,
  ]),
  event(abi.EVTCHNOP_alloc_unbound, ({ domid }) => [domid() | (domid() << 16)]),
  event(abi.EVTCHNOP_alloc_unbound, ({ domid }) => [abi.DOMID_SELF | (domid() << 16)]),
  event(abi.EVTCHNOP_bind_interdomain, ({ domid, pick }) => [domid(), pick(8)]),
  event(abi.EVTCHNOP_bind_virq, ({ pick }) => [pick(25), pick(3)]),
  event(abi.EVTCHNOP_bind_ipi, ({ pick }) => [pick(3)]),
  event(abi.EVTCHNOP_bind_pirq, ({ pick }) => [pick(30), pick(2)]),
  event(abi.EVTCHNOP_close, port),
  event(abi.EVTCHNOP_send, port),
  event(abi.EVTCHNOP_unmask, port),
  event(abi.EVTCHNOP_bind_vcpu, ({ pick }) => [pick(20), pick(3)]),
  event(abi.EVTCHNOP_status, ({ domid, pick }) => [domid(), pick(20)]),
  event(abi.EVTCHNOP_reset, ofDomain),
  physdev(abi.PHYSDEVOP_map_pirq, ({ domid, pick }) => [domid(), pick(2), pick(70), pick(2) === 0 ? -1 : pick(30)]),
  physdev(abi.PHYSDEVOP_unmap_pirq, ({ domid, pick }) => [domid(), pick(30)]),
  physdev(abi.PHYSDEVOP_eoi, ({ pick }) => [pick(30)]),
  physdev(abi.PHYSDEVOP_pirq_eoi_gmfn_v2, ({ pick }) => [pick(10)]),
  {
    number: abi.__HYPERVISOR_hvm_op,
    command: abi.HVMOP_set_param,
    words: ({ pick, domid }) => [domid(), pick(40), pick(9), 0],
  },
  { number: abi.__HYPERVISOR_sched_op, command: abi.SCHEDOP_watchdog, words: ({ pick }) => [pick(4), pick(3)] },
  {
    number: abi.__HYPERVISOR_sched_op,
    command: abi.SCHEDOP_remote_shutdown,
    words: ({ pick, domid }) => [domid(), pick(7)],
  },
  {
    number: abi.__HYPERVISOR_sched_op,
    command: abi.SCHEDOP_poll,
    words: ({ pick, list }) => [list, pick(4), 1 + pick(9), 0],
  },
  {
    number: abi.__HYPERVISOR_multicall,
    words: ({ pick, list }) => [
      abi.__HYPERVISOR_memory_op,
      0,
      pick(29),
      list,
      0,
      0,
      0,
      0,
      abi.__HYPERVISOR_event_channel_op,
      0,
      pick(14),
      list,
    ],
  },
  domctl(abi.XEN_DOMCTL_createdomain, ({ pick }) => [
    0,
    0,
    0,
    0,
    0,
    3,
    0,
    1 + pick(3),
    pick(50),
    -1,
    -1,
    1,
    0,
    0,
    0,
    0,
    0,
  ]),
  domctl(abi.XEN_DOMCTL_destroydomain, nothing),
  domctl(abi.XEN_DOMCTL_pausedomain, nothing),
  domctl(abi.XEN_DOMCTL_unpausedomain, nothing),
  domctl(abi.XEN_DOMCTL_unpausedomain, nothing),
  domctl(abi.XEN_DOMCTL_resumedomain, nothing),
  domctl(abi.XEN_DOMCTL_max_mem, ({ pick }) => [pick(256), 0]),
  domctl(abi.XEN_DOMCTL_max_mem, ({ pick }) => [pick(256), 0]),
  domctl(abi.XEN_DOMCTL_set_target, ofDomain),
  domctl(abi.XEN_DOMCTL_set_virq_handler, ({ pick }) => [pick(25)]),
  domctl(abi.XEN_DOMCTL_getdomaininfo, nothing),
];

/** vcpu_op takes the vCPU as its second argument and the structure as its third. */
export const vcpuShapes: readonly Shape[] = [
  [abi.VCPUOP_register_vcpu_info, ({ pick }: Draw) => [pick(10), 0, pick(3) * 64, 0]],
  [abi.VCPUOP_register_runstate_memory_area, ({ list }: Draw) => [list]],
  [abi.VCPUOP_set_periodic_timer, () => [1_000_000, 0]],
  [abi.VCPUOP_stop_periodic_timer, nothing],
  [abi.VCPUOP_set_singleshot_timer, ({ pick }: Draw) => [pick(100_000), 0, 0]],
  [abi.VCPUOP_initialise, ({ pick }: Draw) => [pick(9), pick(9), pick(9)]],
  [abi.VCPUOP_up, nothing],
  [abi.VCPUOP_is_up, nothing],
].map(([command, words]) => ({
  number: abi.__HYPERVISOR_vcpu_op,
  command: command as number,
  words: words as Shape["words"],
}));
