// Hypercall numbers, and what each hypercall takes. Source: xen/include/public/xen.h.

export const __HYPERVISOR_set_trap_table = 0;
export const __HYPERVISOR_mmu_update = 1;
export const __HYPERVISOR_set_gdt = 2;
export const __HYPERVISOR_stack_switch = 3;
export const __HYPERVISOR_set_callbacks = 4;
export const __HYPERVISOR_fpu_taskswitch = 5;
export const __HYPERVISOR_sched_op_compat = 6;
export const __HYPERVISOR_platform_op = 7;
export const __HYPERVISOR_set_debugreg = 8;
export const __HYPERVISOR_get_debugreg = 9;
export const __HYPERVISOR_update_descriptor = 10;
export const __HYPERVISOR_memory_op = 12;
export const __HYPERVISOR_multicall = 13;
export const __HYPERVISOR_update_va_mapping = 14;
export const __HYPERVISOR_set_timer_op = 15;
export const __HYPERVISOR_event_channel_op_compat = 16;
export const __HYPERVISOR_xen_version = 17;
export const __HYPERVISOR_console_io = 18;
export const __HYPERVISOR_physdev_op_compat = 19;
export const __HYPERVISOR_grant_table_op = 20;
export const __HYPERVISOR_vm_assist = 21;
export const __HYPERVISOR_update_va_mapping_otherdomain = 22;
export const __HYPERVISOR_iret = 23;
export const __HYPERVISOR_vcpu_op = 24;
export const __HYPERVISOR_set_segment_base = 25;
export const __HYPERVISOR_mmuext_op = 26;
export const __HYPERVISOR_xsm_op = 27;
export const __HYPERVISOR_nmi_op = 28;
export const __HYPERVISOR_sched_op = 29;
export const __HYPERVISOR_callback_op = 30;
export const __HYPERVISOR_xenoprof_op = 31;
export const __HYPERVISOR_event_channel_op = 32;
export const __HYPERVISOR_physdev_op = 33;
export const __HYPERVISOR_hvm_op = 34;
export const __HYPERVISOR_sysctl = 35;
export const __HYPERVISOR_domctl = 36;
export const __HYPERVISOR_kexec_op = 37;
export const __HYPERVISOR_tmem_op = 38;
export const __HYPERVISOR_argo_op = 39;
export const __HYPERVISOR_xenpmu_op = 40;
export const __HYPERVISOR_dm_op = 41;
export const __HYPERVISOR_hypfs_op = 42;
/** Extension: secret memory. 48 to 55 belong to the architecture, which is Xenolith's own. */
export const __HYPERVISOR_secret_op = 48;
/** Extension: the caller's keys. */
export const __HYPERVISOR_key_op = 49;
export const __HYPERVISOR_arch_2 = 50;
export const __HYPERVISOR_arch_3 = 51;
export const __HYPERVISOR_arch_4 = 52;
export const __HYPERVISOR_arch_5 = 53;
export const __HYPERVISOR_arch_6 = 54;
export const __HYPERVISOR_arch_7 = 55;

/**
 * The hypercalls that have a meaning for a guest here, with their 32-bit arguments in order. Each is the import
 * `xen.<name>` too, with these parameters and an i32 result. Every other number is -ENOSYS.
 */
export const hypercalls = {
  memory_op: { number: __HYPERVISOR_memory_op, parameters: ["cmd", "arg"] },
  multicall: { number: __HYPERVISOR_multicall, parameters: ["call_list", "nr_calls"] },
  set_timer_op: { number: __HYPERVISOR_set_timer_op, parameters: ["timeout_low", "timeout_high"] },
  xen_version: { number: __HYPERVISOR_xen_version, parameters: ["cmd", "arg"] },
  console_io: { number: __HYPERVISOR_console_io, parameters: ["cmd", "count", "buffer"] },
  grant_table_op: { number: __HYPERVISOR_grant_table_op, parameters: ["cmd", "args", "count"] },
  vm_assist: { number: __HYPERVISOR_vm_assist, parameters: ["cmd", "type"] },
  vcpu_op: { number: __HYPERVISOR_vcpu_op, parameters: ["cmd", "vcpuid", "extra_args"] },
  xsm_op: { number: __HYPERVISOR_xsm_op, parameters: ["op"] },
  sched_op: { number: __HYPERVISOR_sched_op, parameters: ["cmd", "arg"] },
  callback_op: { number: __HYPERVISOR_callback_op, parameters: ["cmd", "arg"] },
  event_channel_op: { number: __HYPERVISOR_event_channel_op, parameters: ["cmd", "arg"] },
  physdev_op: { number: __HYPERVISOR_physdev_op, parameters: ["cmd", "arg"] },
  hvm_op: { number: __HYPERVISOR_hvm_op, parameters: ["op", "arg"] },
  sysctl: { number: __HYPERVISOR_sysctl, parameters: ["op"] },
  domctl: { number: __HYPERVISOR_domctl, parameters: ["op"] },
  kexec_op: { number: __HYPERVISOR_kexec_op, parameters: ["op", "arg"] },
  argo_op: { number: __HYPERVISOR_argo_op, parameters: ["cmd", "arg1", "arg2", "arg3", "arg4"] },
  xenpmu_op: { number: __HYPERVISOR_xenpmu_op, parameters: ["cmd", "arg"] },
  dm_op: { number: __HYPERVISOR_dm_op, parameters: ["domid", "nr_bufs", "bufs"] },
  hypfs_op: { number: __HYPERVISOR_hypfs_op, parameters: ["cmd", "arg1", "arg2", "arg3", "arg4"] },
  secret_op: { number: __HYPERVISOR_secret_op, parameters: ["cmd", "arg"] },
  key_op: { number: __HYPERVISOR_key_op, parameters: ["cmd", "arg"] },
} as const satisfies Readonly<Record<string, { readonly number: number; readonly parameters: readonly string[] }>>;

/** The name of a hypercall, as guests import it. */
export type HypercallName = keyof typeof hypercalls;
