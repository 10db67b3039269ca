/**
 * Physical interrupts as domains see them. An *irq* names a source that host code raises: interrupt lines (GSIs, level
 * triggered) from 0 and messages (MSIs, edge) from `IRQ_MSI_BASE`. A *pirq* is one domain's number for such a source.
 *
 *     column    type  row                holds                                        written by
 *     irq       u32   slot, pirq         irq + 1, or 0 = not mapped                   holder of the event lock
 *     port      u32   slot, pirq         event channel bound to it, or 0              holder of the event lock
 *     state     i32   slot, pirq         PIRQ_*                                       anybody, atomically
 *     permitted u8    slot, irq          1 = the domain may map the irq               control domain
 *     eoiFrame  u32   slot               mfn + 1 of the page of EOI bits, or 0        holder of the event lock
 *     autoEoi   u32   slot               1 = EOI unmasks the event channel too        holder of the event lock
 *
 * Source: xen/include/public/physdev.h.
 */
import assert from "node:assert/strict";
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** Numbers that a domain has for physical interrupts. */
export const PIRQ_COUNT = 256;
const LINE_COUNT = 64;
/** Interrupt lines; the pirqs below this are kept for them. */
export const GSI_COUNT = LINE_COUNT;
/** The first lines belong to legacy devices: never given out by get_free_pirq. */
export const GSI_LEGACY_COUNT = 16;
/** irq number of message 0. */
export const IRQ_MSI_BASE = LINE_COUNT;
/** Number of irqs: lines and messages. */
export const IRQ_COUNT = 256;

/** Raised and not yet ended: a level-triggered one is not delivered again before PHYSDEVOP_eoi. */
export const PIRQ_IN_SERVICE = 1;
/** A level-triggered source is asserted. */
export const PIRQ_ASSERTED = 2;
/** The domain declared that it shares the line. */
export const PIRQ_SHARED = 4;
/** Given out by get_free_pirq, not mapped yet. */
export const PIRQ_RESERVED = 8;

/** Column table of all physical interrupts. */
export class PirqTable {
  readonly irq: Uint32Array;
  readonly port: Uint32Array;
  readonly state: Int32Array;
  readonly permitted: Uint8Array;
  readonly eoiFrame: Uint32Array;
  readonly autoEoi: Uint32Array;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const slots = geometry.domainCountMax;
    this.irq = arena.u32(slots * PIRQ_COUNT);
    this.port = arena.u32(slots * PIRQ_COUNT);
    this.state = arena.i32(slots * PIRQ_COUNT);
    this.permitted = arena.u8(slots * IRQ_COUNT);
    this.eoiFrame = arena.u32(slots);
    this.autoEoi = arena.u32(slots);
  }

  /** Row of `pirq` of the domain in `slot`. */
  row(slot: number, pirq: number): number {
    assert(pirq < PIRQ_COUNT);
    return slot * PIRQ_COUNT + pirq;
  }

  /** Whether the irq behind a mapped pirq is level triggered and so needs PHYSDEVOP_eoi. */
  needsEoi(row: number): boolean {
    const irq = Atomics.load(this.irq, row);
    return irq !== 0 && irq - 1 < GSI_COUNT;
  }

  /** pirq that `irq` is mapped to in `slot`, or -1. */
  pirqOf(slot: number, irq: number): number {
    const at = this.irq.indexOf(irq + 1, slot * PIRQ_COUNT);
    return at === -1 || at >= (slot + 1) * PIRQ_COUNT ? -1 : at - slot * PIRQ_COUNT;
  }
}
