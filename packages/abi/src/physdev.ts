import { pad, s32, u32, u64n } from "./scalar.ts";
import { struct } from "./struct.ts";
import { domid_t, xen_pfn_t } from "./types.ts";

// physdev_op. Source: xen/include/public/physdev.h.

export const PHYSDEVOP_IRQ_UNMASK_NOTIFY = 4;
export const PHYSDEVOP_irq_status_query = 5;
export const PHYSDEVOP_set_iopl = 6;
export const PHYSDEVOP_set_iobitmap = 7;
export const PHYSDEVOP_apic_read = 8;
export const PHYSDEVOP_apic_write = 9;
export const PHYSDEVOP_alloc_irq_vector = 10;
export const PHYSDEVOP_free_irq_vector = 11;
export const PHYSDEVOP_eoi = 12;
export const PHYSDEVOP_map_pirq = 13;
export const PHYSDEVOP_unmap_pirq = 14;
export const PHYSDEVOP_manage_pci_add = 15;
export const PHYSDEVOP_manage_pci_remove = 16;
export const PHYSDEVOP_pirq_eoi_gmfn_v1 = 17;
export const PHYSDEVOP_restore_msi = 19;
export const PHYSDEVOP_manage_pci_add_ext = 20;
export const PHYSDEVOP_setup_gsi = 21;
export const PHYSDEVOP_get_free_pirq = 23;
export const PHYSDEVOP_pci_mmcfg_reserved = 24;
export const PHYSDEVOP_pci_device_add = 25;
export const PHYSDEVOP_pci_device_remove = 26;
export const PHYSDEVOP_restore_msi_ext = 27;
export const PHYSDEVOP_pirq_eoi_gmfn_v2 = 28;
export const PHYSDEVOP_dbgp_op = 29;
export const PHYSDEVOP_prepare_msix = 30;
export const PHYSDEVOP_release_msix = 31;
export const PHYSDEVOP_pci_device_reset = 32;

/** `physdev_irq_status_query.flags`: the guest must say PHYSDEVOP_eoi. */
export const XENIRQSTAT_needs_eoi = 1;
/** `physdev_irq_status_query.flags`: other guests use it too. */
export const XENIRQSTAT_shared = 2;

export const MAP_PIRQ_TYPE_MSI = 0;
export const MAP_PIRQ_TYPE_GSI = 1;
export const MAP_PIRQ_TYPE_UNKNOWN = 2;
export const MAP_PIRQ_TYPE_MSI_SEG = 3;
export const MAP_PIRQ_TYPE_MULTI_MSI = 4;

export const physdev_eoi = struct("physdev_eoi", 4, { irq: u32 });

export const physdev_irq_status_query = struct("physdev_irq_status_query", 8, {
  irq: u32,
  /** Out: XENIRQSTAT_*. */
  flags: u32,
});

export const physdev_map_pirq = struct("physdev_map_pirq", 36, {
  domid: domid_t,
  _pad0: pad(2),
  type: s32,
  index: s32,
  /** In: the wanted number, negative for any. Out: the number. */
  pirq: s32,
  bus: s32,
  devfn: s32,
  entry_nr: s32,
  table_base: u64n,
});

export const physdev_unmap_pirq = struct("physdev_unmap_pirq", 8, {
  domid: domid_t,
  _pad0: pad(2),
  pirq: s32,
});

export const physdev_get_free_pirq = struct("physdev_get_free_pirq", 8, {
  type: s32,
  /** Out. */
  pirq: u32,
});

export const physdev_pirq_eoi_gmfn = struct("physdev_pirq_eoi_gmfn", 4, { gmfn: xen_pfn_t });
