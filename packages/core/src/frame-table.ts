/**
 * Machine frames, one row per mfn.
 *
 *     column    type  holds                                              written by
 *     owner     u32   slot + 1 of the owning domain, HYPERVISOR_OWNER,    allocation, release
 *                     or 0 while the frame is free
 *     refs      u32   1 for the allocation, and 1 for each user that     allocation; users, atomically
 *                     must not see it freed; it is freed at 0
 *     writable  u32   writable mappings in other domains (grants,        address space, atomically
 *                     foreign); the owner's own mapping is not counted
 *     gfn       u32   gfn where the owner sees it + 1, or 0 (m2p)        address space, under the owner's p2m lock
 *     next      u32   next of its list + 1, or 0: a free list (heads     allocator lock; owner's pages lock
 *     prev      u32   only) or its owner's list of unhooked frames
 *     flags     u8    FRAME_*                                            allocator lock; owner's pages lock
 *     order     u8    of the free block that this frame is the head of   allocator lock
 *
 * A free frame has owner, refs, writable and gfn 0. Its bytes are zero and the host has taken its memory back: nothing
 * may touch it through the direct map, which would make it resident again.
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";
import { MemoryMapTable } from "./memory-map-table.ts";

/** Owner of frames that belong to no domain: shared_info, later grant tables. */
export const HYPERVISOR_OWNER = 0xffff_ffff;
/**
 * The frame that p2m entries of type P2M_ZERO name: the first one, which is withheld at boot, belongs to the hypervisor
 * and is never written. Guests do not see it but the kernel's page of zeros; the hypervisor reads it for them.
 */
export const ZERO_FRAME = 0;
/** Most references that one frame can have. */
export const FRAME_REFS_MAX = 0x7fff_ffff;

/** The frame is the head of a free block; `order` and the links are those of the free list. */
export const FRAME_FREE_HEAD = 1;
/** The frame is on its owner's list of unhooked frames. */
export const FRAME_UNHOOKED = 2;
/** The owner gave the frame back; it is freed when the last user drops its reference. */
export const FRAME_RELEASED = 4;
/** The frame is part of an exchange that is being made (under the owner's p2m lock only). */
export const FRAME_EXCHANGED = 8;

/** Orders of free blocks: 0 ... FRAME_ORDER_COUNT - 1. */
export const FRAME_ORDER_COUNT = 32;

/** Indices of `FrameTable.totals`. The first two change under the allocator lock only, the third atomically. */
export const TOTAL_FREE = 0;
export const TOTAL_CLAIMED = 1;
export const TOTAL_VMAS = 2;
/** Bit n is set while the free list of order n is not empty. */
export const TOTAL_ORDERS = 3;

/** Column table of all machine frames, with the heads of the free lists. */
export class FrameTable {
  readonly owner: Uint32Array;
  readonly refs: Uint32Array;
  readonly writable: Uint32Array;
  readonly gfn: Uint32Array;
  readonly next: Uint32Array;
  readonly prev: Uint32Array;
  readonly flags: Uint8Array;
  readonly order: Uint8Array;
  /** First block of each order, mfn + 1, or 0. */
  readonly freeHead: Uint32Array;
  /** See TOTAL_*. */
  readonly totals: Int32Array;
  /** What each domain is told about its address space. */
  readonly memoryMaps: MemoryMapTable;
  /** Where `refs`, `writable` and `totals` begin in the control buffer, in bytes. */
  readonly refsStart: number;
  readonly writableStart: number;
  readonly totalsStart: number;
  /** Rows. */
  readonly count: number;
  readonly framesPerBank: number;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const count = geometry.machineFrames;
    this.count = count;
    this.framesPerBank = geometry.framesPerBank;
    this.owner = arena.u32(count);
    this.refs = arena.u32(count);
    this.writable = arena.u32(count);
    this.refsStart = this.refs.byteOffset;
    this.writableStart = this.writable.byteOffset;
    this.gfn = arena.u32(count);
    this.next = arena.u32(count);
    this.prev = arena.u32(count);
    this.flags = arena.u8(count);
    this.order = arena.u8(count);
    this.freeHead = arena.u32(FRAME_ORDER_COUNT);
    this.totals = arena.i32(4);
    this.totalsStart = this.totals.byteOffset;
    this.memoryMaps = new MemoryMapTable(arena, geometry);
  }
}
