/**
 * Memory maps: what XENMEM_memory_map tells a domain about its address space (an e820 map, set by who builds it).
 *
 *     column   type        holds                                written by
 *     count    u32         entries; 0 = no map was set          set_memory_map, tear-down
 *     entries  u8 × 20·32  e820entry structs as given           set_memory_map
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** Entries that a memory map can have. */
export const MEMORY_MAP_ENTRIES_MAX = 32;
/** Bytes of an `e820entry`. A number, so that tables can be laid out without declaring structs of memory_op. */
const ENTRY_BYTES = 20;

/** Column table of all memory maps, by domain slot. Written under the domain's p2m lock. */
export class MemoryMapTable {
  readonly count: Uint32Array;
  readonly #entries: Uint8Array;

  constructor(arena: ColumnArena, geometry: Geometry) {
    this.count = arena.u32(geometry.domainCountMax);
    this.#entries = arena.u8(geometry.domainCountMax * MEMORY_MAP_ENTRIES_MAX * ENTRY_BYTES);
  }

  /** The first `count` entries of the domain in `slot`, as bytes. A view: copy before the lock goes. */
  entries(slot: number, count: number): Uint8Array {
    const at = slot * MEMORY_MAP_ENTRIES_MAX * ENTRY_BYTES;
    return this.#entries.subarray(at, at + count * ENTRY_BYTES);
  }
}
