/**
 * Address spaces of domains: 4 GiB shared WebAssembly memories in which nothing is accessible until the hypervisor maps
 * frames. The control domain creates and keeps them, so that an address outlives every thread that runs in it. A space
 * that comes back is mapped inaccessible as a whole before it is used again: nothing of the previous domain can be left.
 */
import assert from "node:assert/strict";
import { baseAddress, check, reserve } from "@xenolith/sys";
import { createSpaceMemory, SPACE_BYTES } from "./machine.ts";

/** One domain's linear memory. */
export interface AddressSpace {
  readonly memory: WebAssembly.Memory;
  /** Host address of byte 0. */
  readonly base: number;
}

/** Idle spaces kept for the next domains; more are dropped and unmapped by the garbage collector. */
const IDLE_COUNT_MAX = 64;

/** Creates address spaces and keeps idle ones. */
export class AddressSpacePool {
  readonly #idle: AddressSpace[] = [];
  readonly #inUse = new Set<AddressSpace>();

  /** Spaces that domains use now. */
  get inUseCount(): number {
    return this.#inUse.size;
  }

  /**
   * An address space in which every page is inaccessible.
   *
   * @throws XenolithError `CAPABILITY_MISSING` when the process has no address space left.
   */
  take(): AddressSpace {
    const space = this.#idle.pop() ?? createAddressSpace();
    this.#inUse.add(space);
    return space;
  }

  /** Takes a space back whose domain has been detached and whose threads have all ended. */
  give(space: AddressSpace): void {
    assert(this.#inUse.delete(space));
    check(reserve(space.base, SPACE_BYTES), "mmap", { length: SPACE_BYTES });
    if (this.#idle.length < IDLE_COUNT_MAX) this.#idle.push(space);
  }
}

const createAddressSpace = (): AddressSpace => {
  const memory = createSpaceMemory();
  const base = baseAddress(memory);
  check(reserve(base, SPACE_BYTES), "mmap", { length: SPACE_BYTES });
  return { memory, base };
};
