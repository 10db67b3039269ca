import { array, bytes, handle64, pad, u32, u64_aligned } from "./scalar.ts";
import { struct, union } from "./struct.ts";
import { domid_t } from "./types.ts";

// sysctl: what a control domain asks of the machine. Source: xen/include/public/sysctl.h.

/** Must stand in every call; it changes with most releases of Xen. */
export const XEN_SYSCTL_INTERFACE_VERSION = 0x16;

export const XEN_SYSCTL_physinfo = 3;
export const XEN_SYSCTL_getdomaininfolist = 6;

export const XEN_SYSCTL_PHYSCAP_hvm = 1 << 0;
export const XEN_SYSCTL_PHYSCAP_pv = 1 << 1;
export const XEN_SYSCTL_PHYSCAP_directio = 1 << 2;
export const XEN_SYSCTL_PHYSCAP_hap = 1 << 3;
export const XEN_SYSCTL_PHYSCAP_shadow = 1 << 4;
export const XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share = 1 << 5;
export const XEN_SYSCTL_PHYSCAP_vmtrace = 1 << 6;
export const XEN_SYSCTL_PHYSCAP_vpmu = 1 << 7;
export const XEN_SYSCTL_PHYSCAP_gnttab_v1 = 1 << 8;
export const XEN_SYSCTL_PHYSCAP_gnttab_v2 = 1 << 9;

export const xen_sysctl_physinfo = struct("xen_sysctl_physinfo", 112, {
  threads_per_core: u32,
  cores_per_socket: u32,
  nr_cpus: u32,
  max_cpu_id: u32,
  nr_nodes: u32,
  max_node_id: u32,
  cpu_khz: u32,
  /** XEN_SYSCTL_PHYSCAP_*. */
  capabilities: u32,
  arch_capabilities: u32,
  pad: u32,
  total_pages: u64_aligned,
  free_pages: u64_aligned,
  scrub_pages: u64_aligned,
  /** Claimed by domains and not yet given to them. */
  outstanding_pages: u64_aligned,
  max_mfn: u64_aligned,
  hw_cap: array(u32, 8),
});

export const xen_sysctl_getdomaininfolist = struct("xen_sysctl_getdomaininfolist", 24, {
  first_domain: domid_t,
  _pad0: pad(2),
  max_domains: u32,
  buffer: handle64("xen_domctl_getdomaininfo_t"),
  /** Out. */
  num_domains: u32,
  _pad1: pad(4),
});

export const xen_sysctl = struct("xen_sysctl", 136, {
  /** XEN_SYSCTL_*. */
  cmd: u32,
  /** XEN_SYSCTL_INTERFACE_VERSION. */
  interface_version: u32,
  u: union({
    physinfo: xen_sysctl_physinfo,
    getdomaininfolist: xen_sysctl_getdomaininfolist,
    pad: bytes(128),
  }),
});
