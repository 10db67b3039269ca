/**
 * Audit of event channels, virqs, pirqs, polls, waits and vCPU areas: everything is recounted from the port words.
 * The hypervisor is at rest. Findings are sentences; none means that all agrees.
 */
import {
  EVTCHNSTAT_closed,
  EVTCHNSTAT_interdomain,
  EVTCHNSTAT_ipi,
  EVTCHNSTAT_pirq,
  EVTCHNSTAT_virq,
  NR_VIRQS,
} from "@xenolith/abi";
import { FRAME_BYTES } from "./direct-map.ts";
import { portEnd } from "./event-delivery.ts";
import { virqHome } from "./event-ports.ts";
import { portIsXen, portKind, portPayload, portRemotePort, portRemoteSlot, portVcpu } from "./event-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { IRQ_COUNT, PIRQ_COUNT } from "./pirq-table.ts";
import { VCPU_BLOCKED } from "./vcpu-table.ts";

/** Collects the findings about one slot. */
interface SlotAudit {
  readonly hypervisor: Hypervisor;
  readonly slot: number;
  readonly findings: string[];
}

/** All findings about events. */
export const auditEvents = (hypervisor: Hypervisor): string[] => {
  const findings: string[] = [];
  for (let slot = 0; slot < hypervisor.domains.slotCount; slot += 1) {
    const about = { hypervisor, slot, findings };
    auditPorts(about);
    auditVirqs(about);
    auditPirqs(about);
    auditVcpus(about);
  }
  for (let virq = 0; virq < NR_VIRQS; virq += 1) {
    const owner = hypervisor.events.virqOwner[virq]!;
    if (owner !== 0 && hypervisor.domains.stateOf(owner) === "free")
      findings.push(`virq ${virq}: owner ${owner} is free`);
  }
  return findings;
};

/** Counts, hint, range, and each open port by itself. */
const auditPorts = (about: SlotAudit): void => {
  const { hypervisor, slot, findings } = about;
  const { events } = hypervisor;
  const isGone = isRowGone(hypervisor, slot);
  let open = 0;
  let xenOpen = 0;
  let lowest = 0;
  for (let port = 0; port < events.portsPerDomain; port += 1) {
    const word = events.load(slot, port);
    if (portKind(word) === EVTCHNSTAT_closed) {
      if (word !== 0) findings.push(`slot ${slot} port ${port}: closed, but its word is ${word}`);
      if (port > 0 && lowest === 0) lowest = port;
      continue;
    }
    open += 1;
    if (portIsXen(word)) xenOpen += 1;
    auditPort(about, port, word);
  }
  if (events.open[slot] !== open) findings.push(`slot ${slot}: ${open} ports are open, ${events.open[slot]} counted`);
  if (events.xenOpen[slot] !== xenOpen)
    findings.push(`slot ${slot}: ${xenOpen} xen ports, ${events.xenOpen[slot]} counted`);
  if (isGone && open !== 0) findings.push(`slot ${slot}: ${open} ports are open, but there is no domain`);
  const hint = events.freeHint[slot]!;
  if (lowest !== 0 && hint > lowest) findings.push(`slot ${slot}: port ${lowest} is free below the hint ${hint}`);
};

const auditPort = ({ hypervisor, slot, findings }: SlotAudit, port: number, word: number): void => {
  const { domains, events, pirqs } = hypervisor;
  const where = `slot ${slot} port ${port}`;
  const payload = portPayload(word);
  if (port === 0 || port >= portEnd(hypervisor, slot)) findings.push(`${where}: outside the domain's range`);
  if (portVcpu(word) >= domains.vcpuCount[slot]!)
    findings.push(`${where}: notifies vCPU ${portVcpu(word)}, which is not there`);
  switch (portKind(word)) {
    case EVTCHNSTAT_interdomain: {
      const back = events.load(portRemoteSlot(word), portRemotePort(word));
      const isMutual =
        portKind(back) === EVTCHNSTAT_interdomain && portRemoteSlot(back) === slot && portRemotePort(back) === port;
      if (!isMutual) findings.push(`${where}: its peer does not name it`);
      break;
    }
    case EVTCHNSTAT_virq: {
      const isKnown = payload < NR_VIRQS && events.virqPort[events.virqRow(slot, virqHome(word), payload)] === port;
      if (!isKnown) findings.push(`${where}: virq ${payload} does not name it`);
      break;
    }
    case EVTCHNSTAT_pirq:
      if (payload >= PIRQ_COUNT || pirqs.port[pirqs.row(slot, payload)] !== port) {
        findings.push(`${where}: pirq ${payload} does not name it`);
      }
      break;
    case EVTCHNSTAT_ipi:
      if (payload !== 0) findings.push(`${where}: an ipi with payload ${payload}`);
      break;
    default:
      break;
  }
};

/** Every virq that names a port names one of its own. */
const auditVirqs = ({ hypervisor, slot, findings }: SlotAudit): void => {
  const { events, vcpus } = hypervisor;
  for (let vcpu = 0; vcpu < vcpus.perDomain; vcpu += 1) {
    for (let virq = 0; virq < NR_VIRQS; virq += 1) {
      const port = events.virqPort[events.virqRow(slot, vcpu, virq)]!;
      if (port === 0) continue;
      const word = events.load(slot, port);
      const isOwn = portKind(word) === EVTCHNSTAT_virq && portPayload(word) === virq;
      if (!isOwn) findings.push(`slot ${slot} vCPU ${vcpu} virq ${virq}: port ${port} is not its own`);
    }
  }
};

/** Each irq is mapped once; each bound pirq is mapped and has a port of its own. */
const auditPirqs = ({ hypervisor, slot, findings }: SlotAudit): void => {
  const { events, pirqs, frames } = hypervisor;
  const seen = new Set<number>();
  for (let pirq = 0; pirq < PIRQ_COUNT; pirq += 1) {
    const row = pirqs.row(slot, pirq);
    const irq = pirqs.irq[row]!;
    const port = pirqs.port[row]!;
    if (irq > IRQ_COUNT) findings.push(`slot ${slot} pirq ${pirq}: irq ${irq - 1} does not exist`);
    if (irq !== 0 && seen.has(irq)) findings.push(`slot ${slot} pirq ${pirq}: irq ${irq - 1} is mapped twice`);
    seen.add(irq);
    if (port === 0) continue;
    if (irq === 0) findings.push(`slot ${slot} pirq ${pirq}: bound, but not mapped`);
    const word = events.load(slot, port);
    const isOwn = portKind(word) === EVTCHNSTAT_pirq && portPayload(word) === pirq;
    if (!isOwn) findings.push(`slot ${slot} pirq ${pirq}: port ${port} is not its own`);
  }
  const frame = pirqs.eoiFrame[slot]! - 1;
  if (frame >= 0 && frames.owner[frame] !== slot + 1)
    findings.push(`slot ${slot}: its EOI page ${frame} is not its own`);
};

/** vcpu_info places, polls and waits. */
const auditVcpus = ({ hypervisor, slot, findings }: SlotAudit): void => {
  const { domains, events, frames, vcpus } = hypervisor;
  const isGone = isRowGone(hypervisor, slot);
  const sharedInfo = (domains.sharedInfo[slot]! - 1) * FRAME_BYTES;
  for (let vcpu = 0; vcpu < vcpus.perDomain; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    const where = `slot ${slot} vCPU ${vcpu}`;
    const bit = 1 << vcpu;
    const isBlocked = vcpus.state[index] === VCPU_BLOCKED;
    if ((events.pollMask[slot]! & bit) !== 0 && !isBlocked)
      findings.push(`${where}: marked as polling, but not blocked`);
    if ((vcpus.futexMask[slot]! & bit) !== 0 && !isBlocked)
      findings.push(`${where}: marked as waiting, but not blocked`);
    const frame = vcpus.infoFrame[index]! - 1;
    const address = vcpus.vcpuInfo[index]!;
    if (frame >= 0) {
      if (frames.owner[frame] !== slot + 1)
        findings.push(`${where}: its vcpu_info stands in frame ${frame}, not its own`);
      if (Math.floor(address / FRAME_BYTES) !== frame)
        findings.push(`${where}: vcpu_info is not in its frame ${frame}`);
    } else if (address !== 0 && Math.floor(address / FRAME_BYTES) * FRAME_BYTES !== sharedInfo) {
      findings.push(`${where}: vcpu_info is neither registered nor in shared_info`);
    }
    if (isGone && (frame >= 0 || address !== 0)) findings.push(`${where}: has a vcpu_info, but there is no domain`);
  }
};

/** Whether nothing of a domain is left in the row but perhaps its name. */
const isRowGone = (hypervisor: Hypervisor, slot: number): boolean => {
  const state = hypervisor.domains.stateOf(slot);
  return state === "free" || state === "dead";
};
