/**
 * Delivery of events through the 2-level bitmaps, exactly as a guest that was written for Xen expects it. No lock: the
 * caller is inside its gate (or is the control domain), which keeps shared_info and vcpu_info frames from being freed.
 *
 * Memory order: a sender sets the pending bit and the upcall flag first and looks at who sleeps afterwards; a sleeper
 * announces itself first and looks at the bits afterwards. Both use atomics, so one of them sees the other and no
 * wake-up is lost.
 */
import { EVTCHNSTAT_interdomain, EVTCHNSTAT_ipi, EVTCHNSTAT_unbound, EINVAL, shared_info } from "@xenolith/abi";
import { WORDS_OTHER_SET, WORDS_WERE_SET } from "./atomic-words.ts";
import { ATTENTION_EVENT } from "./attention.ts";
import type { DirectMap } from "./direct-map.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import { portIsXen, portKind, portRemotePort, portRemoteSlot, portVcpu } from "./event-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { wakeVcpu } from "./vcpu-wake.ts";

const FRAME_SHIFT = 12;
const PENDING_BYTE = shared_info.evtchn_pending.offset;
const MASK_BYTE = shared_info.evtchn_mask.offset;
const PENDING_WORD = PENDING_BYTE / 4;
const MASK_WORD = MASK_BYTE / 4;
const UPCALL_PENDING_BYTE = 0xff;
const UPCALL_MASK_BYTE = 0xff00;
/** `pollPort` of a vCPU that polls on more or less than one port: every event of its domain wakes it. */
export const POLL_ANY_PORT = -1;

/** Machine address of the shared_info of the domain in `slot`; negative: it has none (yet, or any more). */
const sharedInfoOf = (hypervisor: Hypervisor, slot: number): number =>
  (hypervisor.domains.sharedInfo[slot]! - 1) * FRAME_BYTES;
/** The bank that holds `machine`, as words. */
const wordsAt = (directMap: DirectMap, machine: number): Int32Array => directMap.i32[directMap.bankOf(machine)]!;
/** Index of the word at `machine` in its bank. */
const wordAt = (directMap: DirectMap, machine: number): number => (directMap.offsetOf(machine) * 0.25) | 0;

/** Tells `vcpu` that word `group` of the pending bitmap has a deliverable event. */
const raiseUpcall = (hypervisor: Hypervisor, slot: number, vcpu: number, group: number): void => {
  const { directMap, vcpus } = hypervisor;
  const index = vcpus.index(slot, vcpu);
  const address = vcpus.vcpuInfo[index]!;
  if (address === 0) return;
  const words = wordsAt(directMap, address);
  const at = wordAt(directMap, address);
  const bit = 1 << group;
  if ((Atomics.or(words, at + 1, bit) & bit) !== 0) return;
  if ((Atomics.or(words, at, 1) & UPCALL_PENDING_BYTE) === 0) wakeVcpu(hypervisor, index);
};

/** Wakes the vCPUs of `slot` that poll on `port` or on any port. */
const wakePollers = (hypervisor: Hypervisor, slot: number, port: number): void => {
  const { events, vcpus } = hypervisor;
  for (let mask = Atomics.load(events.pollMask, slot); mask !== 0; mask &= mask - 1) {
    const vcpu = 31 - Math.clz32(mask & -mask);
    const index = vcpus.index(slot, vcpu);
    const wanted = Atomics.load(vcpus.pollPort, index);
    if (wanted !== port && wanted !== POLL_ANY_PORT) continue;
    const bit = 1 << vcpu;
    if ((Atomics.and(events.pollMask, slot, ~bit) & bit) !== 0) wakeVcpu(hypervisor, index);
  }
};

/**
 * Sets `port` of the domain in `slot` pending and notifies its vCPU: steps 1 to 3 of 2-level delivery. Events merge;
 * a masked port only wakes those who poll on it.
 */
export const setPending = (hypervisor: Hypervisor, slot: number, port: number): void => {
  deliver(hypervisor, slot, port, hypervisor.events.load(slot, port));
};

const deliver = (hypervisor: Hypervisor, slot: number, port: number, word: number): void => {
  const { directMap, domains, events, vcpus } = hypervisor;
  const mfn = domains.sharedInfo[slot]! - 1;
  if (mfn < 0) return;
  const group = port >>> 5;
  // Whole numbers of 32 bits: the place within a bank, which is an unsigned one above 2 GiB. A machine address has more.
  const at = ((((mfn & directMap.frameMask) << FRAME_SHIFT) | PENDING_BYTE) + (group << 2)) >>> 0;
  const words = directMap.words[mfn >>> directMap.frameShift]!;
  const found = words.setAndLook(at, 1 << (port & 31), at + (MASK_BYTE - PENDING_BYTE));
  if ((found & WORDS_WERE_SET) !== 0) return;
  domains.events[vcpus.index(slot, portVcpu(word))]! += 1;
  // Who unmasks clears the mask first and looks at the pending bit afterwards: one of the two sees the other.
  if ((found & WORDS_OTHER_SET) === 0) raiseUpcall(hypervisor, slot, portVcpu(word), group);
  if (hypervisor.words.load(events.pollMaskStart + slot * 4) !== 0) wakePollers(hypervisor, slot, port);
};

/**
 * Sends an event through `port` of the domain in `slot`. Unbound: dropped. -EINVAL: not a port, closed, a virq or pirq,
 * or a channel that the hypervisor consumes.
 *
 * A send that races with a close of the same channel may set the pending bit of the peer's port after the close; who
 * opens that port next sees one spurious event, as binding an interdomain channel gives it anyway.
 */
export const sendPort = (hypervisor: Hypervisor, slot: number, port: number): number => {
  const { events } = hypervisor;
  if (port >= events.portsPerDomain) return -EINVAL;
  const word = events.peek(slot, port);
  if (portIsXen(word)) return -EINVAL;
  switch (portKind(word)) {
    case EVTCHNSTAT_interdomain: {
      const remoteSlot = portRemoteSlot(word);
      const remotePort = portRemotePort(word);
      const remoteWord = events.peek(remoteSlot, remotePort);
      if (portKind(remoteWord) === EVTCHNSTAT_interdomain) deliver(hypervisor, remoteSlot, remotePort, remoteWord);
      return 0;
    }
    case EVTCHNSTAT_ipi:
      deliver(hypervisor, slot, port, word);
      return 0;
    case EVTCHNSTAT_unbound:
      return 0;
    default:
      return -EINVAL;
  }
};

/** Unmasks `port`; delivers it when it was masked and is pending. -EINVAL: not a port of the domain. */
export const unmaskPort = (hypervisor: Hypervisor, slot: number, port: number): number => {
  const { directMap, events } = hypervisor;
  if (port < 1 || port >= portEnd(hypervisor, slot)) return -EINVAL;
  const frame = sharedInfoOf(hypervisor, slot);
  if (frame < 0) return 0;
  const words = wordsAt(directMap, frame);
  const base = wordAt(directMap, frame);
  const group = port >>> 5;
  const bit = 1 << (port & 31);
  if ((Atomics.and(words, base + MASK_WORD + group, ~bit) & bit) === 0) return 0;
  if ((Atomics.load(words, base + PENDING_WORD + group) & bit) === 0) return 0;
  raiseUpcall(hypervisor, slot, portVcpu(events.load(slot, port)), group);
  return 0;
};

/** One past the highest port that the domain in `slot` may have: its own limit within what the bitmap holds. */
export const portEnd = (hypervisor: Hypervisor, slot: number): number =>
  Math.min(hypervisor.domains.portEnd[slot]!, hypervisor.events.portsPerDomain);

/** Masks `port`, as a guest does by itself. For domains whose code is the host's. */
export const maskPort = (hypervisor: Hypervisor, slot: number, port: number): void => {
  const { directMap } = hypervisor;
  const frame = sharedInfoOf(hypervisor, slot);
  if (frame < 0) return;
  const at = wordAt(directMap, frame) + MASK_WORD + (port >>> 5);
  Atomics.or(wordsAt(directMap, frame), at, 1 << (port & 31));
};

/** Whether `port` is pending, masked or not. */
export const isPending = (hypervisor: Hypervisor, slot: number, port: number): boolean => {
  const { directMap } = hypervisor;
  const frame = sharedInfoOf(hypervisor, slot);
  if (frame < 0) return false;
  const at = wordAt(directMap, frame) + PENDING_WORD + (port >>> 5);
  return (Atomics.load(wordsAt(directMap, frame), at) & (1 << (port & 31))) !== 0;
};

/** Clears the pending bit of `port`: it is closed, or opened anew. The mask bit is the guest's. */
export const clearPending = (hypervisor: Hypervisor, slot: number, port: number): void => {
  const { directMap } = hypervisor;
  const frame = sharedInfoOf(hypervisor, slot);
  if (frame < 0) return;
  const at = wordAt(directMap, frame) + PENDING_WORD + (port >>> 5);
  Atomics.and(wordsAt(directMap, frame), at, ~(1 << (port & 31)));
};

/** Whether vCPU row `index` has an upcall pending, masked or not. */
export const isUpcallPending = (hypervisor: Hypervisor, index: number): boolean =>
  (upcallWord(hypervisor, index) & UPCALL_PENDING_BYTE) !== 0;

/** Whether vCPU row `index` has an upcall pending and lets it through. */
export const isUpcallDeliverable = (hypervisor: Hypervisor, index: number): boolean => {
  const word = upcallWord(hypervisor, index);
  return (word & UPCALL_PENDING_BYTE) !== 0 && (word & UPCALL_MASK_BYTE) === 0;
};

/** Lets upcalls of vCPU row `index` through, as SCHEDOP_block does. */
export const unmaskUpcall = (hypervisor: Hypervisor, index: number): void => {
  const address = hypervisor.vcpus.vcpuInfo[index]!;
  if (address === 0) return;
  Atomics.and(wordsAt(hypervisor.directMap, address), wordAt(hypervisor.directMap, address), ~UPCALL_MASK_BYTE);
};

/** First word of a vcpu_info: evtchn_upcall_pending and evtchn_upcall_mask are its low bytes. */
const upcallWord = (hypervisor: Hypervisor, index: number): number => {
  const address = hypervisor.vcpus.vcpuInfo[index]!;
  if (address === 0) return 0;
  return Atomics.load(wordsAt(hypervisor.directMap, address), wordAt(hypervisor.directMap, address));
};

/** Marks every selector bit and the upcall of vCPU row `index`: its vcpu_info moved, so that it scans everything. */
export const markAllPending = (hypervisor: Hypervisor, index: number): void => {
  const address = hypervisor.vcpus.vcpuInfo[index]!;
  const words = wordsAt(hypervisor.directMap, address);
  const at = wordAt(hypervisor.directMap, address);
  Atomics.store(words, at + 1, -1);
  Atomics.or(words, at, 1);
  wakeVcpu(hypervisor, index);
};

/**
 * The guest's side of delivery for domains whose code is the host's (dom0): takes the pending, unmasked ports that
 * `vcpu` was told about into `ports` and returns how many. When `ports` is full the rest stays pending and marked.
 */
export const takePending = (hypervisor: Hypervisor, slot: number, vcpu: number, ports: Uint16Array): number => {
  const { directMap, vcpus } = hypervisor;
  const frame = sharedInfoOf(hypervisor, slot);
  const address = vcpus.vcpuInfo[vcpus.index(slot, vcpu)]!;
  if (frame < 0 || address === 0) return 0;
  const info = wordsAt(directMap, address);
  const at = wordAt(directMap, address);
  Atomics.and(info, at, ~UPCALL_PENDING_BYTE);
  let count = 0;
  for (let groups = Atomics.exchange(info, at + 1, 0); groups !== 0; groups &= groups - 1) {
    const group = 31 - Math.clz32(groups & -groups);
    count = takeGroup(hypervisor, frame, group, ports, count);
    if (count < ports.length) continue;
    Atomics.or(info, at + 1, groups);
    Atomics.or(info, at, 1);
    if (slot === DOM0_SLOT) hypervisor.attention.raise(ATTENTION_EVENT);
    break;
  }
  return count;
};

/** Takes the deliverable ports of one word of the bitmap. */
const takeGroup = (hypervisor: Hypervisor, frame: number, group: number, ports: Uint16Array, from: number): number => {
  const words = wordsAt(hypervisor.directMap, frame);
  const base = wordAt(hypervisor.directMap, frame);
  let count = from;
  const mask = Atomics.load(words, base + MASK_WORD + group);
  let bits = Atomics.load(words, base + PENDING_WORD + group) & ~mask;
  for (; bits !== 0 && count < ports.length; bits &= bits - 1) {
    const bit = bits & -bits;
    Atomics.and(words, base + PENDING_WORD + group, ~bit);
    ports[count] = group * 32 + 31 - Math.clz32(bit);
    count += 1;
  }
  return count;
};
