/**
 * The upcall of a Xen-style guest: its export `xen_upcall`, called in the vCPU's own thread when a hypercall is about
 * to return and an event is pending that the guest has not masked; never while an upcall runs already.
 */
import { vcpu_info } from "@xenolith/abi";
import type { Hypervisor } from "@xenolith/core";

const PENDING = vcpu_info.evtchn_upcall_pending.offset;
const MASK = vcpu_info.evtchn_upcall_mask.offset;

/** Delivers upcalls to one vCPU. */
export class Upcall {
  readonly #hypervisor: Hypervisor;
  readonly #index: number;
  readonly #addresses: Float64Array;
  #deliver: (() => void) | undefined;
  #running = false;
  /** Machine address that `#flags` shows. */
  #address = 0;
  #flags: Uint8Array = new Uint8Array(2);

  constructor(hypervisor: Hypervisor, index: number) {
    this.#hypervisor = hypervisor;
    this.#index = index;
    this.#addresses = hypervisor.vcpus.vcpuInfo;
  }

  /** From now on events are delivered by calling `deliver`. */
  bind(deliver: (() => void) | undefined): void {
    this.#deliver = deliver;
  }

  /** Whether an event waits that the guest has not masked. Two plain loads: a flag that is missed shows next time. */
  get isPending(): boolean {
    const address = this.#addresses[this.#index]!;
    if (address !== this.#address) this.#look(address);
    return this.#flags[PENDING] !== 0 && this.#flags[MASK] === 0;
  }

  /** Whether `check` would call the guest. */
  get isDue(): boolean {
    return this.#deliver !== undefined && !this.#running && this.isPending;
  }

  /** Calls the guest when an event is pending. Outside the gate. What the guest throws goes on to its caller. */
  check(): void {
    if (this.#deliver !== undefined && this.isPending && !this.#running) this.#run(this.#deliver);
  }

  #run(deliver: () => void): void {
    this.#running = true;
    try {
      deliver();
    } finally {
      this.#running = false;
    }
  }

  /** The vcpu_info moved: the guest registered another place. */
  #look(address: number): void {
    this.#address = address;
    this.#flags = address === 0 ? new Uint8Array(2) : this.#hypervisor.directMap.bytes(address, 2);
  }
}
