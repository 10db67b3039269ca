import { handle32, pad, u16, u32, u64n } from "./scalar.ts";
import { struct, union } from "./struct.ts";
import { domid_t, xen_pfn_t, xen_ulong_t } from "./types.ts";

// memory_op. Source: xen/include/public/memory.h.

export const XENMEM_increase_reservation = 0;
export const XENMEM_decrease_reservation = 1;
export const XENMEM_maximum_ram_page = 2;
export const XENMEM_current_reservation = 3;
export const XENMEM_maximum_reservation = 4;
export const XENMEM_machphys_mfn_list = 5;
export const XENMEM_populate_physmap = 6;
export const XENMEM_add_to_physmap = 7;
export const XENMEM_memory_map = 9;
export const XENMEM_machine_memory_map = 10;
export const XENMEM_exchange = 11;
export const XENMEM_machphys_mapping = 12;
export const XENMEM_set_memory_map = 13;
export const XENMEM_maximum_gpfn = 14;
export const XENMEM_remove_from_physmap = 15;
export const XENMEM_set_pod_target = 16;
export const XENMEM_get_pod_target = 17;
export const XENMEM_get_sharing_freed_pages = 18;
export const XENMEM_get_sharing_shared_pages = 19;
export const XENMEM_paging_op = 20;
export const XENMEM_access_op = 21;
export const XENMEM_sharing_op = 22;
export const XENMEM_add_to_physmap_batch = 23;
export const XENMEM_claim_pages = 24;
export const XENMEM_machphys_compat_mfn_list = 25;
export const XENMEM_get_vnumainfo = 26;
export const XENMEM_reserved_device_memory_map = 27;
export const XENMEM_acquire_resource = 28;

/** The command is in the low bits; above them the hypervisor keeps where an interrupted call goes on. */
export const MEMOP_CMD_MASK = 0x3f;

export const XENMEMF_populate_on_demand = 1 << 16;
export const XENMEMF_exact_node_request = 1 << 17;
export const XENMEMF_vnode = 1 << 18;

export const XENMAPSPACE_shared_info = 0;
export const XENMAPSPACE_grant_table = 1;
export const XENMAPSPACE_gmfn = 2;
export const XENMAPSPACE_gmfn_range = 3;
export const XENMAPSPACE_gmfn_foreign = 4;
export const XENMAPSPACE_dev_mmio = 5;
/** In `idx` of XENMAPSPACE_grant_table: a status frame, not an entry frame. */
export const XENMAPIDX_grant_table_status = 0x8000_0000;

export const XENMEM_resource_ioreq_server = 0;
export const XENMEM_resource_grant_table = 1;
export const XENMEM_resource_vmtrace_buf = 2;
export const XENMEM_resource_grant_table_id_shared = 0;
export const XENMEM_resource_grant_table_id_status = 1;

/** increase_reservation, decrease_reservation, populate_physmap, claim_pages. */
export const xen_memory_reservation = struct("xen_memory_reservation", 20, {
  /** Frame numbers: the first of each extent. */
  extent_start: handle32("xen_pfn_t"),
  nr_extents: xen_ulong_t,
  /** An extent is 2^extent_order frames. */
  extent_order: u32,
  /** Bits 0-7: address bits; bits 8-15: node + 1; then XENMEMF_*. */
  mem_flags: u32,
  domid: domid_t,
  _pad0: pad(2),
});

export const xen_memory_exchange = struct("xen_memory_exchange", 44, {
  in: xen_memory_reservation,
  out: xen_memory_reservation,
  nr_exchanged: xen_ulong_t,
});

export const xen_machphys_mfn_list = struct("xen_machphys_mfn_list", 12, {
  max_extents: u32,
  extent_start: handle32("xen_pfn_t"),
  nr_extents: u32,
});

export const xen_machphys_mapping = struct("xen_machphys_mapping", 12, {
  v_start: xen_ulong_t,
  v_end: xen_ulong_t,
  max_mfn: xen_ulong_t,
});

export const xen_add_to_physmap = struct("xen_add_to_physmap", 16, {
  domid: domid_t,
  /** Number of pages, for XENMAPSPACE_gmfn_range only. */
  size: u16,
  space: u32,
  idx: xen_ulong_t,
  gpfn: xen_pfn_t,
});

export const xen_add_to_physmap_batch = struct("xen_add_to_physmap_batch", 20, {
  domid: domid_t,
  space: u16,
  size: u16,
  u: union({ foreign_domid: domid_t, res0: u16 }),
  idxs: handle32("xen_ulong_t"),
  gpfns: handle32("xen_pfn_t"),
  /** One result per page. */
  errs: handle32("int"),
});

export const xen_remove_from_physmap = struct("xen_remove_from_physmap", 8, {
  domid: domid_t,
  _pad0: pad(2),
  gpfn: xen_pfn_t,
});

export const xen_memory_map = struct("xen_memory_map", 8, {
  /** In: entries that fit into the buffer. Out: entries written. */
  nr_entries: u32,
  buffer: handle32("void"),
});

export const xen_foreign_memory_map = struct("xen_foreign_memory_map", 12, {
  domid: domid_t,
  _pad0: pad(2),
  map: xen_memory_map,
});

/** One entry of a memory map; 20 bytes without padding. */
export const e820entry = struct("e820entry", 20, {
  addr: u64n,
  size: u64n,
  type: u32,
});

export const xen_pod_target = struct("xen_pod_target", 36, {
  target_pages: u64n,
  tot_pages: u64n,
  pod_cache_pages: u64n,
  pod_entries: u64n,
  domid: domid_t,
  _pad0: pad(2),
});

export const xen_vnuma_topology_info = struct("xen_vnuma_topology_info", 40, {
  domid: domid_t,
  pad: u16,
  nr_vnodes: u32,
  nr_vcpus: u32,
  nr_vmemranges: u32,
  vdistance: union({ h: handle32("unsigned"), pad: u64n }),
  vcpu_to_vnode: union({ h: handle32("unsigned"), pad: u64n }),
  vmemrange: union({ h: handle32("void"), pad: u64n }),
});

export const xen_mem_acquire_resource = struct("xen_mem_acquire_resource", 28, {
  domid: domid_t,
  type: u16,
  id: u32,
  nr_frames: u32,
  pad: u32,
  frame: u64n,
  frame_list: handle32("xen_pfn_t"),
});
