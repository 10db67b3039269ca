/**
 * Whether a new domain fits: its memory must be free, or be what other guests can be asked to give back, and be claimed
 * before anything of it is built.
 */
import { XenolithError } from "@xenolith/abi";
import { formatSize } from "../quantity.ts";

const PAGE_BYTES = 4096;

/** The machine as the hypervisor knows it at this moment, in pages. */
export interface MachineState {
  readonly freePages: number;
  /** Claims of domains that are being built. */
  readonly claimedPages: number;
  /** What running guests own above their least. */
  readonly reclaimablePages: number;
}

/** What a new domain asks for. */
export interface NewDomain {
  readonly name: string;
  readonly minPages: number;
  readonly maxPages: number;
}

/** The answer; with what has to be given back by others before the claim can be made. */
export type Admission =
  | { readonly isAdmitted: true; readonly claimPages: number; readonly reclaimPages: number }
  | { readonly isAdmitted: false; readonly missingPages: number; readonly error: XenolithError };

/** Decides. A domain that fits in part begins with what there is: at least its `minPages`, at most its `maxPages`. */
export const admit = (
  { freePages, claimedPages, reclaimablePages }: MachineState,
  { name, minPages, maxPages }: NewDomain,
): Admission => {
  const unclaimed = Math.max(0, freePages - claimedPages);
  const attainable = unclaimed + reclaimablePages;
  if (minPages > attainable) {
    const size = (pages: number): string => formatSize(pages * PAGE_BYTES);
    const message = `domain ${JSON.stringify(name)} needs ${size(minPages)}: ${size(freePages)} are free, ${size(
      claimedPages,
    )} of them claimed, and other guests can give back ${size(reclaimablePages)}`;
    return {
      isAdmitted: false,
      missingPages: minPages - attainable,
      error: new XenolithError("MEMORY_EXHAUSTED", message),
    };
  }
  const claimPages = Math.max(minPages, Math.min(maxPages, unclaimed));
  return { isAdmitted: true, claimPages, reclaimPages: Math.max(0, claimPages - unclaimed) };
};
