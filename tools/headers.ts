/** One C header for each file of packages/abi/src that declares a part of the interface, in order of dependence. */
export interface Header {
  readonly source: string;
  /** Below guest/include/xenolith. */
  readonly path: string;
  readonly title: string;
  /** Other headers that it needs. */
  readonly includes: readonly string[];
  /** C libraries have the same names with other values: give each constant this prefix too, and leave the bare one to WASI. */
  readonly prefix?: string;
}

export const headers: readonly Header[] = [
  { source: "errno.ts", path: "errno.h", title: "Error numbers", includes: [], prefix: "XEN_" },
  { source: "hypercall.ts", path: "hypercall_numbers.h", title: "Hypercall numbers", includes: [] },
  { source: "xen.ts", path: "xen.h", title: "Domains, shared pages", includes: ["types.h", "hypercall_numbers.h"] },
  { source: "hvm-start-info.ts", path: "hvm/start_info.h", title: "Boot record", includes: ["types.h"] },
  { source: "memory.ts", path: "memory.h", title: "Memory", includes: ["xen.h"] },
  { source: "event-channel.ts", path: "event_channel.h", title: "Event channels", includes: ["xen.h"] },
  { source: "sched.ts", path: "sched.h", title: "Scheduling", includes: ["xen.h", "event_channel.h"] },
  { source: "vcpu.ts", path: "vcpu.h", title: "Virtual CPUs", includes: ["xen.h"] },
  { source: "physdev.ts", path: "physdev.h", title: "Physical interrupts", includes: ["xen.h"] },
  { source: "version.ts", path: "version.h", title: "Version and features", includes: ["xen.h"] },
  { source: "hvm-params.ts", path: "hvm/params.h", title: "Domain parameters", includes: ["types.h"] },
  { source: "hvm-op.ts", path: "hvm/hvm_op.h", title: "Parameters and time", includes: ["xen.h", "hvm/params.h"] },
  { source: "grant-table.ts", path: "grant_table.h", title: "Grant tables", includes: ["xen.h"] },
  { source: "secret.ts", path: "secret_op.h", title: "Secret memory", includes: ["xen.h"] },
  { source: "domctl.ts", path: "domctl.h", title: "Control of domains", includes: ["xen.h"] },
  { source: "sysctl.ts", path: "sysctl.h", title: "Control of the machine", includes: ["xen.h", "domctl.h"] },
  { source: "key-op.ts", path: "key_op.h", title: "Keys", includes: ["xen.h"] },
  { source: "console.ts", path: "io/console.h", title: "Console page", includes: ["types.h"] },
  { source: "xenstore.ts", path: "io/xs_wire.h", title: "Xenstore page", includes: ["types.h"] },
];
