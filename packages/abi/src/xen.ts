import { array, bytes, chars, pad, s8, u32, u64n, u8 } from "./scalar.ts";
import { group, struct, structArray, union } from "./struct.ts";
import { evtchn_port_t, xen_pfn_t, xen_ulong_t } from "./types.ts";

// Domain ids, virtual interrupts and the pages that a guest shares with the hypervisor. Source: xen/include/public/xen.h
// and arch-x86/xen.h.

/** The newest revision of the public interface that these layouts follow. */
export const __XEN_LATEST_INTERFACE_VERSION__ = 0x0004_1300;

/** Real domain ids are below this. */
export const DOMID_FIRST_RESERVED = 0x7ff0;
/** The calling domain. */
export const DOMID_SELF = 0x7ff0;
export const DOMID_IO = 0x7ff1;
/** The hypervisor. */
export const DOMID_XEN = 0x7ff2;
export const DOMID_COW = 0x7ff3;
/** Nobody. */
export const DOMID_INVALID = 0x7ff4;
/** At creation: choose a free id. */
export const DOMID_ANY = 0x7ff5;
export const DOMID_IDLE = 0x7fff;
export const DOMID_MASK = 0x7fff;

/** Per vCPU. The timebase update of the calling vCPU's timers. */
export const VIRQ_TIMER = 0;
/** Per vCPU. */
export const VIRQ_DEBUG = 1;
/** Global: bytes for the console. */
export const VIRQ_CONSOLE = 2;
/** Global: a domain changed its state (shutdown, crash, death). */
export const VIRQ_DOM_EXC = 3;
/** Global: the trace buffer holds records. */
export const VIRQ_TBUF = 4;
/** Global. */
export const VIRQ_DEBUGGER = 6;
/** Per vCPU. */
export const VIRQ_XENOPROF = 7;
/** Global: bytes in the console ring. */
export const VIRQ_CON_RING = 8;
/** Global. */
export const VIRQ_PCPU_STATE = 9;
/** Global: a memory event happened. */
export const VIRQ_MEM_EVENT = 10;
/** Per domain. */
export const VIRQ_ARGO = 11;
/** Global: the machine is low on memory. */
export const VIRQ_ENOMEM = 12;
/** Per vCPU. */
export const VIRQ_XENPMU = 13;
export const VIRQ_ARCH_0 = 16;
export const VIRQ_ARCH_1 = 17;
export const VIRQ_ARCH_2 = 18;
export const VIRQ_ARCH_3 = 19;
export const VIRQ_ARCH_4 = 20;
export const VIRQ_ARCH_5 = 21;
export const VIRQ_ARCH_6 = 22;
export const VIRQ_ARCH_7 = 23;
export const NR_VIRQS = 24;

export const CONSOLEIO_write = 0;
export const CONSOLEIO_read = 1;

export const VMASST_CMD_enable = 0;
export const VMASST_CMD_disable = 1;

/** How many vCPUs have their vcpu_info in shared_info; the others register one. */
export const XEN_LEGACY_MAX_VCPUS = 32;

/** One call of a multicall; `result` receives what the hypercall returned. */
export const multicall_entry = struct("multicall_entry", 32, {
  op: xen_ulong_t,
  result: xen_ulong_t,
  args: array(xen_ulong_t, 6),
});

/** `vcpu_time_info.flags`: the time runs at the same rate on every processor. */
export const XEN_PVCLOCK_TSC_STABLE_BIT = 1;
/** `vcpu_time_info.flags`: the guest was stopped by its host since it last cleared this. */
export const XEN_PVCLOCK_GUEST_STOPPED = 2;

/** System time for one vCPU. An odd version says that an update is in progress: read again. */
export const vcpu_time_info = struct("vcpu_time_info", 32, {
  version: u32,
  pad0: u32,
  tsc_timestamp: u64n,
  /** Nanoseconds since the host opened. */
  system_time: u64n,
  tsc_to_system_mul: u32,
  tsc_shift: s8,
  flags: u8,
  pad1: bytes(2),
});

export const arch_vcpu_info = struct("arch_vcpu_info", 24, {
  cr2: xen_ulong_t,
  pad: array(xen_ulong_t, 5),
});

/** What one vCPU shares with the hypervisor. */
export const vcpu_info = struct("vcpu_info", 64, {
  /** Non-zero: some selector bit is set. Written by both. */
  evtchn_upcall_pending: u8,
  /** Non-zero: no upcalls, please. Written by the guest, and cleared by SCHEDOP_block. */
  evtchn_upcall_mask: u8,
  _pad0: pad(2),
  /** One bit per word of evtchn_pending. Written by both. */
  evtchn_pending_sel: xen_ulong_t,
  arch: arch_vcpu_info,
  time: vcpu_time_info,
});

export const arch_shared_info = struct("arch_shared_info", 28, {
  max_pfn: xen_ulong_t,
  pfn_to_mfn_frame_list_list: xen_pfn_t,
  nmi_reason: xen_ulong_t,
  p2m_cr3: xen_ulong_t,
  p2m_vaddr: xen_ulong_t,
  p2m_generation: xen_ulong_t,
  wc_sec_hi: u32,
});

/** The page that a domain shares with the hypervisor. */
export const shared_info = struct("shared_info", 2344, {
  vcpu_info: structArray(vcpu_info, XEN_LEGACY_MAX_VCPUS),
  /** One bit per event channel: 1024 of them. Set by the hypervisor, cleared by the guest. */
  evtchn_pending: array(xen_ulong_t, 32),
  /** One bit per event channel. Written by the guest, and cleared by EVTCHNOP_unmask. */
  evtchn_mask: array(xen_ulong_t, 32),
  wc_version: u32,
  wc_sec: u32,
  wc_nsec: u32,
  arch: arch_shared_info,
});

export const SIF_PRIVILEGED = 1 << 0;
export const SIF_INITDOMAIN = 1 << 1;
export const SIF_MULTIBOOT_MOD = 1 << 2;
export const SIF_MOD_START_PFN = 1 << 3;
export const SIF_VIRT_P2M_4TOOLS = 1 << 4;

export const MAX_GUEST_CMDLINE = 1024;

/** What a Xen-style guest is started with: its address is the argument of `xen_start`. */
export const start_info = struct("start_info", 1112, {
  /** "xen-3.0-wasm_32", zero-terminated. */
  magic: chars(32),
  nr_pages: xen_ulong_t,
  /** The address at which the shared_info page stands. */
  shared_info: xen_ulong_t,
  flags: u32,
  store_mfn: xen_pfn_t,
  store_evtchn: evtchn_port_t,
  console: union({
    domU: group({ mfn: xen_pfn_t, evtchn: evtchn_port_t }),
    dom0: group({ info_off: u32, info_size: u32 }),
  }),
  pt_base: xen_ulong_t,
  nr_pt_frames: xen_ulong_t,
  mfn_list: xen_ulong_t,
  mod_start: xen_ulong_t,
  mod_len: xen_ulong_t,
  cmd_line: chars(MAX_GUEST_CMDLINE),
  first_p2m_pfn: xen_ulong_t,
  nr_p2m_frames: xen_ulong_t,
});
