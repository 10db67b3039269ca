/**
 * The balloon's state machine: the table of guest/include/xenolith/balloon.h, in TypeScript. Pure; balloon-driver.ts does
 * what it says. The library's balloon-machine.c is the same in C, and a test compares the two.
 */

/** Most that a 32-bit counter holds; the retry counter stays there. */
const COUNT_MAX = 0xffff_ffff;

/** `done`: all is well; `again`: a shortage, it will try again; `canceled`: it gave up until there is another target. */
export type BalloonState = "done" | "again" | "canceled";

/** What the machine knows. Delays are in seconds. */
export interface Balloon {
  readonly currentPages: number;
  readonly targetPages: number;
  readonly scheduleDelay: number;
  readonly scheduleDelayMax: number;
  readonly retryCount: number;
  /** 0: unlimited. */
  readonly retryCountMax: number;
  readonly state: BalloonState;
}

/** How long to sleep after a step: seconds, 0: not at all, undefined: until there is another target. */
export type BalloonSleep = number | undefined;

/** A machine that owns `pages` and wants no others. */
export const restingBalloon = (
  pages: number,
  { scheduleDelayMax = 32, retryCountMax = 0 }: Partial<Pick<Balloon, "scheduleDelayMax" | "retryCountMax">> = {},
): Balloon => ({
  currentPages: pages,
  targetPages: pages,
  scheduleDelay: 1,
  scheduleDelayMax,
  retryCount: 1,
  retryCountMax,
  state: "done",
});

/** A new target, and whether a step is due: not when it is the old one. */
export const aimBalloon = (
  balloon: Balloon,
  pages: number,
): { readonly balloon: Balloon; readonly isDue: boolean } => ({
  balloon: { ...balloon, targetPages: pages },
  isDue: pages !== balloon.targetPages,
});

/** A step that changed `changed` pages has left the domain with `current` ones. */
export const settleBalloon = (
  balloon: Balloon,
  current: number,
  changed: number,
): { readonly balloon: Balloon; readonly sleep: BalloonSleep } => {
  const { targetPages, scheduleDelay, scheduleDelayMax, retryCount, retryCountMax } = balloon;
  const fresh = { ...balloon, currentPages: current, scheduleDelay: 1, retryCount: 1 };
  if (current === targetPages) return { balloon: { ...fresh, state: "done" }, sleep: undefined };
  if (changed > 0) return { balloon: { ...fresh, state: "done" }, sleep: 0 };
  if (retryCountMax !== 0 && retryCount >= retryCountMax)
    return { balloon: { ...fresh, state: "canceled" }, sleep: undefined };
  const sleep = Math.min(scheduleDelay * 2, scheduleDelayMax);
  return {
    balloon: {
      ...balloon,
      currentPages: current,
      scheduleDelay: sleep,
      retryCount: Math.min(retryCount + 1, COUNT_MAX),
      state: "again",
    },
    sleep,
  };
};

/** Pages of a target as a driver sees it that counts `targetDiff` pages less than the toolstack. */
export const balloonPages = (targetKib: number, staticMaxKib: number, targetDiff: number): number =>
  Math.max(0, Math.floor(Math.min(targetKib, staticMaxKib) / 4) - targetDiff);

/**
 * `target_diff`: pages that the toolstack counts and the driver does not. 0 for a driver that counts with the hypervisor
 * (`governedPages` undefined); else static-max less what it governs at its first target.
 */
export const targetDiff = (staticMaxKib: number, governedPages?: number): number =>
  governedPages === undefined ? 0 : Math.max(0, Math.floor(staticMaxKib / 4) - governedPages);

/** A target as written in the store, in KiB; undefined: it is no number of KiB, and is as if it had not been written. */
export const parseTarget = (text: string): number | undefined =>
  /^[0-9]{1,10}$/.test(text) && Number(text) <= COUNT_MAX ? Number(text) : undefined;

/** The statistics by their names below `data/balloon/`, as Linux's sysfs calls them. */
export const balloonStatistics = (balloon: Balloon, staticMaxKib: number): Readonly<Record<string, number>> => ({
  "info/current_kb": balloon.currentPages * 4,
  "info/low_kb": Math.max(0, staticMaxKib - balloon.currentPages * 4),
  "info/high_kb": 0,
  target_kb: balloon.targetPages * 4,
  schedule_delay: balloon.scheduleDelay,
  max_schedule_delay: balloon.scheduleDelayMax,
  retry_count: balloon.retryCount,
  max_retry_count: balloon.retryCountMax,
});
