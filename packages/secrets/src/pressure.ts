import { controlGroupMemory, memoryPressure } from "@xenolith/sys";

/** Share of the time, in percent, in which somebody waited for memory, from which on memory is short. */
const STALL_PERCENT = 10;
/** Part of a control group's limit above which memory is short. */
const GROUP_FULL = 0.95;

/** Whether memory is short now, by the kernel's pressure figures and the process's control group. */
export const memoryIsShort = (): boolean => {
  if ((memoryPressure()?.some.average10s ?? 0) > STALL_PERCENT) return true;
  const group = controlGroupMemory();
  if (group === undefined) return false;
  // What the kernel can take back is not what makes memory short: a program that has read a large file is not in need.
  const usedBytes = group.currentBytes - group.reclaimableBytes;
  return usedBytes > Math.min(group.maxBytes, group.highBytes) * GROUP_FULL;
};
