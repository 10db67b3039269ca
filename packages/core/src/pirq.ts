/**
 * Physical interrupts at work: host code gives a domain the right to a source, the domain maps it to a pirq and binds
 * that to an event channel, host code raises it.
 *
 * A line (GSI) is level triggered: after it was delivered it is not delivered again before PHYSDEVOP_eoi, and then at
 * once when it is still, or again, asserted. A message (MSI) is an edge: it merges with one that is still pending.
 * A domain's pirqs are mapped and unmapped under its event lock.
 */
import { EBUSY, EEXIST, EINVAL, ENOSPC, EPERM } from "@xenolith/abi";
import assert from "node:assert/strict";
import { isPending, setPending, unmaskPort } from "./event-delivery.ts";
import { closePort, lockEvents, unlockEvents } from "./event-ports.ts";
import { getFrame, putFrame } from "./frame-reference.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { markEoi } from "./pirq-eoi.ts";
import {
  GSI_COUNT,
  GSI_LEGACY_COUNT,
  IRQ_COUNT,
  PIRQ_ASSERTED,
  PIRQ_COUNT,
  PIRQ_IN_SERVICE,
  PIRQ_RESERVED,
} from "./pirq-table.ts";

/** Lets the domain in `slot` map `irq`, or not any more. For the control domain. */
export const permitIrq = (hypervisor: Hypervisor, slot: number, irq: number, isAllowed: boolean): void => {
  assert(irq >= 0 && irq < IRQ_COUNT);
  hypervisor.pirqs.permitted[slot * IRQ_COUNT + irq] = isAllowed ? 1 : 0;
};

/** Whether the domain in `slot` may map `irq`. */
export const isIrqPermitted = (hypervisor: Hypervisor, slot: number, irq: number): boolean =>
  hypervisor.pirqs.permitted[slot * IRQ_COUNT + irq] === 1;

/**
 * Raises `pirq` of the domain in `slot`; a line is asserted by it, and stays so until `lowerPirq`. Returns whether an
 * event was sent: not when the pirq is not bound, or a line is still in service.
 */
export const raisePirq = (hypervisor: Hypervisor, slot: number, pirq: number): boolean => {
  const { pirqs } = hypervisor;
  const row = pirqs.row(slot, pirq);
  const port = Atomics.load(pirqs.port, row);
  if (!pirqs.needsEoi(row)) {
    if (port === 0 || Atomics.load(pirqs.irq, row) === 0) return false;
    setPending(hypervisor, slot, port);
    return true;
  }
  if (port === 0) {
    Atomics.or(pirqs.state, row, PIRQ_ASSERTED);
    return false;
  }
  const before = Atomics.or(pirqs.state, row, PIRQ_ASSERTED | PIRQ_IN_SERVICE);
  if ((before & PIRQ_IN_SERVICE) !== 0) return false;
  deliverLine(hypervisor, slot, pirq, port);
  return true;
};

/** The line behind `pirq` is no longer asserted. */
export const lowerPirq = (hypervisor: Hypervisor, slot: number, pirq: number): void => {
  const { pirqs } = hypervisor;
  Atomics.and(pirqs.state, pirqs.row(slot, pirq), ~PIRQ_ASSERTED);
};

/** Sends the event of a line that has just come into service. */
const deliverLine = (hypervisor: Hypervisor, slot: number, pirq: number, port: number): void => {
  markEoi(hypervisor, slot, pirq, true);
  setPending(hypervisor, slot, port);
};

/** A port was bound to `pirq`: an asserted line that waited for that is delivered now. */
export const resumePirq = (hypervisor: Hypervisor, slot: number, pirq: number): void => {
  const { pirqs } = hypervisor;
  const row = pirqs.row(slot, pirq);
  const isAsserted = (Atomics.load(pirqs.state, row) & PIRQ_ASSERTED) !== 0;
  if (isAsserted && pirqs.needsEoi(row)) raisePirq(hypervisor, slot, pirq);
};

/** Ends `pirq`. A line that is asserted is delivered again. -EINVAL: out of range or not mapped. */
export const endPirq = (hypervisor: Hypervisor, slot: number, pirq: number): number => {
  const { pirqs } = hypervisor;
  if (pirq >= PIRQ_COUNT) return -EINVAL;
  const row = pirqs.row(slot, pirq);
  if (Atomics.load(pirqs.irq, row) === 0) return -EINVAL;
  const port = Atomics.load(pirqs.port, row);
  if (pirqs.autoEoi[slot] !== 0 && port !== 0) unmaskPort(hypervisor, slot, port);
  const before = Atomics.and(pirqs.state, row, ~PIRQ_IN_SERVICE);
  if ((before & PIRQ_IN_SERVICE) === 0) return 0;
  markEoi(hypervisor, slot, pirq, false);
  if ((before & PIRQ_ASSERTED) !== 0 && port !== 0) raisePirq(hypervisor, slot, pirq);
  return 0;
};

/**
 * Maps `irq` to `wanted` of the domain in `slot`, or to a free pirq when that is negative, and returns the pirq. One
 * that is mapped so already is returned as it is. -EPERM: the domain has no right to the irq; -EINVAL: out of range;
 * -EEXIST: the pirq, or the irq, is mapped otherwise; -ENOSPC: no pirq is free.
 */
export const mapPirq = (hypervisor: Hypervisor, slot: number, irq: number, wanted: number): number => {
  const { pirqs } = hypervisor;
  if (irq >= IRQ_COUNT || wanted >= PIRQ_COUNT) return -EINVAL;
  if (!isIrqPermitted(hypervisor, slot, irq)) return -EPERM;
  lockEvents(hypervisor, slot, slot);
  const existing = pirqs.pirqOf(slot, irq);
  let pirq = wanted;
  if (existing >= 0) pirq = wanted < 0 || wanted === existing ? existing : -EEXIST;
  else if (wanted < 0) pirq = irq < GSI_COUNT ? freeLine(hypervisor, slot, irq) : freeMessage(hypervisor, slot);
  else if (pirqs.irq[pirqs.row(slot, wanted)] !== 0) pirq = -EEXIST;
  if (pirq >= 0 && existing < 0) {
    Atomics.store(pirqs.state, pirqs.row(slot, pirq), 0);
    Atomics.store(pirqs.irq, pirqs.row(slot, pirq), irq + 1);
  }
  unlockEvents(hypervisor, slot, slot);
  return pirq;
};

/** Takes the mapping of `pirq` away and closes its event channel. -EINVAL: out of range or not mapped. */
export const unmapPirq = (hypervisor: Hypervisor, slot: number, pirq: number): number => {
  const { pirqs } = hypervisor;
  if (pirq < 0 || pirq >= PIRQ_COUNT) return -EINVAL;
  const row = pirqs.row(slot, pirq);
  if (Atomics.load(pirqs.irq, row) === 0) return -EINVAL;
  const port = Atomics.load(pirqs.port, row);
  if (port !== 0) closePort(hypervisor, slot, port);
  lockEvents(hypervisor, slot, slot);
  const wasMapped = Atomics.exchange(pirqs.irq, row, 0) !== 0;
  Atomics.store(pirqs.state, row, 0);
  markEoi(hypervisor, slot, pirq, false);
  unlockEvents(hypervisor, slot, slot);
  return wasMapped ? 0 : -EINVAL;
};

/** Reserves a free pirq for a line or a message. -ENOSPC: none. */
export const reservePirq = (hypervisor: Hypervisor, slot: number, isLine: boolean): number => {
  const { pirqs } = hypervisor;
  lockEvents(hypervisor, slot, slot);
  const pirq = isLine ? freeLine(hypervisor, slot, -1) : freeMessage(hypervisor, slot);
  if (pirq >= 0) Atomics.store(pirqs.state, pirqs.row(slot, pirq), PIRQ_RESERVED);
  unlockEvents(hypervisor, slot, slot);
  return pirq;
};

/** The pirq that is the same number as the line, or else the lowest free one beyond the legacy lines. */
const freeLine = (hypervisor: Hypervisor, slot: number, irq: number): number => {
  if (irq >= 0 && isFree(hypervisor, slot, irq)) return irq;
  for (let pirq = GSI_LEGACY_COUNT; pirq < GSI_COUNT; pirq += 1) if (isFree(hypervisor, slot, pirq)) return pirq;
  return -ENOSPC;
};

/** The highest free pirq that is not kept for lines. */
const freeMessage = (hypervisor: Hypervisor, slot: number): number => {
  for (let pirq = PIRQ_COUNT - 1; pirq >= GSI_COUNT; pirq -= 1) if (isFree(hypervisor, slot, pirq)) return pirq;
  return -ENOSPC;
};

const isFree = (hypervisor: Hypervisor, slot: number, pirq: number): boolean => {
  const { pirqs } = hypervisor;
  const row = pirqs.row(slot, pirq);
  return pirqs.irq[row] === 0 && (Atomics.load(pirqs.state, row) & PIRQ_RESERVED) === 0;
};

/** Whether `pirq` waits to be delivered to the guest: its event is pending. */
export const isPirqPending = (hypervisor: Hypervisor, slot: number, pirq: number): boolean => {
  const port = Atomics.load(hypervisor.pirqs.port, hypervisor.pirqs.row(slot, pirq));
  return port !== 0 && isPending(hypervisor, slot, port);
};

/**
 * Keeps the bits of the pirqs that need an EOI in guest frame `gfn`; with `autoUnmask`, an EOI unmasks the event channel
 * too. -EBUSY: there is such a page already, -EINVAL: no RAM there.
 */
export const setEoiPage = (hypervisor: Hypervisor, slot: number, gfn: number, autoUnmask: boolean): number => {
  const { pirqs } = hypervisor;
  if (pirqs.eoiFrame[slot] !== 0) return -EBUSY;
  const frame = getFrame(hypervisor, slot, gfn);
  if (frame < 0) return -EINVAL;
  lockEvents(hypervisor, slot, slot);
  const isFirst = pirqs.eoiFrame[slot] === 0;
  if (isFirst) {
    pirqs.eoiFrame[slot] = frame + 1;
    if (autoUnmask) pirqs.autoEoi[slot] = 1;
    for (let pirq = 0; pirq < PIRQ_COUNT; pirq += 1) {
      const isInService = (Atomics.load(pirqs.state, pirqs.row(slot, pirq)) & PIRQ_IN_SERVICE) !== 0;
      markEoi(hypervisor, slot, pirq, isInService);
    }
  }
  unlockEvents(hypervisor, slot, slot);
  if (!isFirst) putFrame(hypervisor, frame);
  return isFirst ? 0 : -EBUSY;
};

/** Unmaps everything and forgets every right of the domain in `slot`. Its event channels are closed already. */
export const releasePirqs = (hypervisor: Hypervisor, slot: number): void => {
  const { pirqs } = hypervisor;
  const from = slot * PIRQ_COUNT;
  for (const column of [pirqs.irq, pirqs.port, pirqs.state]) column.fill(0, from, from + PIRQ_COUNT);
  pirqs.permitted.fill(0, slot * IRQ_COUNT, (slot + 1) * IRQ_COUNT);
  const frame = pirqs.eoiFrame[slot]! - 1;
  pirqs.eoiFrame[slot] = 0;
  pirqs.autoEoi[slot] = 0;
  if (frame >= 0) putFrame(hypervisor, frame);
};
