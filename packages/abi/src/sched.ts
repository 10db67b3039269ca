import { handle32, pad, s32, u32, u64n } from "./scalar.ts";
import { struct } from "./struct.ts";
import { domid_t } from "./types.ts";

// sched_op. Source: xen/include/public/sched.h.

export const SCHEDOP_yield = 0;
export const SCHEDOP_block = 1;
export const SCHEDOP_shutdown = 2;
export const SCHEDOP_poll = 3;
export const SCHEDOP_remote_shutdown = 4;
export const SCHEDOP_shutdown_code = 5;
export const SCHEDOP_watchdog = 6;
export const SCHEDOP_pin_override = 7;

export const SHUTDOWN_poweroff = 0;
export const SHUTDOWN_reboot = 1;
export const SHUTDOWN_suspend = 2;
export const SHUTDOWN_crash = 3;
export const SHUTDOWN_watchdog = 4;
export const SHUTDOWN_soft_reset = 5;
/** The greatest reason that has a meaning. */
export const SHUTDOWN_MAX = 5;

export const sched_shutdown = struct("sched_shutdown", 4, { reason: u32 });

export const sched_poll = struct("sched_poll", 16, {
  ports: handle32("evtchn_port_t"),
  nr_ports: u32,
  /** System time in nanoseconds, absolute; 0 is for ever. */
  timeout: u64n,
});

export const sched_remote_shutdown = struct("sched_remote_shutdown", 8, {
  domain_id: domid_t,
  _pad0: pad(2),
  reason: u32,
});

export const sched_watchdog = struct("sched_watchdog", 8, {
  /** 0 creates a watchdog. */
  id: u32,
  /** Seconds; 0 destroys the watchdog. */
  timeout: u32,
});

export const sched_pin_override = struct("sched_pin_override", 4, { pcpu: s32 });
