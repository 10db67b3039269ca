/**
 * Physical-to-machine maps: for each domain slot, which machine frame stands at each guest frame. One word per gfn,
 * `mfn << 4 | type`, so that an entry changes at once for every reader. Entries change under the slot's p2m lock only,
 * and only in address-space.ts, which changes the guest's page table with them.
 *
 *     type              the frame                                         guest    direct map
 *     P2M_HOLE          none                                              -        -
 *     P2M_RAM           owned by the domain                               rw       rw
 *     P2M_RAM_RO        owned by the domain                               r        r
 *     P2M_SPECIAL       owned by the hypervisor (shared_info)             rw       rw
 *     P2M_GRANT_RW/_RO  another domain's, by a grant                      rw / r   rw / r
 *     P2M_FOREIGN       another domain's, by authority over it            rw       rw
 *     P2M_SECRET_RW/_RO none: pages of secret memory, which no thread      rw / r   -
 *                       but the guest's own ever reads (secret-frames.ts)
 *     P2M_REVOKABLE_RW/_RO  another domain's, by a grant that it may take back  rw / r   rw / r
 *     P2M_LOCAL_RW/_RO  the domain's own, in place of a revoked grant     rw / r   rw / r
 *     P2M_EXTENT_RW/_RO  another domain's, part of an extent              rw / r   rw / r
 *     P2M_ZERO          the kernel's zero page; the entry names a frame   r        r
 *                       of zeros that the hypervisor owns
 */
import type { Geometry } from "./geometry.ts";

export const P2M_HOLE = 0;
export const P2M_RAM = 1;
export const P2M_RAM_RO = 2;
export const P2M_SPECIAL = 3;
export const P2M_GRANT_RW = 4;
export const P2M_GRANT_RO = 5;
export const P2M_FOREIGN = 6;
export const P2M_SECRET_RW = 7;
export const P2M_REVOKABLE_RW = 8;
export const P2M_REVOKABLE_RO = 9;
export const P2M_LOCAL_RW = 10;
export const P2M_LOCAL_RO = 11;
export const P2M_EXTENT_RW = 12;
export const P2M_EXTENT_RO = 13;
export const P2M_ZERO = 14;
export const P2M_SECRET_RO = 15;

/** Bit t is set when the hypervisor may read type t for the guest. */
export const P2M_READABLE_TYPES = 0b0111_1111_0111_1110;
/** Bit t is set when the hypervisor may write type t for the guest. */
export const P2M_WRITABLE_TYPES = 0b0001_0101_0101_1010;
/** Bit t is set when the guest itself may write type t. */
const GUEST_WRITABLE_TYPES = 0b0001_0101_1101_1010;

/** Type of a p2m entry. */
export const p2mType = (entry: number): number => entry & 15;
/** Machine frame of a p2m entry; meaningless for a hole. */
export const p2mMfn = (entry: number): number => entry >>> 4;
/** The entry for `mfn` as `type`. */
export const p2mEntry = (mfn: number, type: number): number => ((mfn << 4) | type) >>> 0;
/** Whether the entry names RAM that the domain owns. */
export const isRam = (entry: number): boolean => {
  const type = entry & 15;
  return type === P2M_RAM || type === P2M_RAM_RO;
};
/**
 * Whether the entry names a page of secret memory. The one answer to that question: whatever takes pages of a guest for
 * anybody but the guest asks for a type that it can use, and a secret page is of none of them.
 */
export const isSecret = (entry: number): boolean => (entry & 15) === P2M_SECRET_RW || (entry & 15) === P2M_SECRET_RO;
/** Whether the guest's page table lets the guest write through this entry. */
export const isGuestWritable = (entry: number): boolean => ((GUEST_WRITABLE_TYPES >>> (entry & 15)) & 1) !== 0;

/** The p2m of every slot. */
export class P2m {
  /** Entry of (slot, gfn) at `slot * gfnCount + gfn`. */
  readonly entries: Uint32Array;
  /** Guest frames of one address space. */
  readonly gfnCount: number;

  constructor(entries: Uint32Array, geometry: Geometry) {
    this.entries = entries;
    this.gfnCount = geometry.gfnCount;
  }

  /** Entry of `gfn`; a hole for every number that is no gfn. */
  get(slot: number, gfn: number): number {
    return gfn >= 0 && gfn < this.gfnCount ? this.entries[slot * this.gfnCount + gfn]! : P2M_HOLE;
  }

  /** All entries of a slot. */
  rowsOf(slot: number): Uint32Array {
    return this.entries.subarray(this.at(slot, 0), this.at(slot + 1, 0));
  }

  /** Whether `count` (> 0) frames from `gfn` exist. The sum cannot wrap: both are below 2^53. */
  contains(gfn: number, count = 1): boolean {
    return gfn >= 0 && count > 0 && gfn + count <= this.gfnCount;
  }

  /** Index of `gfn`'s entry in `entries`. The caller has checked `gfn`. */
  at(slot: number, gfn: number): number {
    return slot * this.gfnCount + gfn;
  }
}
