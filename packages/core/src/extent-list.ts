/**
 * A guest's list of frame numbers, read once and in order, a page of it at a time.
 */
import { EFAULT } from "@xenolith/abi";
import assert from "node:assert/strict";
import { FRAME_BYTES } from "./direct-map.ts";
import type { GuestMemory } from "./guest-memory.ts";

const ENTRY_BYTES = 4;

/** Reader of one list of u32. Each thread has its own; a list is open within one operation. */
export class ExtentList {
  readonly #words = new Uint32Array(FRAME_BYTES / ENTRY_BYTES);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  #memory: GuestMemory | null = null;
  #address = 0;
  #left = 0;
  #buffered = 0;
  #taken = 0;

  /** Starts at `address`, with `count` entries. False: they do not lie in the address space. */
  open(memory: GuestMemory, address: number, count: number): boolean {
    this.#memory = memory;
    this.#address = address;
    this.#left = count;
    this.#buffered = 0;
    this.#taken = 0;
    return address + count * ENTRY_BYTES <= 0x1_0000_0000;
  }

  /** The next entry, or -EFAULT. */
  next(): number {
    if (this.#taken === this.#buffered && !this.#fill()) return -EFAULT;
    this.#taken += 1;
    return this.#words[this.#taken - 1]!;
  }

  /** Reads on to the end of the page, so that a bad page costs only the entries that lie in it. */
  #fill(): boolean {
    assert(this.#memory !== null && this.#left > 0);
    const toPageEnd = Math.floor((FRAME_BYTES - (this.#address % FRAME_BYTES)) / ENTRY_BYTES);
    const count = Math.min(this.#left, Math.max(1, toPageEnd));
    const bytes = count === this.#words.length ? this.#bytes : this.#bytes.subarray(0, count * ENTRY_BYTES);
    if (this.#memory.copyFromGuest(this.#address, bytes) !== 0) return false;
    this.#address += count * ENTRY_BYTES;
    this.#left -= count;
    this.#buffered = count;
    this.#taken = 0;
    return true;
  }
}
