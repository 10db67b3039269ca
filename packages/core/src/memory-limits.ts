/**
 * The one keeper of max_pages: how much a domain may own, who may change that, and by how much.
 *
 * A privileged domain sets max_pages to what it likes, also below what the domain owns. A device model may raise it, and
 * lower it again, by at most `extraPagesMax` frames in all, which the domain was created with; `extraPages` counts by how
 * much device models have raised it at this moment, all of them together. No other change touches that count: writing
 * back what was read does not turn what was raised into something that can be raised again.
 *
 * While the limits are frozen (the domain is being saved) only who shows the token changes them; everybody else is told
 * -EBUSY. All figures of a domain change under its pages lock, under which frames are assigned too.
 */
import { EBUSY, EINVAL, EPERM, ESRCH } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import type { Hypervisor } from "./hypervisor.ts";

/** Highest value of max_pages. */
export const MAX_PAGES_MAX = 0xffff_fffe;

const FREEZE_TOKEN = 3;

/** What a domain has and may have at one moment, in frames. */
export interface MemoryLimits {
  readonly maxPages: number;
  readonly totPages: number;
  /** By how much device models may raise `maxPages`, and by how much they have. */
  readonly extraPagesMax: number;
  readonly extraPages: number;
  readonly isFrozen: boolean;
}

/** Whether `pages` is a number of frames that a domain could have. */
export const isPageCount = (pages: number): boolean => Number.isInteger(pages) && pages >= 0 && pages <= MAX_PAGES_MAX;

/** Reads all figures at once. */
export const memoryLimits = (hypervisor: Hypervisor, slot: number): MemoryLimits => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  const limits = {
    maxPages: domains.maxPages[slot]!,
    totPages: domains.totPages[slot]!,
    extraPagesMax: domains.extraPagesMax[slot]!,
    extraPages: domains.extraPages[slot]!,
    isFrozen: domains.frozenToken[slot] !== 0,
  };
  locks.release(lock);
  return limits;
};

/** Makes one change under the pages lock, unless the domain is going (-ESRCH) or frozen for this caller (-EBUSY). */
const change = (hypervisor: Hypervisor, slot: number, token: number, apply: () => number): number => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  const frozen = domains.frozenToken[slot]!;
  const result = !isAlive(hypervisor, slot) ? -ESRCH : frozen !== 0 && frozen !== token ? -EBUSY : apply();
  locks.release(lock);
  return result;
};

/**
 * Sets the ceiling of tot_pages, in frames; one below what the domain has only keeps it from growing. `token`: of the
 * freeze, if the caller froze it. -EINVAL: no number of frames, -ESRCH: it is dying, -EBUSY: it is frozen.
 */
export const setMaxPages = (hypervisor: Hypervisor, slot: number, pages: number, token = 0): number => {
  if (!(pages >= 0)) return -EINVAL;
  return change(hypervisor, slot, token, () => {
    hypervisor.domains.maxPages[slot] = Math.min(Math.floor(pages), MAX_PAGES_MAX);
    return 0;
  });
};

/** As `setMaxPages`, but `pages` is the domain's own part: by how much device models raised it comes on top. */
export const setOwnPages = (hypervisor: Hypervisor, slot: number, pages: number, token = 0): number => {
  if (!(pages >= 0)) return -EINVAL;
  const { domains } = hypervisor;
  return change(hypervisor, slot, token, () => {
    domains.maxPages[slot] = Math.min(Math.floor(pages) + domains.extraPages[slot]!, MAX_PAGES_MAX);
    return 0;
  });
};

/**
 * Sets by how much device models may raise max_pages, together. What they have raised already stays, also when it is
 * more. Refusals as those of `setMaxPages`.
 */
export const setExtraPages = (hypervisor: Hypervisor, slot: number, pages: number, token = 0): number => {
  if (!isPageCount(pages)) return -EINVAL;
  return change(hypervisor, slot, token, () => {
    hypervisor.domains.extraPagesMax[slot] = pages;
    return 0;
  });
};

/**
 * Sets the ceiling on behalf of a device model of the domain: not above what it was plus what is left of the extra, and
 * not below what it was without it. Who may call this is the caller's business. -EPERM: out of these bounds, -EBUSY: it
 * is frozen, -EINVAL: no number of frames, -ESRCH: it is dying.
 */
export const setMaxPagesByModel = (hypervisor: Hypervisor, slot: number, pages: number): number => {
  if (!(pages >= 0)) return -EINVAL;
  const { domains } = hypervisor;
  return change(hypervisor, slot, 0, () => {
    const wanted = Math.floor(pages);
    const more = wanted - domains.maxPages[slot]!;
    const extra = domains.extraPages[slot]! + more;
    if (more > 0 && (extra > domains.extraPagesMax[slot]! || wanted > MAX_PAGES_MAX)) return -EPERM;
    if (extra < 0) return -EPERM;
    domains.maxPages[slot] = wanted;
    domains.extraPages[slot] = extra;
    return 0;
  });
};

/**
 * Freezes the limits on behalf of the domain in `owner`. Returns the token, a positive number that was never one before.
 * -EBUSY: they are frozen, -ESRCH: the domain is dying.
 */
export const freezeMemory = (hypervisor: Hypervisor, slot: number, owner: number): number => {
  const { domains } = hypervisor;
  return change(hypervisor, slot, 0, () => {
    const token = Atomics.add(domains.serial, FREEZE_TOKEN, 1) + 1;
    domains.frozenToken[slot] = token;
    domains.frozenBy[slot] = owner + 1;
    return token;
  });
};

/** Thaws them; also of a dying domain. -EINVAL: they are not frozen, -EBUSY: not with this token. */
export const thawMemory = (hypervisor: Hypervisor, slot: number, token: number): number => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("pages", slot);
  locks.acquire(lock);
  const frozen = domains.frozenToken[slot]!;
  const result = frozen === 0 ? -EINVAL : frozen === token ? 0 : -EBUSY;
  if (result === 0) clearFreeze(hypervisor, slot);
  locks.release(lock);
  return result;
};

/** Thaws what the domain in `owner`, which is gone, had frozen. */
export const thawAllOf = (hypervisor: Hypervisor, owner: number): void => {
  const { domains, locks } = hypervisor;
  for (let slot = 0; slot < domains.slotCount; slot += 1) {
    if (domains.frozenBy[slot] !== owner + 1) continue;
    const lock = locks.id("pages", slot);
    locks.acquire(lock);
    if (domains.frozenBy[slot] === owner + 1) clearFreeze(hypervisor, slot);
    locks.release(lock);
  }
};

const clearFreeze = ({ domains }: Hypervisor, slot: number): void => {
  domains.frozenToken[slot] = 0;
  domains.frozenBy[slot] = 0;
};
