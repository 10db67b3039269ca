/**
 * How a domain ended.
 */
import {
  SHUTDOWN_crash,
  SHUTDOWN_poweroff,
  SHUTDOWN_reboot,
  SHUTDOWN_soft_reset,
  SHUTDOWN_suspend,
  SHUTDOWN_watchdog,
} from "@xenolith/abi";
import { domainInfo, type Hypervisor } from "@xenolith/core";
import type { HostTable } from "./host-table.ts";

/** The end of a domain's run. */
export interface DomainExit {
  /** The program's exit code; 0 after a power-off, {@link EXIT_CODE_CRASHED} after a crash, {@link EXIT_CODE_DESTROYED}. */
  readonly code: number;
  /** `exit`, `poweroff`, `reboot`, `watchdog`, `destroyed` ..., or what the guest did wrong. */
  readonly reason: string;
  /** Whether the domain was stopped because it trapped, broke the rules or said itself that it crashed. */
  readonly crashed: boolean;
  /** Guest function and address of a trap: `name (wasm-function[index]:0xaddress)`. */
  readonly where: string | undefined;
}

/** As a shell reports a program that aborted. */
export const EXIT_CODE_CRASHED = 134;
/** As a shell reports a program that was killed. */
export const EXIT_CODE_DESTROYED = 137;

const reasons: ReadonlyMap<number, string> = new Map([
  [SHUTDOWN_poweroff, "poweroff"],
  [SHUTDOWN_reboot, "reboot"],
  [SHUTDOWN_suspend, "suspend"],
  [SHUTDOWN_crash, "crash"],
  [SHUTDOWN_watchdog, "watchdog"],
  [SHUTDOWN_soft_reset, "soft_reset"],
]);

/** Name of a SHUTDOWN_* code. */
export const shutdownReason = (code: number): string => reasons.get(code) ?? `shutdown ${code}`;

/** The exit of a domain that was destroyed before it ended by itself. */
export const destroyedExit: DomainExit = {
  code: EXIT_CODE_DESTROYED,
  reason: "destroyed",
  crashed: false,
  where: undefined,
};

/** Reads how the domain in `slot`, which has shut down or crashed, ended; undefined while it has not. */
export const readExit = (hypervisor: Hypervisor, hostTable: HostTable, slot: number): DomainExit | undefined => {
  const { state, shutdownCode, crashReason } = domainInfo(hypervisor, slot);
  if (state === "free" || shutdownCode === undefined) return undefined;
  const where = hostTable.whereOf(slot);
  if (crashReason !== undefined) {
    return { code: EXIT_CODE_CRASHED, reason: crashReason, crashed: true, where: where === "" ? undefined : where };
  }
  const crashed = shutdownCode === SHUTDOWN_crash || shutdownCode === SHUTDOWN_watchdog;
  const code = hostTable.exitCodeOf(slot);
  const isExit = shutdownCode === SHUTDOWN_poweroff && code !== undefined;
  return {
    code: code ?? (crashed ? EXIT_CODE_CRASHED : 0),
    reason: isExit ? "exit" : shutdownReason(shutdownCode),
    crashed,
    where: undefined,
  };
};
