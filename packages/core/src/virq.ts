/**
 * Virtual interrupts: who may receive which, and raising them.
 * Source: xen/include/public/xen.h.
 */
import { NR_VIRQS, VIRQ_ARGO, VIRQ_DEBUG, VIRQ_TIMER, VIRQ_XENOPROF, VIRQ_XENPMU } from "@xenolith/abi";
import assert from "node:assert/strict";
import { DOM0_SLOT } from "./domain-table.ts";
import { setPending } from "./event-delivery.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** Each vCPU has its own. */
export const VIRQ_KIND_VCPU = 0;
/** Each domain has one. */
export const VIRQ_KIND_DOMAIN = 1;
/** One domain of all receives it: the control domain, or whom it delegated it to. */
export const VIRQ_KIND_GLOBAL = 2;

/** VIRQ_KIND_* of `virq`. */
export const virqKind = (virq: number): number => {
  switch (virq) {
    case VIRQ_TIMER:
    case VIRQ_DEBUG:
    case VIRQ_XENOPROF:
    case VIRQ_XENPMU:
      return VIRQ_KIND_VCPU;
    case VIRQ_ARGO:
      return VIRQ_KIND_DOMAIN;
    default:
      return VIRQ_KIND_GLOBAL;
  }
};

/** Raises `virq` of one vCPU of the domain in `slot`; nothing happens when it is not bound. */
export const raiseVirq = (hypervisor: Hypervisor, slot: number, virq: number, vcpu = 0): void => {
  assert(virq < NR_VIRQS);
  const { events } = hypervisor;
  const port = Atomics.load(events.virqPort, events.virqRow(slot, vcpu, virq));
  if (port !== 0) setPending(hypervisor, slot, port);
};

/** Raises a global virq at the domain that receives it. */
export const raiseGlobalVirq = (hypervisor: Hypervisor, virq: number): void => {
  assert(virqKind(virq) === VIRQ_KIND_GLOBAL);
  raiseVirq(hypervisor, Atomics.load(hypervisor.events.virqOwner, virq), virq);
};

/** Makes the domain in `slot` the receiver of a global virq. A binding that the former receiver has stays, silent. */
export const setVirqOwner = (hypervisor: Hypervisor, virq: number, slot: number): void => {
  assert(virqKind(virq) === VIRQ_KIND_GLOBAL);
  Atomics.store(hypervisor.events.virqOwner, virq, slot);
};

/** Gives the global virqs of a domain that ends back to the control domain. */
export const returnVirqs = (hypervisor: Hypervisor, slot: number): void => {
  for (let virq = 0; virq < NR_VIRQS; virq += 1) {
    Atomics.compareExchange(hypervisor.events.virqOwner, virq, slot, DOM0_SLOT);
  }
};
