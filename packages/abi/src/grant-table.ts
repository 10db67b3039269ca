import { handle32, pad, s16, u16, u32, u64n, array } from "./scalar.ts";
import { group, namedUnion, struct, union } from "./struct.ts";
import { domid_t, grant_handle_t, grant_ref_t, xen_pfn_t } from "./types.ts";

// grant_table_op and the shared grant table. Source: xen/include/public/grant_table.h. The revokable grants follow the
// published design "Revokable grants", draft B; their numbers are Xenolith's own.

export const GNTTABOP_map_grant_ref = 0;
export const GNTTABOP_unmap_grant_ref = 1;
export const GNTTABOP_setup_table = 2;
export const GNTTABOP_dump_table = 3;
export const GNTTABOP_transfer = 4;
export const GNTTABOP_copy = 5;
export const GNTTABOP_query_size = 6;
export const GNTTABOP_unmap_and_replace = 7;
export const GNTTABOP_set_version = 8;
export const GNTTABOP_get_status_frames = 9;
export const GNTTABOP_get_version = 10;
export const GNTTABOP_swap_grant_ref = 11;
export const GNTTABOP_cache_flush = 12;
/** Extension: map a grant that its owner may take back at any time. */
export const GNTTABOP_map_revokable = 13;
/** Extension: switch every mapping of a grant to the mapper's own page. */
export const GNTTABOP_revoke = 14;
/** Extension: drop all mappings that the caller made, and revoke or end all grants that it gave. */
export const GNTTABOP_reset = 15;
/** Extension: what is to happen when a mapping, or the owner of a granted page, goes. */
export const GNTTABOP_unmap_notify = 16;

export const GTF_type_mask = 3;
export const GTF_invalid = 0;
export const GTF_permit_access = 1;
export const GTF_accept_transfer = 2;
export const GTF_transitive = 3;
export const GTF_readonly = 1 << 2;
/** The frame is mapped or being copied. Written by the hypervisor. */
export const GTF_reading = 1 << 3;
/** The frame is mapped for writing, or being written. Written by the hypervisor, in addition to GTF_reading. */
export const GTF_writing = 1 << 4;
export const GTF_PWT = 1 << 5;
export const GTF_PCD = 1 << 6;
export const GTF_PAT = 1 << 7;
export const GTF_sub_page = 1 << 8;
/** Extension: may only be mapped by GNTTABOP_map_revokable, or copied. */
export const GTF_revokable = 1 << 9;
export const GTF_transfer_committed = 1 << 2;
export const GTF_transfer_completed = 1 << 3;

export const GNTTAB_RESERVED_CONSOLE = 0;
export const GNTTAB_RESERVED_XENSTORE = 1;
/** Guests allocate their references from here. */
export const GNTTAB_NR_RESERVED_ENTRIES = 8;

export const GNTMAP_device_map = 1 << 0;
export const GNTMAP_host_map = 1 << 1;
export const GNTMAP_readonly = 1 << 2;
export const GNTMAP_application_map = 1 << 3;
export const GNTMAP_contains_pte = 1 << 4;
export const GNTMAP_guest_avail_mask = 0xffff_0000;

export const GNTCOPY_source_gref = 1 << 0;
export const GNTCOPY_dest_gref = 1 << 1;

export const GNTST_okay = 0;
export const GNTST_general_error = -1;
export const GNTST_bad_domain = -2;
export const GNTST_bad_gntref = -3;
export const GNTST_bad_handle = -4;
export const GNTST_bad_virt_addr = -5;
export const GNTST_bad_dev_addr = -6;
export const GNTST_no_device_space = -7;
export const GNTST_permission_denied = -8;
export const GNTST_bad_page = -9;
export const GNTST_bad_copy_arg = -10;
export const GNTST_address_too_big = -11;
export const GNTST_eagain = -12;
export const GNTST_no_space = -13;

/** Clear a byte of the page just before the mapping goes. */
export const UNMAP_NOTIFY_CLEAR_BYTE = 1 << 0;
/** Send an event afterwards. */
export const UNMAP_NOTIFY_SEND_EVENT = 1 << 1;
/** The target is a reference that the caller gave, and not a handle. */
export const UNMAP_NOTIFY_REF = 0x8000_0000;

export const GNTTAB_CACHE_CLEAN = 1 << 0;
export const GNTTAB_CACHE_INVAL = 1 << 1;
export const GNTTAB_CACHE_SOURCE_GREF = 0x8000_0000;

/** One shared grant entry, version 1: 512 in a page. */
export const grant_entry_v1 = struct("grant_entry_v1", 8, {
  /** GTF_*. Written by the granter; the hypervisor sets and clears reading and writing. */
  flags: u16,
  /** The domain that the grant is for. Written by the granter. */
  domid: domid_t,
  /** The frame, a gfn of the granter. Written by the granter. */
  frame: u32,
});

export const grant_entry_header = struct("grant_entry_header", 4, {
  flags: u16,
  domid: domid_t,
});

/** One shared grant entry, version 2: 256 in a page. Its reading and writing bits stand in a status array. */
export const grant_entry_v2 = namedUnion("grant_entry_v2", 16, {
  hdr: grant_entry_header,
  full_page: group({ hdr: grant_entry_header, pad0: u32, frame: u64n }),
  sub_page: group({ hdr: grant_entry_header, page_off: u16, length: u16, frame: u64n }),
  transitive: group({ hdr: grant_entry_header, trans_domid: domid_t, pad0: u16, gref: grant_ref_t }),
  __spacer: array(u32, 4),
});

export const gnttab_map_grant_ref = struct("gnttab_map_grant_ref", 32, {
  host_addr: u64n,
  /** GNTMAP_*. */
  flags: u32,
  ref: grant_ref_t,
  dom: domid_t,
  /** Out: GNTST_*. */
  status: s16,
  /** Out. */
  handle: grant_handle_t,
  /** Out. */
  dev_bus_addr: u64n,
});

export const gnttab_unmap_grant_ref = struct("gnttab_unmap_grant_ref", 24, {
  host_addr: u64n,
  dev_bus_addr: u64n,
  handle: grant_handle_t,
  /** Out: GNTST_*. */
  status: s16,
  _pad0: pad(2),
});

export const gnttab_setup_table = struct("gnttab_setup_table", 16, {
  dom: domid_t,
  _pad0: pad(2),
  nr_frames: u32,
  /** Out: GNTST_*. */
  status: s16,
  _pad1: pad(2),
  frame_list: handle32("xen_pfn_t"),
});

export const gnttab_dump_table = struct("gnttab_dump_table", 4, {
  dom: domid_t,
  /** Out: GNTST_*. */
  status: s16,
});

export const gnttab_transfer = struct("gnttab_transfer", 16, {
  mfn: xen_pfn_t,
  domid: domid_t,
  _pad0: pad(2),
  ref: grant_ref_t,
  /** Out: GNTST_*. */
  status: s16,
  _pad1: pad(2),
});

export const gnttab_copy_ptr = struct("gnttab_copy_ptr", 8, {
  /** A reference when the GNTCOPY flag of this side is set, else a frame of the caller. */
  u: union({ ref: grant_ref_t, gmfn: xen_pfn_t }),
  domid: domid_t,
  offset: u16,
});

export const gnttab_copy = struct("gnttab_copy", 24, {
  source: gnttab_copy_ptr,
  dest: gnttab_copy_ptr,
  len: u16,
  /** GNTCOPY_*. */
  flags: u16,
  /** Out: GNTST_*. */
  status: s16,
  _pad0: pad(2),
});

export const gnttab_query_size = struct("gnttab_query_size", 16, {
  dom: domid_t,
  _pad0: pad(2),
  /** Out. */
  nr_frames: u32,
  /** Out. */
  max_nr_frames: u32,
  /** Out: GNTST_*. */
  status: s16,
  _pad1: pad(2),
});

export const gnttab_unmap_and_replace = struct("gnttab_unmap_and_replace", 24, {
  host_addr: u64n,
  new_addr: u64n,
  handle: grant_handle_t,
  /** Out: GNTST_*. */
  status: s16,
  _pad0: pad(2),
});

export const gnttab_set_version = struct("gnttab_set_version", 4, {
  /** In: the wanted version. Out: the version. */
  version: u32,
});

export const gnttab_get_status_frames = struct("gnttab_get_status_frames", 12, {
  nr_frames: u32,
  dom: domid_t,
  /** Out: GNTST_*. */
  status: s16,
  frame_list: handle32("uint64_t"),
});

export const gnttab_get_version = struct("gnttab_get_version", 8, {
  dom: domid_t,
  pad: u16,
  /** Out. */
  version: u32,
});

export const gnttab_swap_grant_ref = struct("gnttab_swap_grant_ref", 12, {
  ref_a: grant_ref_t,
  ref_b: grant_ref_t,
  /** Out: GNTST_*. */
  status: s16,
  _pad0: pad(2),
});

export const gnttab_cache_flush = struct("gnttab_cache_flush", 16, {
  a: union({ dev_bus_addr: u64n, ref: grant_ref_t }),
  offset: u16,
  length: u16,
  /** GNTTAB_CACHE_*. */
  op: u32,
});

/** Extension. */
export const gnttab_map_revokable = struct("gnttab_map_revokable", 36, {
  map: gnttab_map_grant_ref,
  /** The mapper's frame that takes the place of the granted one; all ones: the hypervisor provides one. */
  lgfn: xen_pfn_t,
});

/** Extension. */
export const gnttab_revoke = struct("gnttab_revoke", 8, {
  ref: grant_ref_t,
  /** Out: GNTST_*. */
  status: s16,
  _pad0: pad(2),
});

/** Extension. */
export const gnttab_unmap_notify = struct("gnttab_unmap_notify", 20, {
  /** A handle; with UNMAP_NOTIFY_REF a reference of the caller's own table. */
  target: u32,
  /** UNMAP_NOTIFY_*; 0 removes an earlier request. */
  action: u32,
  /** The byte of the page. */
  offset: u32,
  /** The caller's port. */
  port: u32,
  /** Out: 0 or a negative errno. */
  status: s16,
  _pad0: pad(2),
});
