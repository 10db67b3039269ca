/**
 * Scrubbing: freed frames go back to the host, which gives zeros when they are used again. Where the host refuses, the
 * hypervisor writes the zeros itself, so that no path hands out foreign bytes.
 */
import type { Hypervisor } from "./hypervisor.ts";

/** Makes `count` frames of one bank from `mfn` read as zeros, giving their memory back to the host if it takes it. */
export const scrubRun = (hypervisor: Hypervisor, mfn: number, count: number): void => {
  if (hypervisor.platform.mmu.discard(mfn, count) === 0) return;
  hypervisor.directMap.zeroFrames(mfn, count);
};
