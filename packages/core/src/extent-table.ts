/**
 * Extents: runs of frames that the control domain shares as a whole, its own or a guest's. Each frame of an extent holds
 * one reference for the extent, however many domains have it mapped; an extent that has been closed is given back with
 * its last mapping.
 *
 *     column    type  holds                                             written by
 *     state     u32   EXTENT_*                                          control domain
 *     kind      u32   EXTENT_OF_*: what it is made of                   create
 *     handle    u32   of secret memory: what the page table calls it    create
 *     sealed    u32   of secret memory: 1 when nobody may write it      seal
 *     granter   u32   slot that owns the frames                         create
 *     gfn       u32   first gfn of it there; of no meaning for secrets  create
 *     mfn       u32   first frame                                       create
 *     count     u32   frames, all in one bank, or pages                 create
 *     mappings  u32   maptrack rows that map it                         under the granter's grantTable lock
 *     first     u32   first of these rows (+ 1), linked by next         under the granter's grantTable lock
 *     serial    u32   counts the uses of the row                        create
 *
 * An extent of secret memory has no frames: its pages are in a file of the kernel's, and have names of their own
 * (secret-frames.ts). It holds no reference on anything.
 *
 * Extents, and mappings of them, are made and taken away by the control domain's thread only; the locks are for the
 * guests, which change the same p2ms and maptracks.
 */
import type { ColumnArena } from "./columns.ts";
import type { Geometry } from "./geometry.ts";

export const EXTENT_FREE = 0;
export const EXTENT_OPEN = 1;
/** No further mapping; given back with the last one. */
export const EXTENT_CLOSED = 2;

/** Frames of its granter. */
export const EXTENT_OF_FRAMES = 0;
/** Pages of secret memory that belong to its granter. */
export const EXTENT_OF_SECRETS = 1;

/** See the file's comment. */
export class ExtentTable {
  readonly state: Uint32Array;
  readonly kind: Uint32Array;
  readonly handle: Uint32Array;
  readonly sealed: Uint32Array;
  readonly granter: Uint32Array;
  readonly gfn: Uint32Array;
  readonly mfn: Uint32Array;
  readonly count: Uint32Array;
  readonly mappings: Uint32Array;
  readonly first: Uint32Array;
  readonly serial: Uint32Array;
  readonly rowCount: number;
  /** p2m entries for reading of each extent, by row: made once, for all mappings. Of the control domain's thread only. */
  readonly entries = new Map<number, Uint32Array>();

  constructor(arena: ColumnArena, geometry: Geometry) {
    const rows = geometry.extentCount;
    this.rowCount = rows;
    this.state = arena.u32(rows);
    this.kind = arena.u32(rows);
    this.handle = arena.u32(rows);
    this.sealed = arena.u32(rows);
    this.granter = arena.u32(rows);
    this.gfn = arena.u32(rows);
    this.mfn = arena.u32(rows);
    this.count = arena.u32(rows);
    this.mappings = arena.u32(rows);
    this.first = arena.u32(rows);
    this.serial = arena.u32(rows);
  }
}
