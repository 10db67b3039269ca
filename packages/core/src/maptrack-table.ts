/**
 * Maptracks: what each domain has mapped of others, one row per mapping. A handle is a domain's number for a row; a row
 * has a place in a pool of pages that all domains share, of which a domain takes more as it needs them.
 *
 *     column    type  holds                                              written by
 *     state     u32   MAPPING_*; published last                          the mapper's p2m lock
 *     flags     u32   MAPPING_FLAG_*, and the GNTMAP flags asked for     map
 *     granter   u32   slot of the granter, or of the extent's owner      map
 *     ref       u32   reference in its table, or row of the extent       map
 *     gfn       u32   first gfn of the mapper where it is mapped + 1     map, unmap (0: no host half)
 *     deviceGfn u32   the same in the DMA view (0: no device half)       map, unmap
 *     mfn       u32   first granted frame                                map
 *     count     u32   frames                                             map
 *     local     u32   first frame + 1 that replaces it when it is        map
 *                     revoked; 0: zeros, or not revokable
 *     next      u32   next row + 1 of the entry's (or extent's) list of  the granter's grantTable lock
 *                     revokable mappings; of a free row: the next free handle + 1
 *     serial    u32   counts the uses of the row                         alloc
 *     notify    u32   what to do at unmap: see grant-notify.ts           mapper, under its p2m lock
 *
 * Per slot, all under the slot's maptrack lock: `frameCount` pages that it has, `frameMax` that it may have, `freeHead`
 * first free handle + 1, `liveCount` handles in use. `directory[slot * framesMax + n]` is its n-th page + 1. Free pages
 * of the pool are linked by `pageNext` from `poolHead` ([0] head + 1, [1] pages ever used), under the allocator lock.
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** Rows of one page. */
export const HANDLES_PER_PAGE = 256;
/** What a handle never is. */
export const INVALID_HANDLE = 0xffff_ffff;

export const MAPPING_FREE = 0;
/** Taken; the granter's entry is pinned or about to be; nothing is mapped yet. */
export const MAPPING_PENDING = 1;
/** Mapped. */
export const MAPPING_LIVE = 2;
/** Revoked while it was pending: whoever maps it gives up. */
export const MAPPING_REVOKED = 3;
/** Revoked while it was mapped: the mapper sees its local page; nothing of the granter is held any more. */
export const MAPPING_SEVERED = 4;

/** Made by map_revokable, or of an extent. */
export const MAPPING_FLAG_REVOKABLE = 1 << 8;
/** `local` is the mapper's own page that stood at `gfn` before: it comes back there. */
export const MAPPING_FLAG_LAID_OVER = 1 << 9;
/** `local` was given by the hypervisor, and goes when the mapping goes. */
export const MAPPING_FLAG_PROVIDED = 1 << 10;
/** `ref` is a row of the extent table. Only the control domain takes such a mapping away. */
export const MAPPING_FLAG_EXTENT = 1 << 11;

/** See the file's comment. */
export class MaptrackTable {
  readonly state: Uint32Array;
  readonly flags: Uint32Array;
  readonly granter: Uint32Array;
  readonly ref: Uint32Array;
  readonly gfn: Uint32Array;
  readonly deviceGfn: Uint32Array;
  readonly mfn: Uint32Array;
  readonly count: Uint32Array;
  readonly local: Uint32Array;
  readonly next: Uint32Array;
  readonly serial: Uint32Array;
  readonly notify: Uint32Array;
  readonly frameCount: Uint32Array;
  readonly frameMax: Uint32Array;
  readonly freeHead: Uint32Array;
  readonly liveCount: Uint32Array;
  readonly directory: Uint32Array;
  /** Slot that has a page of the pool + 1. */
  readonly pageOwner: Uint32Array;
  readonly pageNext: Uint32Array;
  readonly poolHead: Uint32Array;
  readonly framesMax: number;
  readonly pageCount: number;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const slots = geometry.domainCountMax;
    const rows = geometry.maptrackPages * HANDLES_PER_PAGE;
    this.framesMax = geometry.maptrackFramesMax;
    this.pageCount = geometry.maptrackPages;
    this.state = arena.u32(rows);
    this.flags = arena.u32(rows);
    this.granter = arena.u32(rows);
    this.ref = arena.u32(rows);
    this.gfn = arena.u32(rows);
    this.deviceGfn = arena.u32(rows);
    this.mfn = arena.u32(rows);
    this.count = arena.u32(rows);
    this.local = arena.u32(rows);
    this.next = arena.u32(rows);
    this.serial = arena.u32(rows);
    this.notify = arena.u32(rows);
    this.frameCount = arena.u32(slots);
    this.frameMax = arena.u32(slots);
    this.freeHead = arena.u32(slots);
    this.liveCount = arena.u32(slots);
    this.directory = arena.u32(slots * this.framesMax);
    this.pageOwner = arena.u32(this.pageCount);
    this.pageNext = arena.u32(this.pageCount);
    this.poolHead = arena.u32(2);
  }

  /** Row of the domain's `handle`, or -1: it has no such handle. */
  row(slot: number, handle: number): number {
    const page = Math.floor(handle / HANDLES_PER_PAGE);
    if (page >= Atomics.load(this.frameCount, slot)) return -1;
    return (this.directory[slot * this.framesMax + page]! - 1) * HANDLES_PER_PAGE + (handle % HANDLES_PER_PAGE);
  }

  /** Row of a handle that the domain has. */
  ownRow(slot: number, handle: number): number {
    const page = this.directory[slot * this.framesMax + (handle >>> 8)]! - 1;
    return (page << 8) | (handle & (HANDLES_PER_PAGE - 1));
  }

  /** Slot of the domain that a row belongs to, or -1. */
  ownerOf(row: number): number {
    return this.pageOwner[Math.floor(row / HANDLES_PER_PAGE)]! - 1;
  }
}
