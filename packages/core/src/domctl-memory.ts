/**
 * domctl, extensions: a domain's memory limits as one, and their freeze. See memory-limits.ts.
 */
import * as abi from "@xenolith/abi";
import type { Cpu } from "./cpu.ts";
import * as limits from "./memory-limits.ts";

const { EINVAL } = abi;
const { freeze_memory: freezing, memory_limits: layout } = abi.xen_domctl.u;
const { XEN_MEMORY_LIMIT_extra, XEN_MEMORY_LIMIT_max, XEN_MEMORY_LIMIT_own } = abi;
const WHAT_KNOWN = XEN_MEMORY_LIMIT_extra | XEN_MEMORY_LIMIT_max | XEN_MEMORY_LIMIT_own;

/** XEN_DOMCTL_freeze_memory. Writes the token of a freeze. */
export const freezeOrThaw = (cpu: Cpu, slot: number): number => {
  const { scratch } = cpu.memory;
  const wanted = freezing.freeze.get(scratch, 0);
  if (wanted > 1) return -EINVAL;
  if (wanted === 0) return limits.thawMemory(cpu.hypervisor, slot, freezing.token.get(scratch, 0));
  const token = limits.freezeMemory(cpu.hypervisor, slot, cpu.slot);
  if (token < 0) return token;
  freezing.token.set(scratch, 0, token);
  return 0;
};

/** XEN_DOMCTL_get_memory_limits. */
export const getLimits = (cpu: Cpu, slot: number): number => {
  const { scratch } = cpu.memory;
  const now = limits.memoryLimits(cpu.hypervisor, slot);
  layout.max_pages.set(scratch, 0, now.maxPages);
  layout.tot_pages.set(scratch, 0, now.totPages);
  layout.extra_pages_max.set(scratch, 0, now.extraPagesMax);
  layout.extra_pages.set(scratch, 0, now.extraPages);
  layout.what.set(scratch, 0, 0);
  layout.token.set(scratch, 0, 0);
  layout.frozen.set(scratch, 0, now.isFrozen ? 1 : 0);
  layout.pad.set(scratch, 0, 0);
  return 0;
};

/** XEN_DOMCTL_set_memory_limits. All that is asked for, or nothing. */
export const setLimits = (cpu: Cpu, slot: number): number => {
  const { hypervisor, memory } = cpu;
  const { scratch } = memory;
  const what = layout.what.get(scratch, 0);
  const token = layout.token.get(scratch, 0);
  const pages = layout.max_pages.get(scratch, 0);
  const extra = layout.extra_pages_max.get(scratch, 0);
  const isMax = (what & XEN_MEMORY_LIMIT_max) !== 0;
  const isOwn = (what & XEN_MEMORY_LIMIT_own) !== 0;
  const isExtra = (what & XEN_MEMORY_LIMIT_extra) !== 0;
  if (what === 0 || (what & ~WHAT_KNOWN) !== 0 || (isMax && isOwn) || layout.pad.get(scratch, 0) !== 0) return -EINVAL;
  if (isExtra && !limits.isPageCount(extra)) return -EINVAL;
  // Once the number is one, whatever refuses the first refuses the second.
  const result = isExtra ? limits.setExtraPages(hypervisor, slot, extra, token) : 0;
  if (result !== 0 || !(isMax || isOwn)) return result;
  return (isMax ? limits.setMaxPages : limits.setOwnPages)(hypervisor, slot, pages, token);
};
