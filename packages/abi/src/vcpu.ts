import { array, handle32, s32, u32, u64n } from "./scalar.ts";
import { struct, union } from "./struct.ts";

// vcpu_op. Source: xen/include/public/vcpu.h.

export const VCPUOP_initialise = 0;
export const VCPUOP_up = 1;
export const VCPUOP_down = 2;
export const VCPUOP_is_up = 3;
export const VCPUOP_get_runstate_info = 4;
export const VCPUOP_register_runstate_memory_area = 5;
export const VCPUOP_set_periodic_timer = 6;
export const VCPUOP_stop_periodic_timer = 7;
export const VCPUOP_set_singleshot_timer = 8;
export const VCPUOP_stop_singleshot_timer = 9;
export const VCPUOP_register_vcpu_info = 10;
export const VCPUOP_send_nmi = 11;
export const VCPUOP_get_physid = 12;
export const VCPUOP_register_vcpu_time_memory_area = 13;
export const VCPUOP_register_runstate_phys_area = 14;
export const VCPUOP_register_vcpu_time_phys_area = 15;

export const RUNSTATE_running = 0;
export const RUNSTATE_runnable = 1;
export const RUNSTATE_blocked = 2;
export const RUNSTATE_offline = 3;

/** In `flags` of a single-shot timer; ignored. */
export const VCPU_SSHOTTMR_future = 1;

/** How long a vCPU spent in each RUNSTATE_*. */
export const vcpu_runstate_info = struct("vcpu_runstate_info", 44, {
  state: s32,
  /** System time in nanoseconds at which the state was entered. */
  state_entry_time: u64n,
  /** Nanoseconds in each state. */
  time: array(u64n, 4),
});

export const vcpu_register_runstate_memory_area = struct("vcpu_register_runstate_memory_area", 8, {
  addr: union({ h: handle32("vcpu_runstate_info_t"), p: u64n }),
});

export const vcpu_set_periodic_timer = struct("vcpu_set_periodic_timer", 8, {
  /** Nanoseconds, at least a million. */
  period_ns: u64n,
});

export const vcpu_set_singleshot_timer = struct("vcpu_set_singleshot_timer", 12, {
  /** System time in nanoseconds, absolute. */
  timeout_abs_ns: u64n,
  flags: u32,
});

export const vcpu_register_vcpu_info = struct("vcpu_register_vcpu_info", 16, {
  /** The guest frame. */
  mfn: u64n,
  /** Byte offset in that frame. */
  offset: u32,
  rsvd: u32,
});

export const vcpu_get_physid = struct("vcpu_get_physid", 8, { phys_id: u64n });

export const vcpu_register_time_memory_area = struct("vcpu_register_time_memory_area", 8, {
  addr: union({ h: handle32("vcpu_time_info_t"), p: u64n }),
});
