/**
 * Address spaces of the control domain: a window of 4 GiB onto its own memory and onto what others share with it, and
 * one like it for its devices (the DMA view). Each is attached to a slot of the hypervisor like a guest's memory, so
 * that frames are mapped, revoked and unmapped there by the same operations.
 *
 * JavaScript has views of them that nobody can take back. So nothing in them ever faults (mmu.ts): a view of what is
 * mapped no more reads and writes throw-away memory of its own, whatever was or will be there.
 */
import assert from "node:assert/strict";
import { XenolithError } from "@xenolith/abi";
import { attachSpace, detachSpace, type Hypervisor } from "@xenolith/core";
import { baseAddress, check, mapScratch } from "@xenolith/sys";
import { GfnAllocator } from "./gfn-allocator.ts";
import { createSpaceMemory, sharedBufferOf, SPACE_BYTES } from "./machine.ts";
import { FRAME_BYTES } from "./mmu.ts";

/** 4 GiB of address space in which nothing faults. */
export interface SoftSpace {
  readonly memory: WebAssembly.Memory;
  /** Host address of byte 0. */
  readonly base: number;
}

/** gfn 0 is nobody's: an address of 0 means none. */
const GFN_FIRST = 1;
const GFN_END = SPACE_BYTES / FRAME_BYTES;

/**
 * Creates a soft space, all of it empty.
 *
 * @throws XenolithError `CAPABILITY_MISSING` when the process has no address space left; SystemCallError.
 */
export const createSoftSpace = (): SoftSpace => {
  const memory = createSpaceMemory();
  const base = baseAddress(memory);
  check(mapScratch(base, SPACE_BYTES), "mmap", { length: SPACE_BYTES });
  return { memory, base };
};

/** One address space of the control domain. */
export class Dom0Space {
  /** Slot of the hypervisor whose p2m says what stands where. */
  readonly slot: number;
  /** All of it. */
  readonly buffer: SharedArrayBuffer;
  readonly #hypervisor: Hypervisor;
  readonly #gfns = new GfnAllocator(GFN_FIRST, GFN_END);

  /** `space` must be one of the soft spaces that every thread's page tables know. */
  constructor(hypervisor: Hypervisor, slot: number, space: SoftSpace) {
    this.slot = slot;
    this.buffer = sharedBufferOf(space.memory);
    this.#hypervisor = hypervisor;
    const result = attachSpace(hypervisor, slot, space.base);
    assert(result === 0, "there is nothing in it yet that could fail");
  }

  /**
   * Sets `count` guest frames aside and returns the first; they are holes.
   *
   * @throws XenolithError `MEMORY_EXHAUSTED` when there is no such run of free addresses.
   */
  take(count: number): number {
    const gfn = this.#gfns.take(count);
    if (gfn >= 0) return gfn;
    throw new XenolithError(
      "MEMORY_EXHAUSTED",
      `the control domain has no ${count * FRAME_BYTES} bytes of addresses left in its window of 4 GiB`,
    );
  }

  /** Takes frames back that `take(count)` returned and that are holes again. */
  give(gfn: number, count: number): void {
    const { p2m } = this.#hypervisor;
    const first = p2m.at(this.slot, gfn);
    for (let at = first; at < first + count; at += 1) assert(p2m.entries[at] === 0);
    this.#gfns.give(gfn, count);
  }

  /** A view of `lengthBytes` bytes from the beginning of `gfn`. It can be used for ever, whatever stands there. */
  bytes(gfn: number, lengthBytes: number): Uint8Array<SharedArrayBuffer> {
    return new Uint8Array(this.buffer, gfn * FRAME_BYTES, lengthBytes);
  }

  /** Empties it for good. Views show zeros from now on. */
  close(): void {
    const result = detachSpace(this.#hypervisor, this.slot);
    assert(result === 0, "an address space could not be emptied");
  }
}
