/**
 * What is done when a domain ends, and how long a restart waits: a domain that crashes as soon as it starts must not
 * keep the machine busy.
 */
import type { DomainExit } from "@xenolith/host";
import type { DomainConfig, EndAction } from "../config/index.ts";

/** A run that lasted this long was none of a loop: the next restart comes at once. */
export const HEALTHY_RUN_MS = 60_000;
/** The second restart of a loop waits this long, the next ones twice as long each. */
export const RESTART_DELAY_MS_FIRST = 500;
/** Longest wait. */
export const RESTART_DELAY_MS_MAX = 60_000;
/** Domains that `rename-restart` keeps of one definition; older ones are destroyed. */
export const RENAMED_COUNT_MAX = 3;

/** What the configuration says about an end. `coredump-` actions never get here: configurations with them are refused. */
export const actionFor = (config: DomainConfig, exit: DomainExit): EndAction => {
  if (exit.reason === "watchdog") return config.onWatchdog;
  if (exit.crashed) return config.onCrash;
  return exit.reason === "reboot" ? config.onReboot : config.onPoweroff;
};

/** Restarts since the last healthy run, after one more run of `ranMs`. */
export const countRestart = (restartsBefore: number, ranMs: number): number =>
  ranMs >= HEALTHY_RUN_MS ? 1 : restartsBefore + 1;

/** How long restart number `count` of a loop (from 1) waits. */
export const restartDelayMs = (count: number): number =>
  count <= 1 ? 0 : Math.min(RESTART_DELAY_MS_MAX, RESTART_DELAY_MS_FIRST * 2 ** Math.min(count - 2, 16));
