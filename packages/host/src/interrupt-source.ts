/**
 * Physical interrupts whose source is host code: a domain maps one to a pirq of its own and binds that to an event
 * channel, as it would for a device that was passed through to it.
 */
import { errnoName, XenolithError } from "@xenolith/abi";
import { IRQ_COUNT, IRQ_MSI_BASE, lowerPirq, mapPirq, permitIrq, raisePirq, unmapPirq } from "@xenolith/core";
import type { HostContext } from "./host-context.ts";

/** One interrupt of one domain. */
export class InterruptSource {
  /** The domain's number for it. */
  readonly pirq: number;
  readonly #context: HostContext;
  readonly #slot: number;
  readonly #irq: number;

  /**
   * Gives the domain in `slot` the right to `irq` and maps it. Below 64 it is a line (level-triggered), from 64 to 255
   * a message (edge-triggered).
   *
   * @throws XenolithError `INVALID_ARGUMENT`, `HYPERCALL_FAILED`.
   */
  constructor(context: HostContext, slot: number, irq: number) {
    if (!Number.isInteger(irq) || irq < 0 || irq >= IRQ_COUNT) {
      throw new XenolithError(
        "INVALID_ARGUMENT",
        `interrupt is ${irq}, it must be a whole number from 0 to ${IRQ_COUNT - 1}`,
      );
    }
    this.#context = context;
    this.#slot = slot;
    this.#irq = irq;
    permitIrq(context.hypervisor, slot, irq, true);
    this.pirq = mapPirq(context.hypervisor, slot, irq, irq);
    if (this.pirq < 0)
      throw new XenolithError("HYPERCALL_FAILED", `cannot map interrupt ${irq}: ${errnoName(this.pirq) ?? this.pirq}`);
  }

  /** Whether it is a line, which stays asserted until `lower`. */
  get isLine(): boolean {
    return this.#irq < IRQ_MSI_BASE;
  }

  /** Raises it; returns whether the guest got an event. */
  raise(): boolean {
    return raisePirq(this.#context.hypervisor, this.#slot, this.pirq);
  }

  /** A line is no longer asserted. */
  lower(): void {
    lowerPirq(this.#context.hypervisor, this.#slot, this.pirq);
  }

  /** Takes the interrupt away from the domain. */
  close(): void {
    unmapPirq(this.#context.hypervisor, this.#slot, this.pirq);
    permitIrq(this.#context.hypervisor, this.#slot, this.#irq, false);
  }
}
