import { array, bytes, handle64, pad, s32, u16, u32, u64_aligned, u8 } from "./scalar.ts";
import { group, struct, union } from "./struct.ts";
import { domid_t, evtchn_port_t } from "./types.ts";

// domctl: what a control domain does to other domains. Source: xen/include/public/domctl.h.

/** Must stand in every call; it changes with most releases of Xen. */
export const XEN_DOMCTL_INTERFACE_VERSION = 0x18;

export const XEN_DOMCTL_createdomain = 1;
export const XEN_DOMCTL_destroydomain = 2;
export const XEN_DOMCTL_pausedomain = 3;
export const XEN_DOMCTL_unpausedomain = 4;
export const XEN_DOMCTL_getdomaininfo = 5;
export const XEN_DOMCTL_setvcpuaffinity = 9;
export const XEN_DOMCTL_shadow_op = 10;
export const XEN_DOMCTL_max_mem = 11;
export const XEN_DOMCTL_setvcpucontext = 12;
export const XEN_DOMCTL_getvcpucontext = 13;
export const XEN_DOMCTL_getvcpuinfo = 14;
export const XEN_DOMCTL_max_vcpus = 15;
export const XEN_DOMCTL_scheduler_op = 16;
export const XEN_DOMCTL_setdomainhandle = 17;
export const XEN_DOMCTL_setdebugging = 18;
export const XEN_DOMCTL_irq_permission = 19;
export const XEN_DOMCTL_iomem_permission = 20;
export const XEN_DOMCTL_ioport_permission = 21;
export const XEN_DOMCTL_hypercall_init = 22;
export const XEN_DOMCTL_settimeoffset = 24;
export const XEN_DOMCTL_getvcpuaffinity = 25;
export const XEN_DOMCTL_resumedomain = 27;
export const XEN_DOMCTL_sendtrigger = 28;
export const XEN_DOMCTL_subscribe = 29;
export const XEN_DOMCTL_gethvmcontext = 33;
export const XEN_DOMCTL_sethvmcontext = 34;
export const XEN_DOMCTL_assign_device = 37;
export const XEN_DOMCTL_bind_pt_irq = 38;
export const XEN_DOMCTL_memory_mapping = 39;
export const XEN_DOMCTL_ioport_mapping = 40;
export const XEN_DOMCTL_set_target = 46;
export const XEN_DOMCTL_deassign_device = 47;
export const XEN_DOMCTL_unbind_pt_irq = 48;
export const XEN_DOMCTL_set_virq_handler = 66;
export const XEN_DOMCTL_setvnumainfo = 74;
export const XEN_DOMCTL_soft_reset = 79;
export const XEN_DOMCTL_gsi_permission = 88;
export const XEN_DOMCTL_get_domain_state = 90;
/** Extension: freezes a domain's max_pages, or thaws it. */
export const XEN_DOMCTL_freeze_memory = 0x1000;
/** Extension: what a domain has, may have, and what its device models may add. */
export const XEN_DOMCTL_get_memory_limits = 0x1001;
/** Extension: sets those limits. */
export const XEN_DOMCTL_set_memory_limits = 0x1002;

/** set_memory_limits: `max_pages` is what the domain may own in all, as with max_mem. */
export const XEN_MEMORY_LIMIT_max = 1 << 0;
/** set_memory_limits: `max_pages` is what the domain may own itself; what device models added comes on top. */
export const XEN_MEMORY_LIMIT_own = 1 << 1;
/** set_memory_limits: `extra_pages_max` is set. */
export const XEN_MEMORY_LIMIT_extra = 1 << 2;

export const XEN_DOMCTL_CDF_hvm = 1 << 0;
export const XEN_DOMCTL_CDF_hap = 1 << 1;
export const XEN_DOMCTL_CDF_s3_integrity = 1 << 2;
export const XEN_DOMCTL_CDF_oos_off = 1 << 3;
export const XEN_DOMCTL_CDF_xs_domain = 1 << 4;
export const XEN_DOMCTL_CDF_iommu = 1 << 5;
export const XEN_DOMCTL_CDF_nested_virt = 1 << 6;
export const XEN_DOMCTL_CDF_vpmu = 1 << 7;
export const XEN_DOMCTL_CDF_trap_unmapped_accesses = 1 << 8;
/** In `grant_opts`: the highest version of the grant table. */
export const XEN_DOMCTL_GRANT_version_mask = 0xf;

export const XEN_DOMINF_dying = 1 << 0;
export const XEN_DOMINF_hvm_guest = 1 << 1;
export const XEN_DOMINF_shutdown = 1 << 2;
export const XEN_DOMINF_paused = 1 << 3;
export const XEN_DOMINF_blocked = 1 << 4;
export const XEN_DOMINF_running = 1 << 5;
export const XEN_DOMINF_debugged = 1 << 6;
export const XEN_DOMINF_xs_domain = 1 << 7;
export const XEN_DOMINF_hap = 1 << 8;
/** Behind the shift: the SHUTDOWN_* reason. */
export const XEN_DOMINF_shutdownmask = 255;
export const XEN_DOMINF_shutdownshift = 16;

export const XEN_VCPUAFFINITY_HARD = 1 << 0;
export const XEN_VCPUAFFINITY_SOFT = 1 << 1;
export const XEN_VCPUAFFINITY_FORCE = 1 << 2;

export const xen_arch_domainconfig = struct("xen_arch_domainconfig", 8, {
  emulation_flags: u32,
  misc_flags: u32,
});

export const xen_domctl_createdomain = struct("xen_domctl_createdomain", 68, {
  ssidref: u32,
  /** A UUID. */
  handle: bytes(16),
  /** XEN_DOMCTL_CDF_*. */
  flags: u32,
  iommu_opts: u32,
  max_vcpus: u32,
  /** The highest port. */
  max_evtchn_port: u32,
  /** Negative: the default. */
  max_grant_frames: s32,
  /** Negative: the default. */
  max_maptrack_frames: s32,
  grant_opts: u32,
  altp2m: group({ opts: u16, nr: u16 }),
  vmtrace_size: u32,
  cpupool_id: u32,
  arch: xen_arch_domainconfig,
});

export const xen_domctl_getdomaininfo = struct("xen_domctl_getdomaininfo", 112, {
  domain: domid_t,
  pad1: u16,
  /** XEN_DOMINF_*. */
  flags: u32,
  tot_pages: u64_aligned,
  max_pages: u64_aligned,
  /** What the domain has claimed and not yet got. */
  outstanding_pages: u64_aligned,
  shr_pages: u64_aligned,
  paged_pages: u64_aligned,
  shared_info_frame: u64_aligned,
  /** Nanoseconds. */
  cpu_time: u64_aligned,
  nr_online_vcpus: u32,
  max_vcpu_id: u32,
  ssidref: u32,
  /** A UUID. */
  handle: bytes(16),
  cpupool: u32,
  gpaddr_bits: u8,
  pad2: bytes(7),
  arch_config: xen_arch_domainconfig,
});

export const xenctl_bitmap = struct("xenctl_bitmap", 16, {
  bitmap: handle64("uint8_t"),
  nr_bits: u32,
  _pad0: pad(4),
});

export const xen_domctl_vcpuaffinity = struct("xen_domctl_vcpuaffinity", 40, {
  vcpu: u32,
  /** XEN_VCPUAFFINITY_*. */
  flags: u32,
  cpumap_hard: xenctl_bitmap,
  cpumap_soft: xenctl_bitmap,
});

export const xen_domctl_max_mem = struct("xen_domctl_max_mem", 8, {
  /** KiB. */
  max_memkb: u64_aligned,
});

export const xen_domctl_vcpucontext = struct("xen_domctl_vcpucontext", 16, {
  vcpu: u32,
  _pad0: pad(4),
  ctxt: handle64("void"),
});

export const xen_domctl_getvcpuinfo = struct("xen_domctl_getvcpuinfo", 24, {
  vcpu: u32,
  online: u8,
  blocked: u8,
  running: u8,
  _pad0: pad(1),
  /** Nanoseconds. */
  cpu_time: u64_aligned,
  cpu: u32,
  _pad1: pad(4),
});

export const xen_domctl_max_vcpus = struct("xen_domctl_max_vcpus", 4, { max: u32 });

export const xen_domctl_setdomainhandle = struct("xen_domctl_setdomainhandle", 16, { handle: bytes(16) });

export const xen_domctl_setdebugging = struct("xen_domctl_setdebugging", 1, { enable: u8 });

export const xen_domctl_irq_permission = struct("xen_domctl_irq_permission", 8, {
  pirq: u32,
  allow_access: u8,
  pad: bytes(3),
});

export const xen_domctl_iomem_permission = struct("xen_domctl_iomem_permission", 24, {
  first_mfn: u64_aligned,
  nr_mfns: u64_aligned,
  allow_access: u8,
  _pad0: pad(7),
});

export const xen_domctl_ioport_permission = struct("xen_domctl_ioport_permission", 12, {
  first_port: u32,
  nr_ports: u32,
  allow_access: u8,
  _pad0: pad(3),
});

export const xen_domctl_hypercall_init = struct("xen_domctl_hypercall_init", 8, { gmfn: u64_aligned });

export const xen_domctl_subscribe = struct("xen_domctl_subscribe", 4, { port: evtchn_port_t });

export const xen_domctl_memory_mapping = struct("xen_domctl_memory_mapping", 32, {
  first_gfn: u64_aligned,
  first_mfn: u64_aligned,
  nr_mfns: u64_aligned,
  add_mapping: u32,
  padding: u32,
});

export const xen_domctl_set_target = struct("xen_domctl_set_target", 2, { target: domid_t });

export const xen_domctl_set_virq_handler = struct("xen_domctl_set_virq_handler", 4, { virq: u32 });

export const xen_domctl_get_domain_state = struct("xen_domctl_get_domain_state", 16, {
  state: u16,
  caps: u16,
  pad1: u32,
  unique_id: u64_aligned,
});

export const xen_domctl_freeze_memory = struct("xen_domctl_freeze_memory", 8, {
  /** 1: freeze, 0: thaw. */
  freeze: u32,
  /** Out of a freeze; into a thaw, and into set_memory_limits meanwhile. */
  token: u32,
});

export const xen_domctl_memory_limits = struct("xen_domctl_memory_limits", 32, {
  max_pages: u32,
  /** Out. */
  tot_pages: u32,
  /** By how much device models may raise max_pages. */
  extra_pages_max: u32,
  /** Out: by how much they have. */
  extra_pages: u32,
  /** XEN_MEMORY_LIMIT_*. */
  what: u32,
  /** 0, or that of the freeze. */
  token: u32,
  /** Out: 1 while it is frozen. */
  frozen: u32,
  pad: u32,
});

export const xen_domctl = struct("xen_domctl", 144, {
  /** XEN_DOMCTL_*. */
  cmd: u32,
  /** XEN_DOMCTL_INTERFACE_VERSION. */
  interface_version: u32,
  /** In; for createdomain also out. */
  domain: domid_t,
  pad: array(u16, 3),
  u: union({
    createdomain: xen_domctl_createdomain,
    getdomaininfo: xen_domctl_getdomaininfo,
    vcpuaffinity: xen_domctl_vcpuaffinity,
    max_mem: xen_domctl_max_mem,
    vcpucontext: xen_domctl_vcpucontext,
    getvcpuinfo: xen_domctl_getvcpuinfo,
    max_vcpus: xen_domctl_max_vcpus,
    setdomainhandle: xen_domctl_setdomainhandle,
    setdebugging: xen_domctl_setdebugging,
    irq_permission: xen_domctl_irq_permission,
    iomem_permission: xen_domctl_iomem_permission,
    ioport_permission: xen_domctl_ioport_permission,
    hypercall_init: xen_domctl_hypercall_init,
    subscribe: xen_domctl_subscribe,
    memory_mapping: xen_domctl_memory_mapping,
    set_target: xen_domctl_set_target,
    set_virq_handler: xen_domctl_set_virq_handler,
    get_domain_state: xen_domctl_get_domain_state,
    freeze_memory: xen_domctl_freeze_memory,
    memory_limits: xen_domctl_memory_limits,
    pad: bytes(128),
  }),
});
