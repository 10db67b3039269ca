/**
 * Event-channel, scheduling and physical-interrupt hypercalls as a guest makes them, for tests. Arguments are placed in
 * the guest's own memory; a result is what the guest sees: a port, or a negative errno.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { beginVcpu } from "../src/vcpu-life.ts";
import { isPending } from "../src/event-delivery.ts";
import type { Hypervisor } from "../src/hypervisor.ts";
import type { DomainSpec } from "../src/domain-create.ts";
import { createCpu, hypercall } from "../src/hypercall.ts";
import type { Guest, Machine } from "./machine.ts";
import { peekWord } from "./machine.ts";

/** Where the arguments stand: in the guest's page 1. */
export const ARG = 0x1000;
/** Lists of ports: page 2. */
export const LIST = 0x2000;
/** A page that nothing else in these tests uses. */
export const SPARE = 0x3000;
/** The first byte beyond the guest's memory, and an address where no memory ever is. */
export const NOWHERE = 0x3f0000;

const { DOMID_SELF } = abi;

/** A running guest whose vCPU 0 runs on the calling thread. */
export const runningGuest = (machine: Machine, spec: Partial<DomainSpec> = {}): Guest => {
  const guest = machine.guest(spec);
  beginVcpu(guest.cpu);
  return guest;
};

/** The same domain, seen from another of its vCPUs, which runs from now on. */
export const otherVcpu = (guest: Guest, vcpu: number): Guest => {
  const cpu = createCpu(guest.cpu.hypervisor, guest.slot, vcpu);
  const { vcpus } = cpu.hypervisor;
  Atomics.store(vcpus.gate, cpu.index, 0);
  Atomics.and(vcpus.flags, cpu.index, ~2);
  Atomics.or(vcpus.flags, cpu.index, 1 | 4);
  beginVcpu(cpu);
  return { ...guest, cpu };
};

/** Fills the argument page by `fill`, makes the call, and returns its result. */
const invoke = (guest: Guest, number: number, command: number, fill: (view: DataView) => void): number => {
  const bytes = new Uint8Array(64);
  fill(new DataView(bytes.buffer));
  assert.equal(guest.cpu.memory.copyToGuest(ARG, bytes), 0);
  return hypercall(guest.cpu, number, command, ARG, 0, 0, 0);
};

const event = (guest: Guest, command: number, fill: (view: DataView) => void): number =>
  invoke(guest, abi.__HYPERVISOR_event_channel_op, command, fill);

/** The port that a successful call left at `offset` of its argument; else its errno. */
const portAt = (guest: Guest, result: number, offset: number): number =>
  result < 0 ? result : peekWord(guest, ARG + offset);

export const allocUnbound = (guest: Guest, remote: number, dom: number = DOMID_SELF): number => {
  const result = event(guest, abi.EVTCHNOP_alloc_unbound, (view) => {
    abi.evtchn_alloc_unbound.dom.set(view, 0, dom);
    abi.evtchn_alloc_unbound.remote_dom.set(view, 0, remote);
  });
  return portAt(guest, result, abi.evtchn_alloc_unbound.port.offset);
};

export const bindInterdomain = (guest: Guest, remote: number, remotePort: number): number => {
  const result = event(guest, abi.EVTCHNOP_bind_interdomain, (view) => {
    abi.evtchn_bind_interdomain.remote_dom.set(view, 0, remote);
    abi.evtchn_bind_interdomain.remote_port.set(view, 0, remotePort);
  });
  return portAt(guest, result, abi.evtchn_bind_interdomain.local_port.offset);
};

export const bindVirq = (guest: Guest, virq: number, vcpu = 0): number => {
  const result = event(guest, abi.EVTCHNOP_bind_virq, (view) => {
    abi.evtchn_bind_virq.virq.set(view, 0, virq);
    abi.evtchn_bind_virq.vcpu.set(view, 0, vcpu);
  });
  return portAt(guest, result, abi.evtchn_bind_virq.port.offset);
};

export const bindIpi = (guest: Guest, vcpu: number): number => {
  const result = event(guest, abi.EVTCHNOP_bind_ipi, (view) => abi.evtchn_bind_ipi.vcpu.set(view, 0, vcpu));
  return portAt(guest, result, abi.evtchn_bind_ipi.port.offset);
};

export const bindPirq = (guest: Guest, pirq: number, flags = 0): number => {
  const result = event(guest, abi.EVTCHNOP_bind_pirq, (view) => {
    abi.evtchn_bind_pirq.pirq.set(view, 0, pirq);
    abi.evtchn_bind_pirq.flags.set(view, 0, flags);
  });
  return portAt(guest, result, abi.evtchn_bind_pirq.port.offset);
};

export const bindVcpu = (guest: Guest, port: number, vcpu: number): number =>
  event(guest, abi.EVTCHNOP_bind_vcpu, (view) => {
    abi.evtchn_bind_vcpu.port.set(view, 0, port);
    abi.evtchn_bind_vcpu.vcpu.set(view, 0, vcpu);
  });

export const close = (guest: Guest, port: number): number =>
  event(guest, abi.EVTCHNOP_close, (view) => abi.evtchn_close.port.set(view, 0, port));

export const send = (guest: Guest, port: number): number =>
  event(guest, abi.EVTCHNOP_send, (view) => abi.evtchn_send.port.set(view, 0, port));

export const unmask = (guest: Guest, port: number): number =>
  event(guest, abi.EVTCHNOP_unmask, (view) => abi.evtchn_unmask.port.set(view, 0, port));

export const reset = (guest: Guest, dom: number = DOMID_SELF): number =>
  event(guest, abi.EVTCHNOP_reset, (view) => abi.evtchn_reset.dom.set(view, 0, dom));

/** What EVTCHNOP_status says of a port. */
export interface PortStatus {
  readonly result: number;
  readonly status: number;
  readonly vcpu: number;
  /** u as one word: virq or pirq. */
  readonly number: number;
  readonly dom: number;
  readonly port: number;
}

export const status = (guest: Guest, port: number, dom: number = DOMID_SELF): PortStatus => {
  const result = event(guest, abi.EVTCHNOP_status, (view) => {
    abi.evtchn_status.dom.set(view, 0, dom);
    abi.evtchn_status.port.set(view, 0, port);
  });
  const bytes = new Uint8Array(abi.evtchn_status.sizeBytes);
  assert.equal(guest.cpu.memory.copyFromGuest(ARG, bytes), 0);
  const view = new DataView(bytes.buffer);
  const { u } = abi.evtchn_status;
  return {
    result,
    status: abi.evtchn_status.status.get(view, 0),
    vcpu: abi.evtchn_status.vcpu.get(view, 0),
    number: u.virq.get(view, 0),
    dom: u.interdomain.dom.get(view, 0),
    port: u.interdomain.port.get(view, 0),
  };
};

export const sched = (guest: Guest, command: number, ...words: readonly number[]): number =>
  invoke(guest, abi.__HYPERVISOR_sched_op, command, (view) => setWords(view, words));

export const vcpuOp = (guest: Guest, command: number, vcpu: number, ...words: readonly number[]): number => {
  const bytes = new Uint8Array(64);
  setWords(new DataView(bytes.buffer), words);
  assert.equal(guest.cpu.memory.copyToGuest(ARG, bytes), 0);
  return hypercall(guest.cpu, abi.__HYPERVISOR_vcpu_op, command, vcpu, ARG, 0, 0);
};

export const physdev = (guest: Guest, command: number, ...words: readonly number[]): number =>
  invoke(guest, abi.__HYPERVISOR_physdev_op, command, (view) => setWords(view, words));

/** sched_op(poll) on `ports` until the absolute `timeoutNs`. */
export const poll = (guest: Guest, ports: readonly number[], timeoutNs = 0): number => {
  const bytes = new Uint8Array(Uint32Array.from(ports).buffer);
  assert.equal(guest.cpu.memory.copyToGuest(LIST, bytes), 0);
  return pollAt(guest, LIST, ports.length, timeoutNs);
};

/** sched_op(poll) on a list at any address. */
export const pollAt = (guest: Guest, list: number, count: number, timeoutNs = 0): number =>
  sched(guest, abi.SCHEDOP_poll, list, count, timeoutNs % 2 ** 32, Math.floor(timeoutNs / 2 ** 32));

const setWords = (view: DataView, words: readonly number[]): void => {
  for (const [at, word] of words.entries()) view.setUint32(at * 4, word >>> 0, true);
};

/** The shared_info page of a domain, as the hypervisor and its guest see it. */
export const sharedInfo = (hypervisor: Hypervisor, slot: number): DataView => {
  const mfn = hypervisor.domains.sharedInfo[slot]! - 1;
  const { framesPerBank } = hypervisor.geometry;
  const bank = hypervisor.directMap.views[Math.floor(mfn / framesPerBank)]!;
  return new DataView(bank.buffer, (mfn % framesPerBank) * 4096, 4096);
};

/** The vcpu_info of a vCPU, wherever it stands. */
export const vcpuInfo = (hypervisor: Hypervisor, slot: number, vcpu = 0): DataView => {
  const address = hypervisor.vcpus.vcpuInfo[hypervisor.vcpus.index(slot, vcpu)]!;
  const bank = hypervisor.directMap.views[hypervisor.directMap.bankOf(address)]!;
  return new DataView(bank.buffer, hypervisor.directMap.offsetOf(address), 64);
};

/** Masks or unmasks a port as a guest does by itself. */
export const setMask = (guest: Guest, port: number, isMasked: boolean): void => {
  const page = sharedInfo(guest.cpu.hypervisor, guest.slot);
  const at = abi.shared_info.evtchn_mask.offset + (port >>> 5) * 4;
  const word = page.getUint32(at, true);
  const bit = (1 << (port & 31)) >>> 0;
  page.setUint32(at, (isMasked ? word | bit : word & ~bit) >>> 0, true);
};

/** Clears the pending bit of a port as a guest does before it handles the event. */
export const clearPort = (guest: Guest, port: number): void => {
  const page = sharedInfo(guest.cpu.hypervisor, guest.slot);
  const at = abi.shared_info.evtchn_pending.offset + (port >>> 5) * 4;
  page.setUint32(at, (page.getUint32(at, true) & ~(1 << (port & 31))) >>> 0, true);
};

/** What a guest does at the start of its upcall: forgets that it was told. */
export const clearUpcall = (guest: Guest, vcpu = 0): void => {
  const info = vcpuInfo(guest.cpu.hypervisor, guest.slot, vcpu);
  info.setUint8(0, 0);
  info.setUint32(4, 0, true);
};

export const pending = (guest: Guest, port: number): boolean => isPending(guest.cpu.hypervisor, guest.slot, port);

export const upcallPending = (guest: Guest, vcpu = 0): boolean =>
  vcpuInfo(guest.cpu.hypervisor, guest.slot, vcpu).getUint8(0) !== 0;

export const selector = (guest: Guest, vcpu = 0): number =>
  vcpuInfo(guest.cpu.hypervisor, guest.slot, vcpu).getUint32(4, true);

/** Two guests with a channel between them: ports `a` of the first and `b` of the second. Nothing is pending. */
export const connected = (machine: Machine, first: Guest, second: Guest): { a: number; b: number } => {
  const a = allocUnbound(first, second.domid);
  assert(a > 0, `alloc_unbound: ${a}`);
  const b = bindInterdomain(second, first.domid, a);
  assert(b > 0, `bind_interdomain: ${b}`);
  clearPort(second, b);
  clearUpcall(second);
  machine.check();
  return { a, b };
};

/** Lets the domain have nothing pending and no upcall. */
export const settle = (guest: Guest): void => {
  const page = sharedInfo(guest.cpu.hypervisor, guest.slot);
  for (let at = 0; at < 128; at += 4) page.setUint32(abi.shared_info.evtchn_pending.offset + at, 0, true);
  const { hypervisor } = guest.cpu;
  for (let vcpu = 0; vcpu < hypervisor.domains.vcpuCount[guest.slot]!; vcpu += 1) clearUpcall(guest, vcpu);
};
