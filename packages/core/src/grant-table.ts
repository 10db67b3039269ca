/**
 * Grant tables, version 1. A table has two halves: shared frames that the granter writes (hints, read once and never
 * trusted again) and these columns, which only the hypervisor sees.
 *
 * One row per (slot, ref), at `slot * refsMax + ref`; an entry is active while `pin` is not 0:
 *
 *     column    type  holds                                               written by
 *     pin       u32   four 8-bit counters: PIN_*; 0 = inactive             under the granter's grantTable lock
 *     grantee   u32   domid for which the entry was pinned                 first pin
 *     frame     u32   mfn pinned + 1                                       first pin
 *     gfn       u32   gfn that it had then                                 first pin
 *     mode      u32   GRANT_MODE_* of the first pin                        first pin
 *     first     u32   first maptrack row (+ 1) of the list of revokable    map, unmap, revoke
 *                     mappings, linked by MaptrackTable.next; 0: none
 *     notify    u32   what to do when the granter lets go of the page      gntalloc's notification, under the lock
 *
 * One row per slot:
 *
 *     frameCount u32  shared frames that exist                             grow, under the grantTable lock; 0: none (yet, or any more)
 *     frameMax   u32  shared frames that may exist                         create
 *     sharedFrame u32 grantFramesMax per slot: mfn + 1 of each             grow, reap
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

/** Version 1 entries in one frame. */
export const REFS_PER_FRAME = 512;
/** Bytes of a version 1 entry. */
export const GRANT_ENTRY_BYTES = 8;

/** Units of the pin counters, and where each lies. */
export const PIN_HOST_WRITE = 1;
export const PIN_HOST_READ = 1 << 8;
export const PIN_DEVICE_WRITE = 1 << 16;
export const PIN_DEVICE_READ = 1 << 24;
/** All counters of writers. */
export const PIN_WRITE_MASK = 0x00ff_00ff;
/** Set when one of the counters has reached 128, its limit. */
export const PIN_FULL_MASK = 0x8080_8080;

/** The entry was pinned by map_grant_ref or by a copy of a plain grant. */
export const GRANT_MODE_PLAIN = 0;
/** The entry was pinned as revokable: by map_revokable or by a copy. */
export const GRANT_MODE_REVOKABLE = 1;
/** Besides: its mappings are being taken back, and no new ones are made meanwhile. */
export const GRANT_MODE_REVOKING = 2;

/** The hypervisor's half of every grant table. */
export class GrantTable {
  readonly pin: Uint32Array;
  readonly grantee: Uint32Array;
  readonly frame: Uint32Array;
  readonly gfn: Uint32Array;
  readonly mode: Uint32Array;
  readonly first: Uint32Array;
  readonly notify: Uint32Array;
  readonly frameCount: Uint32Array;
  readonly frameMax: Uint32Array;
  readonly sharedFrame: Uint32Array;
  /** Shared frames that a slot has room for. */
  readonly framesMax: number;
  /** Rows of one slot. */
  readonly refsMax: number;

  constructor(arena: ColumnArena, geometry: Geometry) {
    const slots = geometry.domainCountMax;
    this.framesMax = geometry.grantFramesMax;
    this.refsMax = this.framesMax * REFS_PER_FRAME;
    const count = slots * this.refsMax;
    this.pin = arena.u32(count);
    this.grantee = arena.u32(count);
    this.frame = arena.u32(count);
    this.gfn = arena.u32(count);
    this.mode = arena.u32(count);
    this.first = arena.u32(count);
    this.notify = arena.u32(count);
    this.frameCount = arena.u32(slots);
    this.frameMax = arena.u32(slots);
    this.sharedFrame = arena.u32(slots * this.framesMax);
  }

  /** Row of `ref` of the domain in `slot`. The caller has checked `ref` against `refCount`. */
  row(slot: number, ref: number): number {
    return slot * this.refsMax + ref;
  }

  /** What the rows of a slot take of the memory: one piece of each column. */
  rowsOf(slot: number): Uint32Array[] {
    const { pin, grantee, frame, gfn, mode, first, notify } = this;
    const start = this.row(slot, 0);
    return [pin, grantee, frame, gfn, mode, first, notify].map((column) =>
      column.subarray(start, start + this.refsMax),
    );
  }

  /** References that the table of the domain in `slot` has now. */
  refCount(slot: number): number {
    return Atomics.load(this.frameCount, slot) * REFS_PER_FRAME;
  }

  /** Machine address of the shared entry of `ref`, which is below `refCount`. */
  entryAddress(slot: number, ref: number): number {
    const mfn = this.sharedFrame[slot * this.framesMax + ((ref / REFS_PER_FRAME) | 0)]! - 1;
    return mfn * 4096 + (ref & (REFS_PER_FRAME - 1)) * GRANT_ENTRY_BYTES;
  }
}
