/**
 * What the API shows of domains and of the host: read from the hypervisor at the moment of the request.
 */
import * as os from "node:os";
import {
  XEN_DOMINF_blocked,
  XEN_DOMINF_dying,
  XEN_DOMINF_paused,
  XEN_DOMINF_running,
  XEN_DOMINF_shutdown,
} from "@xenolith/abi";
import {
  DOM0_SLOT,
  dmaSlot,
  domainFlags,
  domainInfo,
  type DomainInfo,
  findDomain,
  listDomains,
  VCPU_BLOCKED,
  VCPU_OFFLINE,
  VCPU_RUNNING,
} from "@xenolith/core";
import type { DomainExit, Host } from "@xenolith/host";
import type { ClaimsView, DomainFlags, DomainView, ExitView, HostView, MemoryView, VcpusView } from "./api-types.ts";
import type { Guest } from "./guest.ts";
import type { MemoryPort } from "./memory-port.ts";

const FRAME_BYTES = 4096;
/** Name of the control domain. */
export const DOM0_NAME = "Domain-0";

/** Version of the service. */
export const VERSION = "0.1.0";

/** Where views are read from. */
export interface ViewSource {
  readonly host: Host;
  readonly memory: MemoryPort;
  /** When the service began, by the clock of the day. */
  readonly startedMs: number;
  /** The guest that is this run of a domain. */
  guestOf(domid: number, generation: number): Guest | undefined;
  /** Whether the definition of this name starts by itself. */
  doesAutostart(definition: string): boolean;
}

/** Every domain, dom0 first, in the order of their numbers. */
export const domainViews = (source: ViewSource): readonly DomainView[] =>
  visibleSlots(source.host).map((slot) => viewOfSlot(source, slot));

/** One domain. */
export const domainView = (source: ViewSource, guest: Guest): DomainView => {
  const slot = slotOf(source.host, guest);
  return slot < 0 ? goneView(source, guest) : viewOfSlot(source, slot);
};

/** The control domain. */
export const dom0View = (source: ViewSource): DomainView => viewOfSlot(source, DOM0_SLOT);

/** Slot of this run of a domain; negative when it is gone. */
const slotOf = ({ hypervisor }: Host, { domain }: Guest): number =>
  findDomain(hypervisor, domain.domid, domain.generation);

/** The DMA view is a slot of the hypervisor's, but no domain to anybody. */
const visibleSlots = ({ hypervisor }: Host): readonly number[] => {
  const hidden = dmaSlot(hypervisor.domains);
  return listDomains(hypervisor).filter((slot) => slot !== hidden);
};

const viewOfSlot = (source: ViewSource, slot: number): DomainView => {
  const { hypervisor } = source.host;
  const info = domainInfo(hypervisor, slot);
  const isDom0 = slot === DOM0_SLOT;
  const guest = isDom0 ? undefined : source.guestOf(info.domid, info.generation);
  const balloon = guest === undefined ? undefined : source.memory.balloon(guest.domain);
  return {
    domid: info.domid,
    generation: info.generation,
    revision: `${info.generation}.0`,
    state: flagsOf(domainFlags(hypervisor, slot), guest),
    vcpus: info.vcpuCount,
    cpuSeconds: info.cpuNs / 1e9,
    memory: { ...memoryOf(info), ...(balloon === undefined ? {} : { balloon }) },
    autostart: false,
    ...since(source.startedMs),
    restarts: 0,
    ...(info.target === undefined ? {} : { deviceModelFor: hypervisor.domains.domid[info.target]! }),
    hypercalls: info.hypercalls,
    hypercallsDenied: info.denied,
    events: info.events,
    vmas: info.vmaCount,
    vmaBudget: info.vmaBudget,
    ...(isDom0 ? dom0Facts() : guest === undefined ? { name: nameOf(source.host, info) } : guestFacts(source, guest)),
  };
};

/** A domain that is being made, or that another program makes, has the name that it was given there. */
const nameOf = (host: Host, { domid, generation }: DomainInfo): string => {
  const domain = host.domain(domid);
  return domain?.generation === generation ? domain.name : `(domain ${domid})`;
};

const since = (createdMs: number): Pick<DomainView, "createdMs" | "uptimeSeconds"> => ({
  createdMs,
  uptimeSeconds: Math.max(0, (Date.now() - createdMs) / 1000),
});

/** dom0 is the thread that answers: it runs. */
const dom0Facts = (): Partial<DomainView> & Pick<DomainView, "name"> => ({
  name: DOM0_NAME,
  state: { running: true, blocked: false, paused: false, shutdown: false, crashed: false, dying: false },
  vcpus: 1,
  cpuSeconds: dom0CpuSeconds(),
});

/** What the service knows of a domain beside the hypervisor. */
const guestFacts = (source: ViewSource, guest: Guest): Partial<DomainView> & Pick<DomainView, "name"> => ({
  name: guest.name,
  revision: guest.revision,
  ...(guest.exit === undefined ? {} : { exit: exitView(guest.exit) }),
  cpuSeconds: guest.domain.stats().cpuSeconds,
  ...(guest.definition === undefined
    ? {}
    : { definition: guest.definition, autostart: source.doesAutostart(guest.definition) }),
  ...since(guest.createdMs),
  restarts: guest.restarts,
  ...(guest.config?.label === undefined ? {} : { label: guest.config.label }),
});

const memoryOf = (info: DomainInfo): MemoryView => ({
  currentBytes: info.totPages * FRAME_BYTES,
  maxBytes: info.maxPages * FRAME_BYTES,
  peakBytes: info.peakPages * FRAME_BYTES,
  claimedBytes: info.claimedPages * FRAME_BYTES,
  deviceModelBytes: info.extraPages * FRAME_BYTES,
  deviceModelBytesMax: info.extraPagesMax * FRAME_BYTES,
  isFrozen: info.frozen,
});

const flagsOf = (flags: number, guest: Guest | undefined): DomainFlags => ({
  running: (flags & XEN_DOMINF_running) !== 0,
  blocked: (flags & XEN_DOMINF_blocked) !== 0,
  paused: (flags & XEN_DOMINF_paused) !== 0,
  shutdown: (flags & XEN_DOMINF_shutdown) !== 0 && guest?.exit?.crashed !== true,
  crashed: guest?.exit?.crashed === true,
  dying: (flags & XEN_DOMINF_dying) !== 0,
});

/** What is left to say of a domain that went while it was asked about. */
const goneView = (source: ViewSource, guest: Guest): DomainView => ({
  domid: guest.domain.domid,
  generation: guest.domain.generation,
  revision: guest.revision,
  state: { running: false, blocked: false, paused: false, shutdown: false, crashed: false, dying: true },
  vcpus: 0,
  cpuSeconds: 0,
  memory: { ...nothing, peakBytes: guest.domain.stats().pagesPeak * FRAME_BYTES },
  autostart: false,
  ...since(guest.createdMs),
  restarts: guest.restarts,
  hypercalls: 0,
  hypercallsDenied: 0,
  events: 0,
  vmas: 0,
  vmaBudget: 0,
  ...guestFacts(source, guest),
});

const nothing: MemoryView = {
  currentBytes: 0,
  maxBytes: 0,
  peakBytes: 0,
  claimedBytes: 0,
  deviceModelBytes: 0,
  deviceModelBytesMax: 0,
  isFrozen: false,
};

const exitView = ({ code, reason, crashed, where }: DomainExit): ExitView => ({
  code,
  reason,
  crashed,
  ...(where === undefined ? {} : { where }),
});

/** dom0's one processor: the thread that answers. */
export const dom0Vcpus = (): VcpusView => ({
  domid: 0,
  name: DOM0_NAME,
  vcpus: [{ vcpu: 0, online: true, running: true, blocked: false, cpuSeconds: dom0CpuSeconds() }],
});

const dom0CpuSeconds = (): number => process.cpuUsage().user / 1e6;

/** The virtual CPUs of a domain; none when it is gone. */
export const vcpusView = ({ host }: ViewSource, guest: Guest): VcpusView => {
  const { vcpus, domains } = host.hypervisor;
  const slot = slotOf(host, guest);
  const count = slot < 0 ? 0 : domains.vcpuCount[slot]!;
  const rows = Array.from({ length: count }, (_, vcpu) => {
    const index = vcpus.index(slot, vcpu);
    const state = Atomics.load(vcpus.state, index);
    return {
      vcpu,
      online: state !== VCPU_OFFLINE,
      running: state === VCPU_RUNNING,
      blocked: state === VCPU_BLOCKED,
      cpuSeconds: vcpus.cpuNs[index]! / 1e9,
    };
  });
  return { domid: guest.domain.domid, name: guest.name, vcpus: rows };
};

/** The host. */
export const hostView = ({ host, memory, startedMs }: ViewSource): HostView => ({
  hostname: os.hostname(),
  version: VERSION,
  node: process.version,
  machine: os.machine(),
  processors: os.availableParallelism(),
  pid: process.pid,
  startedMs,
  uptimeSeconds: Math.max(0, (Date.now() - startedMs) / 1000),
  ...host.info(),
  pressure: memory.pressure(),
});

/** Claims of all domains. */
export const claimsView = (source: ViewSource): ClaimsView => ({
  totalBytes: source.host.info().memoryClaimedBytes,
  claims: domainViews(source)
    .filter(({ memory }) => memory.claimedBytes > 0)
    .map(({ domid, name, memory }) => ({ domid, name, bytes: memory.claimedBytes })),
});
