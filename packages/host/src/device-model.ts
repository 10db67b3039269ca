/**
 * A device model in the calling program. It is bound to one domain when it is made, has the rights that a device model in
 * a domain of its own would have, and no others: it populates pages of its target, and raises its target's limit within
 * the bound that the target was created with.
 */
import { ENOMEM, ENOSPC, errnoName, XenolithError } from "@xenolith/abi";
import { depopulateRun, GuestMemory, type Hypervisor, isAlive, memoryLimits, setMaxPagesByModel } from "@xenolith/core";
import { check, slotOf } from "./domain-facts.ts";
import type { DomainName } from "./domain-options.ts";
import { populateHoles } from "./guest-heap.ts";
import { FRAME_BYTES } from "./mmu.ts";

const ADDRESS_END = 2 ** 32;

/** A device model of one domain. */
export class DeviceModel {
  readonly #hypervisor: Hypervisor;
  readonly #target: DomainName;

  /** Only `DomainMemory` makes these. */
  constructor(hypervisor: Hypervisor, target: DomainName) {
    this.#hypervisor = hypervisor;
    this.#target = target;
  }

  /** By how many bytes device models of this domain may raise its limit beyond what they have. */
  get extraBytesLeft(): number {
    const { extraPages, extraPagesMax } = memoryLimits(this.#hypervisor, this.#slot());
    return Math.max(0, extraPagesMax - extraPages) * FRAME_BYTES;
  }

  /**
   * Raises the target's limit by whole frames, or lowers it (a negative number) by what device models raised.
   *
   * @throws XenolithError `INVALID_SIZE`, `MEMORY_LIMIT`: more than is left of the bound, `MEMORY_FROZEN`, `DOMAIN_STATE`.
   */
  raiseMax(moreBytes: number): void {
    if (!Number.isSafeInteger(moreBytes) || moreBytes % FRAME_BYTES !== 0)
      throw new XenolithError("INVALID_SIZE", `${moreBytes} bytes is not a whole number of frames of ${FRAME_BYTES}`);
    const slot = this.#slot();
    const pages = memoryLimits(this.#hypervisor, slot).maxPages + moreBytes / FRAME_BYTES;
    if (pages < 0) throw new XenolithError("MEMORY_LIMIT", `a limit cannot be lowered by ${-moreBytes} bytes below 0`);
    check(this.#target, setMaxPagesByModel(this.#hypervisor, slot, pages));
  }

  /**
   * Gives the target zeroed memory at whole frames where it has none: all of it or none.
   *
   * @throws XenolithError `GUEST_ADDRESS`, `MEMORY_LIMIT`, `MEMORY_EXHAUSTED`, `VMA_EXHAUSTED`, `DOMAIN_STATE`.
   */
  populate(address: number, lengthBytes: number): void {
    const { gfn, count } = this.#frames("populate", address, lengthBytes);
    const result = populateHoles(this.#hypervisor, this.#slot(), gfn, count);
    if (result === 0) return;
    const what = `${lengthBytes} bytes at address ${address} of domain ${this.#target.domid}`;
    if (result > 0) throw new XenolithError("GUEST_ADDRESS", `cannot populate ${what}: something stands there`);
    if (result === -ENOMEM) throw new XenolithError("MEMORY_EXHAUSTED", `no free frames to populate ${what}`);
    if (result === -ENOSPC) throw new XenolithError("VMA_EXHAUSTED", `no mappings left to populate ${what}`);
    throw new XenolithError("MEMORY_LIMIT", `cannot populate ${what}: ${errnoName(result) ?? result}`);
  }

  /**
   * Takes memory at whole frames away from the target again.
   *
   * @throws XenolithError `GUEST_ADDRESS`: not all of it was memory of the target; what came before is gone, `DOMAIN_STATE`.
   */
  release(address: number, lengthBytes: number): void {
    const { gfn, count } = this.#frames("release", address, lengthBytes);
    const done = depopulateRun(this.#hypervisor, this.#slot(), gfn, count);
    if (done < count) throw this.#notPopulated("release", (gfn + done) * FRAME_BYTES, (count - done) * FRAME_BYTES);
  }

  /**
   * Copies bytes into the target's memory.
   *
   * @throws XenolithError `GUEST_ADDRESS`, `DOMAIN_STATE`.
   */
  write(address: number, bytes: Uint8Array): void {
    this.#checkRange("write", address, bytes.length);
    const memory = new GuestMemory(this.#hypervisor, this.#slot());
    if (memory.copyToGuest(address, bytes) !== 0) throw this.#notPopulated("write", address, bytes.length);
  }

  /**
   * Copies bytes out of the target's memory.
   *
   * @throws XenolithError `GUEST_ADDRESS`, `DOMAIN_STATE`.
   */
  read(address: number, lengthBytes: number): Uint8Array {
    this.#checkRange("read", address, lengthBytes);
    const memory = new GuestMemory(this.#hypervisor, this.#slot());
    const bytes = new Uint8Array(lengthBytes);
    if (memory.copyFromGuest(address, bytes) !== 0) throw this.#notPopulated("read", address, lengthBytes);
    return bytes;
  }

  /** Slot of the target, as long as it is the one that this was made for and is not going. */
  #slot(): number {
    const slot = slotOf(this.#hypervisor, this.#target);
    if (!isAlive(this.#hypervisor, slot))
      throw new XenolithError("DOMAIN_STATE", `domain ${this.#target.domid} is going`);
    return slot;
  }

  #frames(action: string, address: number, lengthBytes: number): { gfn: number; count: number } {
    this.#checkRange(action, address, lengthBytes);
    if (lengthBytes === 0 || address % FRAME_BYTES !== 0 || lengthBytes % FRAME_BYTES !== 0)
      throw new XenolithError("GUEST_ADDRESS", `cannot ${action} ${lengthBytes} bytes at ${address}: not whole frames`);
    return { gfn: address / FRAME_BYTES, count: lengthBytes / FRAME_BYTES };
  }

  #checkRange(action: string, address: number, lengthBytes: number): void {
    const isRange =
      Number.isSafeInteger(address) && Number.isSafeInteger(lengthBytes) && address >= 0 && lengthBytes >= 0;
    if (!isRange || address + lengthBytes > ADDRESS_END) throw this.#notPopulated(action, address, lengthBytes);
  }

  #notPopulated(action: string, address: number, lengthBytes: number): XenolithError {
    const what = `${lengthBytes} bytes at address ${address} of domain ${this.#target.domid}`;
    return new XenolithError("GUEST_ADDRESS", `cannot ${action} ${what}: not all of it is memory of the domain`);
  }
}
