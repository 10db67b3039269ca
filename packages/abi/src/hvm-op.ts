import { bytes, pad, u32, u64, u64n, u8 } from "./scalar.ts";
import { struct } from "./struct.ts";
import { domid_t } from "./types.ts";

// hvm_op. Source: xen/include/public/hvm/hvm_op.h.

export const HVMOP_set_param = 0;
export const HVMOP_get_param = 1;
export const HVMOP_set_pci_intx_level = 2;
export const HVMOP_flush_tlbs = 5;
export const HVMOP_get_time = 10;
export const HVMOP_get_mem_type = 15;
export const HVMOP_set_evtchn_upcall_vector = 23;

export const xen_hvm_param = struct("xen_hvm_param", 16, {
  domid: domid_t,
  _pad0: pad(2),
  index: u32,
  value: u64,
});

export const xen_hvm_get_time = struct("xen_hvm_get_time", 8, {
  /** Out: system time in nanoseconds. */
  now: u64n,
});

export const xen_hvm_evtchn_upcall_vector = struct("xen_hvm_evtchn_upcall_vector", 8, {
  vcpu: u32,
  vector: u8,
  _pad: bytes(3),
});
