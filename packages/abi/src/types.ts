import { u16, u32, named } from "./scalar.ts";

// The scalar types of Xen's public interface, in 32 bits. Source: xen/include/public/xen.h and its siblings.

export const domid_t = named(u16, "domid_t");
/** A guest frame number, or an mfn where the interface says so. */
export const xen_pfn_t = named(u32, "xen_pfn_t");
export const xen_ulong_t = named(u32, "xen_ulong_t");
export const evtchn_port_t = named(u32, "evtchn_port_t");
export const grant_ref_t = named(u32, "grant_ref_t");
export const grant_handle_t = named(u32, "grant_handle_t");
