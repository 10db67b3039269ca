/**
 * domctl createdomain: decodes and checks what the caller wants. Only what this hypervisor has can be asked for.
 * The row exists when this returns; the host makes the address space and the threads, which ATTENTION_REQUEST tells it.
 */
import * as abi from "@xenolith/abi";
import { ATTENTION_REQUEST } from "./attention.ts";
import type { Cpu } from "./cpu.ts";
import { createDomain } from "./domain-create.ts";
import type { GrantLimits } from "./grant-grow.ts";

const { EINVAL } = abi;

/** Translated guest with hardware assistance is what every guest is; the rest of the flags ask for what is not there. */
const FLAGS_KNOWN = abi.XEN_DOMCTL_CDF_hvm | abi.XEN_DOMCTL_CDF_hap | abi.XEN_DOMCTL_CDF_xs_domain;
const GRANT_VERSION_MAX = 1;

/**
 * Creates the domain that the structure in the scratch buffer describes and writes its domid there. -EINVAL: flags,
 * options or limits that cannot be had; else what `createDomain` returns.
 */
export const createFromGuest = (cpu: Cpu): number => {
  const { hypervisor, memory } = cpu;
  const { createdomain } = abi.xen_domctl.u;
  const { scratch } = memory;
  const domid = abi.xen_domctl.domain.get(scratch, 0);
  const flags = createdomain.flags.get(scratch, 0);
  if (!isSupported(scratch, flags)) return -EINVAL;
  const result = createDomain(hypervisor, {
    domid,
    vcpus: createdomain.max_vcpus.get(scratch, 0),
    portMax: createdomain.max_evtchn_port.get(scratch, 0),
    handle: createdomain.handle.get(scratch, 0),
    xenstore: (flags & abi.XEN_DOMCTL_CDF_xs_domain) !== 0,
    ...grantLimits(scratch),
  });
  if (result < 0) return result;
  abi.xen_domctl.domain.set(scratch, 0, result);
  hypervisor.attention.raise(ATTENTION_REQUEST);
  return 0;
};

/** Negative: as many as there are by default. */
const grantLimits = (scratch: DataView): GrantLimits => {
  const { createdomain } = abi.xen_domctl.u;
  const frames = createdomain.max_grant_frames.get(scratch, 0);
  const pages = createdomain.max_maptrack_frames.get(scratch, 0);
  return {
    ...(frames < 0 ? {} : { grantFramesMax: frames }),
    ...(pages < 0 ? {} : { maptrackFramesMax: pages }),
  };
};

const isSupported = (scratch: DataView, flags: number): boolean => {
  const { createdomain } = abi.xen_domctl.u;
  const grants = createdomain.grant_opts.get(scratch, 0);
  return (
    (flags & ~FLAGS_KNOWN) === 0 &&
    (flags & abi.XEN_DOMCTL_CDF_hvm) !== 0 &&
    grants >= 1 &&
    grants <= GRANT_VERSION_MAX &&
    createdomain.iommu_opts.get(scratch, 0) === 0 &&
    createdomain.altp2m.opts.get(scratch, 0) === 0 &&
    createdomain.altp2m.nr.get(scratch, 0) === 0 &&
    createdomain.vmtrace_size.get(scratch, 0) === 0 &&
    createdomain.cpupool_id.get(scratch, 0) === 0 &&
    createdomain.arch.emulation_flags.get(scratch, 0) === 0 &&
    createdomain.arch.misc_flags.get(scratch, 0) === 0
  );
};
