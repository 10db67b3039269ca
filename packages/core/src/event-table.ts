/**
 * Event channels, one row per port: row = slot * portsPerDomain + port. Everything about a port is one packed word, so
 * that a sender needs one load and no lock.
 *
 *     bits   field    holds
 *     0-2    kind     EVTCHNSTAT_*: 0 closed, 1 unbound, 2 interdomain, 3 pirq, 4 virq, 5 ipi
 *     3      xen      the hypervisor consumes it: the guest can neither send on it nor close it
 *     4-8    vcpu     vCPU of this domain that is notified
 *     9-28   payload  unbound: domid of whoever may bind; interdomain: remote slot << 10 | remote port;
 *                     pirq or virq: its number; ipi: 0
 *
 *     column      type      holds                                                   written by
 *     word        i32       the packed word, 0 = closed; publishes the port         holder of the event lock
 *     open        u32/slot  ports that are not closed                               holder of the event lock
 *     xenOpen     u32/slot  those of them that the hypervisor consumes              holder of the event lock
 *     freeHint    u32/slot  no port from 1 up to here is closed                     holder of the event lock
 *     resetNext   u32/slot  port where a reset in progress goes on, 0 = none        holder of the event lock
 *     pollMask    i32/slot  bit per vCPU that polls                                 poller, sender (atomically)
 *     virqPort    u16       port bound to a virq: 24 per vCPU row, 0 = none         holder of the event lock
 *     virqOwner   u32×24    slot that receives a global virq                        control domain
 *     watchdogNs  f64×2     deadline of each of a domain's watchdogs, 0 = free      holder of the event lock
 *     armedNs     f64×2     [0] what the control domain sleeps for, 0 = unknown;   control domain
 *                           [1] when it last served timers
 *
 * An interdomain channel is changed under the event locks of both domains.
 */
import { EVTCHNSTAT_closed, EVTCHNSTAT_interdomain, NR_VIRQS } from "@xenolith/abi";
import assert from "node:assert/strict";
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** Ports of one domain at most: what 10 bits name and what the 2-level bitmap holds. */
export const PORT_COUNT_MAX = 1024;
/** `armedNs`: what the control domain sleeps for ... */
export const ARMED = 0;
/** ... and when it last served timers. */
export const SERVED = 1;
/** Watchdog timers of one domain. */
export const WATCHDOG_COUNT = 2;

const SLOT_COUNT_MAX = 1024;
const XEN_BIT = 1 << 3;
const VCPU_SHIFT = 4;
const PAYLOAD_SHIFT = 9;

/** Packs a port word. */
export const portWord = (kind: number, vcpu: number, payload: number, xen = false): number =>
  kind | (xen ? XEN_BIT : 0) | (vcpu << VCPU_SHIFT) | (payload << PAYLOAD_SHIFT);
/** EVTCHNSTAT_* of a port word. */
export const portKind = (word: number): number => word & 7;
/** Whether the hypervisor consumes the port. */
export const portIsXen = (word: number): boolean => (word & XEN_BIT) !== 0;
/** vCPU that the port notifies. */
export const portVcpu = (word: number): number => (word >>> VCPU_SHIFT) & 31;
/** Payload of a port word: domid, virq or pirq. */
export const portPayload = (word: number): number => word >>> PAYLOAD_SHIFT;
/** Slot at the other end of an interdomain port. */
export const portRemoteSlot = (word: number): number => word >>> (PAYLOAD_SHIFT + 10);
/** Port at the other end of an interdomain port. */
export const portRemotePort = (word: number): number => (word >>> PAYLOAD_SHIFT) & (PORT_COUNT_MAX - 1);
/** The word of an interdomain port. */
export const interdomainWord = (vcpu: number, remoteSlot: number, remotePort: number): number =>
  portWord(EVTCHNSTAT_interdomain, vcpu, (remoteSlot << 10) | remotePort);
/** The same word with another vCPU. */
export const withVcpu = (word: number, vcpu: number): number => (word & ~(31 << VCPU_SHIFT)) | (vcpu << VCPU_SHIFT);

/** Column table of all event channels. */
export class EventTable {
  readonly word: Int32Array;
  readonly open: Uint32Array;
  readonly xenOpen: Uint32Array;
  readonly freeHint: Uint32Array;
  readonly resetNext: Uint32Array;
  readonly pollMask: Int32Array;
  /** Where `pollMask` begins in the control buffer, in bytes. */
  readonly pollMaskStart: number;
  readonly virqPort: Uint16Array;
  readonly virqOwner: Uint32Array;
  readonly watchdogNs: Float64Array;
  readonly armedNs: Float64Array;
  readonly portsPerDomain: number;
  readonly #vcpusPerDomain: number;

  constructor(arena: ColumnArena, geometry: Geometry) {
    assert(geometry.portsPerDomain <= PORT_COUNT_MAX);
    assert(geometry.domainCountMax <= SLOT_COUNT_MAX);
    assert(geometry.vcpusPerDomain <= 32);
    const slots = geometry.domainCountMax;
    this.portsPerDomain = geometry.portsPerDomain;
    this.#vcpusPerDomain = geometry.vcpusPerDomain;
    this.word = arena.i32(slots * geometry.portsPerDomain);
    this.open = arena.u32(slots);
    this.xenOpen = arena.u32(slots);
    this.freeHint = arena.u32(slots);
    this.resetNext = arena.u32(slots);
    this.pollMask = arena.i32(slots);
    this.pollMaskStart = this.pollMask.byteOffset;
    this.virqPort = arena.u16(slots * geometry.vcpusPerDomain * NR_VIRQS);
    this.virqOwner = arena.u32(NR_VIRQS);
    this.watchdogNs = arena.f64(slots * WATCHDOG_COUNT);
    this.armedNs = arena.f64(2);
  }

  /** Word of `port`, which must be below `portsPerDomain`. */
  load(slot: number, port: number): number {
    return Atomics.load(this.word, slot * this.portsPerDomain + port);
  }

  /**
   * Word of `port` as a sender reads it: an aligned word is read whole anyway, and a sender decides nothing by the order
   * of two such reads. An atomic load would cost it a fifth of the whole send.
   */
  peek(slot: number, port: number): number {
    return this.word[slot * this.portsPerDomain + port]!;
  }

  /** Publishes a new word for `port`; keeps the counts. The caller holds the event lock. */
  publish(slot: number, port: number, word: number): void {
    assert(port > 0 && port < this.portsPerDomain);
    const before = Atomics.exchange(this.word, slot * this.portsPerDomain + port, word);
    this.#count(slot, before, -1);
    this.#count(slot, word, 1);
    if (portKind(word) === EVTCHNSTAT_closed && port < this.freeHint[slot]!) this.freeHint[slot] = port;
  }

  /** Lowest closed port >= 1 below `portEnd`, or -1. The caller holds the event lock. */
  lowestClosed(slot: number, portEnd: number): number {
    const end = Math.min(portEnd, this.portsPerDomain);
    for (let port = Math.max(1, this.freeHint[slot]!); port < end; port += 1) {
      if (portKind(this.load(slot, port)) !== EVTCHNSTAT_closed) continue;
      this.freeHint[slot] = port;
      return port;
    }
    this.freeHint[slot] = end;
    return -1;
  }

  /** Row of `virq` on `vcpu` in `virqPort`. */
  virqRow(slot: number, vcpu: number, virq: number): number {
    return (slot * this.#vcpusPerDomain + vcpu) * NR_VIRQS + virq;
  }

  #count(slot: number, word: number, change: number): void {
    if (portKind(word) === EVTCHNSTAT_closed) return;
    this.open[slot] = this.open[slot]! + change;
    if (portIsXen(word)) this.xenOpen[slot] = this.xenOpen[slot]! + change;
  }
}
