/**
 * Who may do what: one row per operation. The checks are in policy.ts. Where the domain acted upon stands in the guest's
 * arguments, the handler reads them and calls `resolveDomain` with the access that the row names; `PRIV` is checked at
 * the door.
 *
 *     HOOK      everyone
 *     TARGET    the domain itself, the device model whose target it is, a privileged domain
 *     DM_PRIV   the device model whose target it is, a privileged domain
 *     XS_PRIV   the xenstore domain, a privileged domain
 *     PRIV      a privileged domain
 *     TEXT      everyone; those without privilege get a placeholder text
 *     ABSENT    nobody: there is no such operation here (-ENOSYS)
 *
 * Source: the default policy in xen/include/xsm/dummy.h, restated.
 */
import * as abi from "@xenolith/abi";
import type { HypercallName } from "@xenolith/abi";

/** Classes of callers. */
export const ACCESS_CLASSES = ["HOOK", "TARGET", "DM_PRIV", "XS_PRIV", "PRIV", "TEXT", "ABSENT"] as const;
/** One class of callers. */
export type Access = (typeof ACCESS_CLASSES)[number];

/** Policy of one hypercall: one class for all of it, or one per command (its first argument). */
export interface HypercallPolicy {
  readonly whole?: Access;
  readonly commands?: Readonly<Record<number, Access>>;
  /** Bits of the first argument that are the command; all of them by default. */
  readonly commandMask?: number;
  /** Its handler looks at the command and makes the check, not the door. */
  readonly isOpen?: boolean;
}

/** The policy of each hypercall. What is not here, or not in `commands`, does not exist: -ENOSYS. */
export const policy: Readonly<Record<HypercallName, HypercallPolicy>> = {
  memory_op: {
    commandMask: abi.MEMOP_CMD_MASK,
    commands: {
      [abi.XENMEM_increase_reservation]: "TARGET",
      [abi.XENMEM_decrease_reservation]: "TARGET",
      [abi.XENMEM_maximum_ram_page]: "HOOK",
      [abi.XENMEM_current_reservation]: "TARGET",
      [abi.XENMEM_maximum_reservation]: "TARGET",
      [abi.XENMEM_machphys_mfn_list]: "ABSENT",
      [abi.XENMEM_populate_physmap]: "TARGET",
      [abi.XENMEM_add_to_physmap]: "TARGET",
      [abi.XENMEM_memory_map]: "HOOK",
      [abi.XENMEM_machine_memory_map]: "PRIV",
      [abi.XENMEM_exchange]: "TARGET",
      [abi.XENMEM_machphys_mapping]: "ABSENT",
      [abi.XENMEM_set_memory_map]: "TARGET",
      [abi.XENMEM_maximum_gpfn]: "TARGET",
      [abi.XENMEM_remove_from_physmap]: "TARGET",
      [abi.XENMEM_set_pod_target]: "PRIV",
      [abi.XENMEM_get_pod_target]: "PRIV",
      [abi.XENMEM_get_sharing_freed_pages]: "HOOK",
      [abi.XENMEM_get_sharing_shared_pages]: "HOOK",
      [abi.XENMEM_paging_op]: "ABSENT",
      [abi.XENMEM_access_op]: "ABSENT",
      [abi.XENMEM_sharing_op]: "ABSENT",
      [abi.XENMEM_add_to_physmap_batch]: "TARGET",
      [abi.XENMEM_claim_pages]: "PRIV",
      [abi.XENMEM_machphys_compat_mfn_list]: "ABSENT",
      [abi.XENMEM_get_vnumainfo]: "HOOK",
      [abi.XENMEM_reserved_device_memory_map]: "HOOK",
      [abi.XENMEM_acquire_resource]: "DM_PRIV",
    },
  },
  multicall: { whole: "HOOK" },
  set_timer_op: { whole: "HOOK" },
  xen_version: {
    commands: {
      [abi.XENVER_version]: "HOOK",
      [abi.XENVER_extraversion]: "HOOK",
      [abi.XENVER_compile_info]: "HOOK",
      [abi.XENVER_capabilities]: "HOOK",
      [abi.XENVER_changeset]: "HOOK",
      [abi.XENVER_platform_parameters]: "HOOK",
      [abi.XENVER_get_features]: "HOOK",
      [abi.XENVER_pagesize]: "HOOK",
      [abi.XENVER_guest_handle]: "HOOK",
      [abi.XENVER_commandline]: "TEXT",
      [abi.XENVER_build_id]: "PRIV",
      [abi.XENVER_extraversion2]: "HOOK",
      [abi.XENVER_capabilities2]: "HOOK",
      [abi.XENVER_changeset2]: "HOOK",
      [abi.XENVER_commandline2]: "TEXT",
    },
  },
  console_io: { commands: { [abi.CONSOLEIO_write]: "HOOK", [abi.CONSOLEIO_read]: "PRIV" } },
  // The number of entries is looked at before the command, and most refusals are statuses: see grant-table-op.ts.
  grant_table_op: {
    isOpen: true,
    commands: {
      [abi.GNTTABOP_map_grant_ref]: "HOOK",
      [abi.GNTTABOP_unmap_grant_ref]: "HOOK",
      [abi.GNTTABOP_setup_table]: "TARGET",
      [abi.GNTTABOP_dump_table]: "ABSENT",
      [abi.GNTTABOP_transfer]: "HOOK",
      [abi.GNTTABOP_copy]: "HOOK",
      [abi.GNTTABOP_query_size]: "TARGET",
      [abi.GNTTABOP_unmap_and_replace]: "HOOK",
      [abi.GNTTABOP_set_version]: "HOOK",
      [abi.GNTTABOP_get_status_frames]: "TARGET",
      [abi.GNTTABOP_get_version]: "TARGET",
      [abi.GNTTABOP_swap_grant_ref]: "HOOK",
      [abi.GNTTABOP_cache_flush]: "ABSENT",
      [abi.GNTTABOP_map_revokable]: "HOOK",
      [abi.GNTTABOP_revoke]: "HOOK",
      [abi.GNTTABOP_reset]: "HOOK",
      [abi.GNTTABOP_unmap_notify]: "HOOK",
    },
  },
  vm_assist: { whole: "ABSENT" },
  vcpu_op: {
    commands: {
      [abi.VCPUOP_initialise]: "HOOK",
      [abi.VCPUOP_up]: "HOOK",
      [abi.VCPUOP_down]: "HOOK",
      [abi.VCPUOP_is_up]: "HOOK",
      [abi.VCPUOP_get_runstate_info]: "HOOK",
      [abi.VCPUOP_register_runstate_memory_area]: "HOOK",
      [abi.VCPUOP_set_periodic_timer]: "HOOK",
      [abi.VCPUOP_stop_periodic_timer]: "HOOK",
      [abi.VCPUOP_set_singleshot_timer]: "HOOK",
      [abi.VCPUOP_stop_singleshot_timer]: "HOOK",
      [abi.VCPUOP_register_vcpu_info]: "HOOK",
      [abi.VCPUOP_send_nmi]: "HOOK",
      [abi.VCPUOP_get_physid]: "HOOK",
      [abi.VCPUOP_register_vcpu_time_memory_area]: "HOOK",
      [abi.VCPUOP_register_runstate_phys_area]: "HOOK",
      [abi.VCPUOP_register_vcpu_time_phys_area]: "HOOK",
    },
  },
  xsm_op: { whole: "ABSENT" },
  sched_op: {
    commands: {
      [abi.SCHEDOP_yield]: "HOOK",
      [abi.SCHEDOP_block]: "HOOK",
      [abi.SCHEDOP_shutdown]: "HOOK",
      [abi.SCHEDOP_poll]: "HOOK",
      [abi.SCHEDOP_remote_shutdown]: "DM_PRIV",
      [abi.SCHEDOP_shutdown_code]: "HOOK",
      [abi.SCHEDOP_watchdog]: "HOOK",
      [abi.SCHEDOP_pin_override]: "PRIV",
    },
  },
  callback_op: { whole: "ABSENT" },
  event_channel_op: {
    commands: {
      [abi.EVTCHNOP_bind_interdomain]: "HOOK",
      [abi.EVTCHNOP_bind_virq]: "HOOK",
      [abi.EVTCHNOP_bind_pirq]: "HOOK",
      [abi.EVTCHNOP_close]: "HOOK",
      [abi.EVTCHNOP_send]: "HOOK",
      [abi.EVTCHNOP_status]: "TARGET",
      [abi.EVTCHNOP_alloc_unbound]: "TARGET",
      [abi.EVTCHNOP_bind_ipi]: "HOOK",
      [abi.EVTCHNOP_bind_vcpu]: "HOOK",
      [abi.EVTCHNOP_unmask]: "HOOK",
      [abi.EVTCHNOP_reset]: "TARGET",
      [abi.EVTCHNOP_init_control]: "HOOK",
      [abi.EVTCHNOP_expand_array]: "HOOK",
      [abi.EVTCHNOP_set_priority]: "HOOK",
    },
  },
  physdev_op: {
    commands: {
      [abi.PHYSDEVOP_IRQ_UNMASK_NOTIFY]: "HOOK",
      [abi.PHYSDEVOP_irq_status_query]: "HOOK",
      [abi.PHYSDEVOP_set_iopl]: "HOOK",
      [abi.PHYSDEVOP_set_iobitmap]: "HOOK",
      [abi.PHYSDEVOP_apic_read]: "PRIV",
      [abi.PHYSDEVOP_apic_write]: "PRIV",
      [abi.PHYSDEVOP_alloc_irq_vector]: "PRIV",
      [abi.PHYSDEVOP_free_irq_vector]: "HOOK",
      [abi.PHYSDEVOP_eoi]: "HOOK",
      // A domain maps for itself what it was given the right to; on others it takes what Xen wants, DM_PRIV.
      [abi.PHYSDEVOP_map_pirq]: "TARGET",
      [abi.PHYSDEVOP_unmap_pirq]: "TARGET",
      [abi.PHYSDEVOP_manage_pci_add]: "PRIV",
      [abi.PHYSDEVOP_manage_pci_remove]: "PRIV",
      [abi.PHYSDEVOP_pirq_eoi_gmfn_v1]: "HOOK",
      [abi.PHYSDEVOP_restore_msi]: "PRIV",
      [abi.PHYSDEVOP_manage_pci_add_ext]: "PRIV",
      [abi.PHYSDEVOP_setup_gsi]: "PRIV",
      [abi.PHYSDEVOP_get_free_pirq]: "HOOK",
      [abi.PHYSDEVOP_pci_mmcfg_reserved]: "PRIV",
      [abi.PHYSDEVOP_pci_device_add]: "PRIV",
      [abi.PHYSDEVOP_pci_device_remove]: "PRIV",
      [abi.PHYSDEVOP_restore_msi_ext]: "PRIV",
      [abi.PHYSDEVOP_pirq_eoi_gmfn_v2]: "HOOK",
      [abi.PHYSDEVOP_dbgp_op]: "PRIV",
      [abi.PHYSDEVOP_prepare_msix]: "PRIV",
      [abi.PHYSDEVOP_release_msix]: "PRIV",
      [abi.PHYSDEVOP_pci_device_reset]: "PRIV",
    },
  },
  hvm_op: {
    commands: {
      [abi.HVMOP_set_param]: "TARGET",
      [abi.HVMOP_get_param]: "TARGET",
      [abi.HVMOP_set_pci_intx_level]: "ABSENT",
      [abi.HVMOP_flush_tlbs]: "HOOK",
      [abi.HVMOP_get_time]: "HOOK",
      [abi.HVMOP_get_mem_type]: "TARGET",
      [abi.HVMOP_set_evtchn_upcall_vector]: "HOOK",
    },
  },
  // Their commands stand in memory, behind a version that is checked first: see domctl.ts and sysctl.ts.
  sysctl: {
    isOpen: true,
    commands: {
      [abi.XEN_SYSCTL_physinfo]: "PRIV",
      [abi.XEN_SYSCTL_getdomaininfolist]: "XS_PRIV",
    },
  },
  domctl: {
    isOpen: true,
    commands: {
      [abi.XEN_DOMCTL_createdomain]: "PRIV",
      [abi.XEN_DOMCTL_destroydomain]: "PRIV",
      [abi.XEN_DOMCTL_pausedomain]: "PRIV",
      [abi.XEN_DOMCTL_unpausedomain]: "PRIV",
      [abi.XEN_DOMCTL_getdomaininfo]: "PRIV",
      [abi.XEN_DOMCTL_setvcpuaffinity]: "PRIV",
      [abi.XEN_DOMCTL_shadow_op]: "PRIV",
      // A device model changes it within the bounds of memory-limits.ts.
      [abi.XEN_DOMCTL_max_mem]: "DM_PRIV",
      [abi.XEN_DOMCTL_setvcpucontext]: "PRIV",
      [abi.XEN_DOMCTL_getvcpucontext]: "PRIV",
      [abi.XEN_DOMCTL_getvcpuinfo]: "PRIV",
      [abi.XEN_DOMCTL_max_vcpus]: "PRIV",
      [abi.XEN_DOMCTL_scheduler_op]: "PRIV",
      [abi.XEN_DOMCTL_setdomainhandle]: "PRIV",
      [abi.XEN_DOMCTL_setdebugging]: "PRIV",
      [abi.XEN_DOMCTL_irq_permission]: "PRIV",
      [abi.XEN_DOMCTL_iomem_permission]: "PRIV",
      [abi.XEN_DOMCTL_ioport_permission]: "PRIV",
      [abi.XEN_DOMCTL_hypercall_init]: "PRIV",
      [abi.XEN_DOMCTL_settimeoffset]: "PRIV",
      [abi.XEN_DOMCTL_getvcpuaffinity]: "PRIV",
      [abi.XEN_DOMCTL_resumedomain]: "PRIV",
      [abi.XEN_DOMCTL_sendtrigger]: "PRIV",
      [abi.XEN_DOMCTL_subscribe]: "PRIV",
      [abi.XEN_DOMCTL_gethvmcontext]: "PRIV",
      [abi.XEN_DOMCTL_sethvmcontext]: "PRIV",
      [abi.XEN_DOMCTL_assign_device]: "PRIV",
      [abi.XEN_DOMCTL_bind_pt_irq]: "PRIV",
      [abi.XEN_DOMCTL_memory_mapping]: "PRIV",
      [abi.XEN_DOMCTL_ioport_mapping]: "PRIV",
      [abi.XEN_DOMCTL_set_target]: "PRIV",
      [abi.XEN_DOMCTL_deassign_device]: "PRIV",
      [abi.XEN_DOMCTL_unbind_pt_irq]: "PRIV",
      [abi.XEN_DOMCTL_set_virq_handler]: "PRIV",
      [abi.XEN_DOMCTL_setvnumainfo]: "PRIV",
      [abi.XEN_DOMCTL_soft_reset]: "PRIV",
      [abi.XEN_DOMCTL_gsi_permission]: "PRIV",
      [abi.XEN_DOMCTL_get_domain_state]: "XS_PRIV",
      [abi.XEN_DOMCTL_freeze_memory]: "PRIV",
      [abi.XEN_DOMCTL_get_memory_limits]: "DM_PRIV",
      [abi.XEN_DOMCTL_set_memory_limits]: "PRIV",
    },
  },
  kexec_op: { whole: "PRIV" },
  argo_op: { whole: "ABSENT" },
  xenpmu_op: { whole: "ABSENT" },
  dm_op: { whole: "ABSENT" },
  hypfs_op: { whole: "ABSENT" },
  secret_op: {
    commands: {
      [abi.XENSECRET_allocate]: "HOOK",
      [abi.XENSECRET_map]: "HOOK",
      [abi.XENSECRET_unmap]: "HOOK",
      [abi.XENSECRET_seal]: "HOOK",
      [abi.XENSECRET_release]: "HOOK",
      [abi.XENSECRET_share]: "HOOK",
      [abi.XENSECRET_accept]: "HOOK",
      [abi.XENSECRET_revoke]: "HOOK",
      [abi.XENSECRET_query]: "HOOK",
    },
  },
  key_op: {
    commands: {
      [abi.XENKEY_add]: "HOOK",
      [abi.XENKEY_request]: "HOOK",
      [abi.XENKEY_search]: "HOOK",
      [abi.XENKEY_read]: "HOOK",
      [abi.XENKEY_update]: "HOOK",
      [abi.XENKEY_describe]: "HOOK",
      [abi.XENKEY_revoke]: "HOOK",
      [abi.XENKEY_invalidate]: "HOOK",
      [abi.XENKEY_link]: "HOOK",
      [abi.XENKEY_unlink]: "HOOK",
      [abi.XENKEY_clear]: "HOOK",
      [abi.XENKEY_set_timeout]: "HOOK",
      [abi.XENKEY_get_keyring_id]: "HOOK",
      [abi.XENKEY_join_session]: "HOOK",
    },
  },
};
