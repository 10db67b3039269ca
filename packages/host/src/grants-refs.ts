/**
 * The control domain's own grant table: which of its references are free, and the shared entries, written and taken back
 * as a guest does with its own. The table grows a frame at a time, up to its limit.
 * Source: xen/include/public/grant_table.h; docs/misc/grant-tables.txt.
 */
import {
  GNTST_okay,
  GNTTAB_NR_RESERVED_ENTRIES,
  GTF_permit_access,
  GTF_reading,
  GTF_readonly,
  GTF_revokable,
  GTF_type_mask,
  GTF_writing,
  XenolithError,
} from "@xenolith/abi";
import { DOM0_SLOT, grantFrame, type Hypervisor, REFS_PER_FRAME, revokeGrant } from "@xenolith/core";

/** What the other domain may do, and whether the page can be taken back while it does. */
export interface GrantAccess {
  readonly isReadOnly: boolean;
  readonly isRevokable: boolean;
}

const IN_USE = GTF_reading | GTF_writing;
/** Compare-and-swaps that somebody may spoil before an entry counts as in use. */
const END_TRIES = 5;
/** Bytes from the beginning of an entry to the frame that it grants. */
const FRAME_OFFSET = 4;

/** dom0's references. */
export class GrantRefs {
  readonly #hypervisor: Hypervisor;
  /** Free references; the last is given out next. */
  readonly #free: number[] = [];
  /** Frames of the table whose references are known here. */
  #frameCount = 0;

  constructor(hypervisor: Hypervisor) {
    this.#hypervisor = hypervisor;
  }

  /**
   * Sets `count` references aside, in ascending order.
   *
   * @throws XenolithError `GRANT_LIMIT`, `MEMORY_EXHAUSTED`.
   */
  take(count: number): number[] {
    const limit = this.#hypervisor.grants.frameMax[DOM0_SLOT]! * REFS_PER_FRAME - GNTTAB_NR_RESERVED_ENTRIES;
    const used = this.#frameCount === 0 ? 0 : this.#frameCount * REFS_PER_FRAME - GNTTAB_NR_RESERVED_ENTRIES;
    if (count > limit - used + this.#free.length) {
      throw new XenolithError(
        "GRANT_LIMIT",
        `${count} references are needed, the control domain has ${limit - used + this.#free.length} left of ${limit}`,
      );
    }
    while (this.#free.length < count) this.#grow();
    return this.#free.splice(this.#free.length - count).toSorted((a, b) => a - b);
  }

  /** Takes references back whose access has ended. */
  give(refs: readonly number[]): void {
    this.#free.push(...refs.toReversed());
  }

  /** Grants frame `gfn` of the control domain: the flags last, which publish the entry. */
  grant(ref: number, domid: number, gfn: number, access: GrantAccess): void {
    const { directMap } = this.#hypervisor;
    const address = this.#address(ref);
    const flags = GTF_permit_access | (access.isReadOnly ? GTF_readonly : 0) | (access.isRevokable ? GTF_revokable : 0);
    directMap.atomicStoreU32(address + FRAME_OFFSET, gfn);
    directMap.atomicStoreU32(address, ((domid << 16) | flags) >>> 0);
  }

  /** Whether somebody has the page mapped, or copies it, now. */
  isInUse(ref: number): boolean {
    return (this.#hypervisor.directMap.atomicLoadU32(this.#address(ref)) & IN_USE) !== 0;
  }

  /** Ends access for good unless somebody uses the page: one compare-and-swap decides. */
  endIfIdle(ref: number): boolean {
    const { directMap } = this.#hypervisor;
    const address = this.#address(ref);
    let word = directMap.atomicLoadU32(address);
    for (let tries = 0; tries < END_TRIES && (word & IN_USE) === 0; tries += 1) {
      const found = directMap.cas(address, word, 0);
      if (found === word) return true;
      word = found;
    }
    return false;
  }

  /** From now on nobody can begin to use the page; those who do go on. */
  removeAccess(ref: number): void {
    this.#hypervisor.directMap.andU32(this.#address(ref), ~GTF_type_mask >>> 0);
  }

  /** Takes the page of a revokable grant back, whose access was removed; returns whether that succeeded. */
  revoke(ref: number): boolean {
    return revokeGrant(this.#hypervisor, DOM0_SLOT, ref) === GNTST_okay;
  }

  #address(ref: number): number {
    return this.#hypervisor.grants.entryAddress(DOM0_SLOT, ref);
  }

  #grow(): void {
    const mfn = grantFrame(this.#hypervisor, DOM0_SLOT, this.#frameCount);
    if (mfn < 0) {
      throw new XenolithError("MEMORY_EXHAUSTED", "the machine has no frame left for the control domain's grant table");
    }
    const first = this.#frameCount * REFS_PER_FRAME;
    this.#frameCount += 1;
    const refs: number[] = [];
    for (let ref = first + REFS_PER_FRAME - 1; ref >= Math.max(first, GNTTAB_NR_RESERVED_ENTRIES); ref -= 1) {
      refs.push(ref);
    }
    // Behind those that are free already: low references first.
    this.#free.unshift(...refs);
  }
}
