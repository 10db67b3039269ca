/**
 * Opening and closing event channels. Everything here takes slots and numbers, for the hypercall and for host code
 * alike, and returns a port (or 0) or a negative errno.
 *
 * Locks: the event lock of each domain whose ports change, in slot order. Checks come first, nothing is published
 * before all of them passed, and what names a port is removed before the port itself is closed.
 */
import {
  EAGAIN,
  EBUSY,
  EEXIST,
  EINVAL,
  ENOENT,
  ENOSPC,
  ESRCH,
  EVTCHNSTAT_closed,
  EVTCHNSTAT_interdomain,
  EVTCHNSTAT_ipi,
  EVTCHNSTAT_pirq,
  EVTCHNSTAT_unbound,
  EVTCHNSTAT_virq,
  NR_VIRQS,
} from "@xenolith/abi";
import { clearPending, portEnd, setPending } from "./event-delivery.ts";
import {
  interdomainWord,
  portIsXen,
  portKind,
  portPayload,
  portRemotePort,
  portRemoteSlot,
  portVcpu,
  portWord,
  withVcpu,
} from "./event-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { markEoi } from "./pirq-eoi.ts";
import { PIRQ_COUNT, PIRQ_IN_SERVICE, PIRQ_SHARED } from "./pirq-table.ts";
import { VIRQ_KIND_GLOBAL, VIRQ_KIND_VCPU, virqKind } from "./virq.ts";

/** How often a close starts over because the channel changed meanwhile: each time another vCPU made progress. */
const CLOSE_TRIES_MAX = 64;

/** Takes the event locks of two domains, in slot order; one lock when they are the same. */
export const lockEvents = (hypervisor: Hypervisor, a: number, b: number): void => {
  const { locks } = hypervisor;
  locks.acquire(locks.id("event", Math.min(a, b)));
  if (a !== b) locks.acquire(locks.id("event", Math.max(a, b)));
};

/** Gives back what `lockEvents` took. */
export const unlockEvents = (hypervisor: Hypervisor, a: number, b: number): void => {
  const { locks } = hypervisor;
  if (a !== b) locks.release(locks.id("event", Math.max(a, b)));
  locks.release(locks.id("event", Math.min(a, b)));
};

/**
 * Lowest closed port of the domain in `slot`. -EINVAL: the domain is dying, -ENOSPC: it has no more. The caller holds
 * its event lock and publishes the port under it.
 */
const findPort = (hypervisor: Hypervisor, slot: number): number => {
  const state = hypervisor.domains.stateOf(slot);
  if (state === "free" || state === "dying" || state === "dead") return -EINVAL;
  const port = hypervisor.events.lowestClosed(slot, portEnd(hypervisor, slot));
  return port < 0 ? -ENOSPC : port;
};

/** Opens `port`: forgets what a late sender may have left pending, then publishes the word. */
const openPort = (hypervisor: Hypervisor, slot: number, port: number, word: number): number => {
  clearPending(hypervisor, slot, port);
  hypervisor.events.publish(slot, port, word);
  return port;
};

/** Opens the lowest free port with `word`. -EINVAL: dying, -ENOSPC: no port left. */
export const allocatePort = (hypervisor: Hypervisor, slot: number, word: number): number => {
  lockEvents(hypervisor, slot, slot);
  const port = findPort(hypervisor, slot);
  const result = port < 0 ? port : openPort(hypervisor, slot, port, word);
  unlockEvents(hypervisor, slot, slot);
  return result;
};

/**
 * Opens a port of the domain in `slot` that the domain called `remoteDomid` may bind. That domain need not exist yet.
 * -ENOSPC: no port left.
 */
export const allocateUnbound = (hypervisor: Hypervisor, slot: number, remoteDomid: number): number =>
  allocatePort(hypervisor, slot, portWord(EVTCHNSTAT_unbound, 0, remoteDomid));

/**
 * Connects a new port of the domain in `slot` with `remotePort` of `remoteDomid`; the new port is pending at once.
 * -ESRCH: no such domain, -EINVAL: not a port that waits for this domain, -ENOSPC: no port left.
 */
export const bindInterdomain = (
  hypervisor: Hypervisor,
  slot: number,
  remoteDomid: number,
  remotePort: number,
): number => {
  const remoteSlot = hypervisor.domains.slotOf(remoteDomid);
  if (remoteSlot < 0) return -ESRCH;
  lockEvents(hypervisor, slot, remoteSlot);
  const port = connect(hypervisor, slot, { remoteDomid, remoteSlot, remotePort });
  unlockEvents(hypervisor, slot, remoteSlot);
  if (port > 0) setPending(hypervisor, slot, port);
  return port;
};

const connect = (
  hypervisor: Hypervisor,
  slot: number,
  remote: { readonly remoteDomid: number; readonly remoteSlot: number; readonly remotePort: number },
): number => {
  const { domains, events } = hypervisor;
  const { remoteSlot, remotePort } = remote;
  // The slot was looked up without a lock: it may have changed hands since.
  if (domains.slotOf(remote.remoteDomid) !== remoteSlot) return -ESRCH;
  if (remotePort < 1 || remotePort >= portEnd(hypervisor, remoteSlot)) return -EINVAL;
  const word = events.load(remoteSlot, remotePort);
  if (portKind(word) !== EVTCHNSTAT_unbound || portPayload(word) !== domains.domid[slot]!) return -EINVAL;
  if (domains.stateOf(remoteSlot) === "dying") return -EINVAL;
  const port = findPort(hypervisor, slot);
  if (port < 0) return port;
  openPort(hypervisor, slot, port, interdomainWord(0, remoteSlot, remotePort));
  const isXen = portIsXen(word);
  events.publish(remoteSlot, remotePort, interdomainWord(portVcpu(word), slot, port) | portWord(0, 0, 0, isXen));
  return port;
};

/**
 * Opens a port that `virq` of `vcpu` arrives on. -EINVAL: no such virq, or a virq of the whole domain on a vCPU other
 * than 0; -ENOENT: no such vCPU; -EBUSY: a global virq of another domain; -EEXIST: bound already; -ENOSPC.
 */
export const bindVirq = (hypervisor: Hypervisor, slot: number, virq: number, vcpu: number): number => {
  const { domains, events } = hypervisor;
  if (virq >= NR_VIRQS) return -EINVAL;
  const kind = virqKind(virq);
  if (kind !== VIRQ_KIND_VCPU && vcpu !== 0) return -EINVAL;
  if (vcpu >= domains.vcpuCount[slot]!) return -ENOENT;
  if (kind === VIRQ_KIND_GLOBAL && Atomics.load(events.virqOwner, virq) !== slot) return -EBUSY;
  lockEvents(hypervisor, slot, slot);
  const row = events.virqRow(slot, vcpu, virq);
  let port = events.virqPort[row]! === 0 ? findPort(hypervisor, slot) : -EEXIST;
  if (port > 0) {
    port = openPort(hypervisor, slot, port, portWord(EVTCHNSTAT_virq, vcpu, virq));
    Atomics.store(events.virqPort, row, port);
  }
  unlockEvents(hypervisor, slot, slot);
  return port;
};

/** Opens a port by which the domain's vCPUs interrupt `vcpu`. -ENOENT: no such vCPU, -ENOSPC. */
export const bindIpi = (hypervisor: Hypervisor, slot: number, vcpu: number): number =>
  vcpu >= hypervisor.domains.vcpuCount[slot]!
    ? -ENOENT
    : allocatePort(hypervisor, slot, portWord(EVTCHNSTAT_ipi, vcpu, 0));

/**
 * Opens a port that a physical interrupt arrives on. -EINVAL: not a pirq, or one that is not mapped; -EEXIST: bound
 * already; -ENOSPC.
 */
export const bindPirq = (hypervisor: Hypervisor, slot: number, pirq: number, willShare: boolean): number => {
  const { pirqs } = hypervisor;
  if (pirq >= PIRQ_COUNT) return -EINVAL;
  const row = pirqs.row(slot, pirq);
  lockEvents(hypervisor, slot, slot);
  let port = -EINVAL;
  if (pirqs.port[row]! !== 0) port = -EEXIST;
  else if (pirqs.irq[row]! !== 0) port = findPort(hypervisor, slot);
  if (port > 0) {
    port = openPort(hypervisor, slot, port, portWord(EVTCHNSTAT_pirq, 0, pirq));
    if (willShare) Atomics.or(pirqs.state, row, PIRQ_SHARED);
    Atomics.store(pirqs.port, row, port);
  }
  unlockEvents(hypervisor, slot, slot);
  return port;
};

/**
 * Closes a port on behalf of the guest. The other end of a channel becomes unbound again and waits for this domain; it
 * gets no event. -EINVAL: not a port, closed, or consumed by the hypervisor.
 */
export const closePort = (hypervisor: Hypervisor, slot: number, port: number): number =>
  port < 1 || port >= hypervisor.events.portsPerDomain || portIsXen(hypervisor.events.load(slot, port))
    ? -EINVAL
    : closeAnyPort(hypervisor, slot, port);

/** As `closePort`, of the hypervisor's own ports too. -EAGAIN: other vCPUs changed it all the time. */
export const closeAnyPort = (hypervisor: Hypervisor, slot: number, port: number): number => {
  for (let tries = 0; tries < CLOSE_TRIES_MAX; tries += 1) {
    const word = hypervisor.events.load(slot, port);
    const remote = portKind(word) === EVTCHNSTAT_interdomain ? portRemoteSlot(word) : slot;
    lockEvents(hypervisor, slot, remote);
    const isSame = hypervisor.events.load(slot, port) === word;
    const isOpen = portKind(word) !== EVTCHNSTAT_closed;
    if (isSame && isOpen) disconnect(hypervisor, slot, port, word);
    unlockEvents(hypervisor, slot, remote);
    if (isSame) return isOpen ? 0 : -EINVAL;
  }
  return -EAGAIN;
};

/** vCPU that a virq port is bound for, whichever it notifies. */
export const virqHome = (word: number): number => (virqKind(portPayload(word)) === VIRQ_KIND_VCPU ? portVcpu(word) : 0);

/** Removes what names the port, then closes it. Under the event locks of both ends. */
const disconnect = (hypervisor: Hypervisor, slot: number, port: number, word: number): void => {
  const { domains, events, pirqs } = hypervisor;
  const payload = portPayload(word);
  switch (portKind(word)) {
    case EVTCHNSTAT_interdomain: {
      const remoteSlot = portRemoteSlot(word);
      const remotePort = portRemotePort(word);
      const remoteWord = events.load(remoteSlot, remotePort);
      const unbound = portWord(EVTCHNSTAT_unbound, portVcpu(remoteWord), domains.domid[slot]!, portIsXen(remoteWord));
      events.publish(remoteSlot, remotePort, unbound);
      break;
    }
    case EVTCHNSTAT_virq:
      // A virq of the whole domain may notify another vCPU, but is known as vCPU 0's.
      Atomics.store(events.virqPort, events.virqRow(slot, virqHome(word), payload), 0);
      break;
    case EVTCHNSTAT_pirq:
      Atomics.store(pirqs.port, pirqs.row(slot, payload), 0);
      Atomics.and(pirqs.state, pirqs.row(slot, payload), ~(PIRQ_SHARED | PIRQ_IN_SERVICE));
      markEoi(hypervisor, slot, payload, false);
      break;
    default:
      break;
  }
  events.publish(slot, port, 0);
  clearPending(hypervisor, slot, port);
};

/**
 * Makes `port` notify `vcpu` from now on. -ENOENT: no such vCPU, -EINVAL: not an open port, or one whose vCPU is fixed
 * (an ipi, a virq of one vCPU).
 */
export const bindVcpu = (hypervisor: Hypervisor, slot: number, port: number, vcpu: number): number => {
  const { domains, events } = hypervisor;
  if (vcpu >= domains.vcpuCount[slot]!) return -ENOENT;
  if (port < 1 || port >= events.portsPerDomain) return -EINVAL;
  lockEvents(hypervisor, slot, slot);
  const word = events.load(slot, port);
  const isMovable = mayMove(word);
  if (isMovable) events.publish(slot, port, withVcpu(word, vcpu));
  unlockEvents(hypervisor, slot, slot);
  return isMovable ? 0 : -EINVAL;
};

const mayMove = (word: number): boolean => {
  switch (portKind(word)) {
    case EVTCHNSTAT_unbound:
    case EVTCHNSTAT_interdomain:
    case EVTCHNSTAT_pirq:
      return !portIsXen(word);
    case EVTCHNSTAT_virq:
      return virqKind(portPayload(word)) !== VIRQ_KIND_VCPU;
    default:
      return false;
  }
};
