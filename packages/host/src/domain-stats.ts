/**
 * What a domain uses and has used.
 */
import { domainInfo } from "@xenolith/core";
import type { HostContext } from "./host-context.ts";

/** Figures of one domain. Frames are 4 KiB. */
export interface DomainStats {
  /** Frames that it owns now, at most so far, and at most ever. */
  readonly pages: number;
  readonly pagesPeak: number;
  readonly pagesMax: number;
  /** Mappings of the process that its address space uses, and may use. */
  readonly vmas: number;
  readonly vmaBudget: number;
  /** Hypercalls, WASI calls and services that it made. */
  readonly hypercalls: number;
  /** Hypercalls that the policy refused it. */
  readonly denied: number;
  /** Events that it received. */
  readonly events: number;
  /** Processor time of its vCPUs. */
  readonly cpuSeconds: number;
}

/** Figures of a domain that never ran. */
export const emptyStats: DomainStats = {
  pages: 0,
  pagesPeak: 0,
  pagesMax: 0,
  vmas: 0,
  vmaBudget: 0,
  hypercalls: 0,
  denied: 0,
  events: 0,
  cpuSeconds: 0,
};

/** Reads the figures of the domain in `slot`, whose vCPUs have used `cpuNs`. */
export const readStats = ({ hypervisor }: HostContext, slot: number, cpuNs: number): DomainStats => {
  const found = domainInfo(hypervisor, slot);
  return {
    pages: found.totPages,
    pagesPeak: found.peakPages,
    pagesMax: found.maxPages,
    vmas: found.vmaCount,
    vmaBudget: found.vmaBudget,
    hypercalls: found.hypercalls,
    denied: found.denied,
    events: found.events,
    cpuSeconds: cpuNs / 1e9,
  };
};
