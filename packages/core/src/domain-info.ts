/**
 * What there is to know about a domain, as a plain object: for host code, and for the replies of domctl and sysctl.
 */
import * as abi from "@xenolith/abi";
import { DOMAIN_FLAG_CRASHED, DOMAIN_FLAG_PRIVILEGED, DOMAIN_FLAG_XENSTORE } from "./domain-table.ts";
import type { DomainState } from "./domain-table.ts";
import { crashReason } from "./domain-ops.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { onlineVcpuCount } from "./vcpu-life.ts";
import { VCPU_BLOCKED, VCPU_RUNNING } from "./vcpu-table.ts";

/** A domain at one moment. Pages are of 4 KiB, times in nanoseconds. */
export interface DomainInfo {
  readonly slot: number;
  readonly domid: number;
  readonly generation: number;
  readonly state: DomainState;
  readonly pauses: number;
  /** SHUTDOWN_*, once it shut down or crashed. */
  readonly shutdownCode: number | undefined;
  /** Why it was crashed, if it was. */
  readonly crashReason: string | undefined;
  readonly privileged: boolean;
  readonly xenstore: boolean;
  /** Slot of the domain whose device model it is. */
  readonly target: number | undefined;
  readonly totPages: number;
  readonly maxPages: number;
  /** By how much device models may raise `maxPages`, and by how much they have. */
  readonly extraPagesMax: number;
  readonly extraPages: number;
  /** Its memory limits are frozen. */
  readonly frozen: boolean;
  readonly peakPages: number;
  readonly claimedPages: number;
  readonly vmaCount: number;
  readonly vmaBudget: number;
  readonly vcpuCount: number;
  readonly onlineVcpuCount: number;
  readonly hypercalls: number;
  readonly denied: number;
  readonly events: number;
  readonly cpuNs: number;
  readonly createdNs: number;
  readonly handle: Uint8Array;
}

/** Describes the domain in `slot`, which must not be free. */
export const domainInfo = (hypervisor: Hypervisor, slot: number): DomainInfo => {
  const { domains } = hypervisor;
  const flags = domains.flags[slot]!;
  const state = domains.stateOf(slot);
  const code = Atomics.load(domains.shutdownCode, slot);
  const target = domains.target[slot]!;
  return {
    slot,
    domid: domains.domid[slot]!,
    generation: domains.generation[slot]!,
    state,
    pauses: domains.pauses[slot]!,
    shutdownCode: code === 0 || state === "running" || state === "paused" ? undefined : code - 1,
    crashReason: (flags & DOMAIN_FLAG_CRASHED) === 0 ? undefined : crashReason(hypervisor, slot),
    privileged: (flags & DOMAIN_FLAG_PRIVILEGED) !== 0,
    xenstore: (flags & DOMAIN_FLAG_XENSTORE) !== 0,
    target: target === 0 ? undefined : target - 1,
    totPages: domains.totPages[slot]!,
    maxPages: domains.maxPages[slot]!,
    extraPagesMax: domains.extraPagesMax[slot]!,
    extraPages: domains.extraPages[slot]!,
    frozen: domains.frozenToken[slot] !== 0,
    peakPages: domains.peakPages[slot]!,
    claimedPages: domains.claim[slot]!,
    vmaCount: domains.vmaCount[slot]!,
    vmaBudget: domains.vmaBudget[slot]!,
    vcpuCount: domains.vcpuCount[slot]!,
    onlineVcpuCount: onlineVcpuCount(hypervisor, slot),
    hypercalls: domains.hypercallCount(slot),
    denied: domains.denied[slot]!,
    events: domains.eventCount(slot),
    cpuNs: cpuTime(hypervisor, slot),
    createdNs: domains.createdNs[slot]!,
    handle: domains.handle.slice(slot * 16, slot * 16 + 16),
  };
};

/** Slots in use, in ascending order of domid. Zombies are among them. */
export const listDomains = (hypervisor: Hypervisor): number[] => {
  const { domains } = hypervisor;
  const slots: number[] = [];
  for (let slot = 0; slot < domains.slotCount; slot += 1) if (domains.stateOf(slot) !== "free") slots.push(slot);
  return slots.toSorted((a, b) => domains.domid[a]! - domains.domid[b]!);
};

/** XEN_DOMINF_* of the domain in `slot`. */
export const domainFlags = (hypervisor: Hypervisor, slot: number): number => {
  const { domains } = hypervisor;
  const state = domains.stateOf(slot);
  const code = Atomics.load(domains.shutdownCode, slot);
  const isDying = state === "dying" || state === "dead";
  const isShut = state === "shutdown" || (isDying && code !== 0);
  const running = countVcpus(hypervisor, slot, isRunning);
  const isBlocked = running === 0 && countVcpus(hypervisor, slot, isSleeping) > 0;
  return (
    abi.XEN_DOMINF_hvm_guest |
    abi.XEN_DOMINF_hap |
    (isDying ? abi.XEN_DOMINF_dying : 0) |
    (isShut ? abi.XEN_DOMINF_shutdown | ((code - 1) << abi.XEN_DOMINF_shutdownshift) : 0) |
    (domains.pauses[slot] === 0 ? 0 : abi.XEN_DOMINF_paused) |
    (isBlocked ? abi.XEN_DOMINF_blocked : 0) |
    (running === 0 ? 0 : abi.XEN_DOMINF_running) |
    ((domains.flags[slot]! & DOMAIN_FLAG_XENSTORE) === 0 ? 0 : abi.XEN_DOMINF_xs_domain)
  );
};

/** Fills a xen_domctl_getdomaininfo at `at` of `view`, all 112 bytes. */
export const writeDomainInfo = (hypervisor: Hypervisor, slot: number, view: DataView, at: number): void => {
  const { domains } = hypervisor;
  const info = abi.xen_domctl_getdomaininfo;
  for (let i = 0; i < info.sizeBytes; i += 4) view.setUint32(at + i, 0, true);
  info.domain.set(view, at, domains.domid[slot]!);
  info.flags.set(view, at, domainFlags(hypervisor, slot));
  info.tot_pages.set(view, at, domains.totPages[slot]!);
  info.max_pages.set(view, at, domains.maxPages[slot]!);
  info.outstanding_pages.set(view, at, domains.claim[slot]!);
  info.shared_info_frame.set(view, at, Math.max(0, domains.sharedInfo[slot]! - 1));
  info.cpu_time.set(view, at, Math.floor(cpuTime(hypervisor, slot)));
  info.nr_online_vcpus.set(view, at, onlineVcpuCount(hypervisor, slot));
  info.max_vcpu_id.set(view, at, Math.max(0, domains.vcpuCount[slot]! - 1));
  for (let i = 0; i < 16; i += 1) view.setUint8(at + info.handle.offset + i, domains.handle[slot * 16 + i]!);
  info.gpaddr_bits.set(view, at, 32);
};

/** Processor time of all vCPUs of the domain, as their threads last reported it. */
const cpuTime = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, vcpus } = hypervisor;
  let sum = 0;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) sum += vcpus.cpuNs[vcpus.index(slot, vcpu)]!;
  return sum;
};

const isRunning = (state: number): boolean => state === VCPU_RUNNING;
const isSleeping = (state: number): boolean => state === VCPU_BLOCKED;

const countVcpus = (hypervisor: Hypervisor, slot: number, matches: (state: number) => boolean): number => {
  const { domains, vcpus } = hypervisor;
  let count = 0;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    if (matches(Atomics.load(vcpus.state, vcpus.index(slot, vcpu)))) count += 1;
  }
  return count;
};
