/**
 * What can be done to a domain that exists: shut it down, crash it, set its few properties. Used by domctl, by the host
 * library and by the hypervisor itself. Letting it run is in domain-run.ts; creation and end have files of their own.
 *
 * Slots are the caller's business: it has looked the domain up (`DomainTable.slotOf`) and may hold its generation.
 * Everything here returns 0 or a negative errno and never throws.
 */
import { EINVAL, EPERM, ESRCH, SHUTDOWN_crash, VIRQ_DOM_EXC } from "@xenolith/abi";
import assert from "node:assert/strict";
import { dropDomain, isAlive } from "./accounting.ts";
import { ATTENTION_DOMAIN } from "./attention.ts";
import { CRASH_REASON_BYTES, DOM0_SLOT, DOMAIN_FLAG_CRASHED } from "./domain-table.ts";
import { GATE_IN, GATE_PAUSE, GATE_STOP, requestGate } from "./gate.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { moveDomain } from "./lifecycle.ts";
import { wakeVcpu } from "./vcpu-wake.ts";
import { raiseGlobalVirq } from "./virq.ts";

/** Slot of the domain that has this number and generation, or -ESRCH when that one is gone. */
export const findDomain = (hypervisor: Hypervisor, domid: number, generation: number): number => {
  const slot = hypervisor.domains.slotOf(domid);
  return slot >= 0 && hypervisor.domains.generation[slot] === generation ? slot : -ESRCH;
};

/**
 * Shuts the domain down with `code` (SHUTDOWN_*, 8 bits count); the first code recorded stays. Its vCPUs stop at the
 * end of the hypercall they are in. Takes no lock: timers and vCPUs call it. Always 0.
 */
export const shutdownDomain = (hypervisor: Hypervisor, slot: number, code: number): number => {
  const { domains } = hypervisor;
  recordShutdownCode(hypervisor, slot, code);
  if (slot === DOM0_SLOT) hypervisor.attention.raise(ATTENTION_DOMAIN);
  else if (moveDomain(domains, slot, "shutdown")) {
    requestVcpus(hypervisor, slot, GATE_PAUSE);
    announce(hypervisor);
  }
  return 0;
};

/** Notes the code that a later shutdown or crash will have; the first stays. */
export const recordShutdownCode = (hypervisor: Hypervisor, slot: number, code: number): void => {
  Atomics.compareExchange(hypervisor.domains.shutdownCode, slot, 0, (code & 0xff) + 1);
};

/**
 * Ends the domain because of what it did: it never runs guest code again. May be called with any lock held, by a vCPU
 * inside its gate or by the control domain. Dom0 is only marked: ending it would end the hypervisor. The first reason
 * stays.
 */
export const crashDomain = (hypervisor: Hypervisor, slot: number, reason: string): void => {
  const { domains, platform } = hypervisor;
  if (!isAlive(hypervisor, slot)) return;
  const before = Atomics.or(domains.flags, slot, DOMAIN_FLAG_CRASHED);
  if ((before & DOMAIN_FLAG_CRASHED) !== 0) return;
  storeCrashReason(hypervisor, slot, reason);
  domains.trace.note(slot, "crashed", { nowNs: platform.now(), first: 0, second: 0 });
  recordShutdownCode(hypervisor, slot, SHUTDOWN_crash);
  if (slot !== DOM0_SLOT) {
    moveDomain(domains, slot, "shutdown");
    requestVcpus(hypervisor, slot, GATE_STOP);
  }
  announce(hypervisor);
};

/** Why the domain was crashed, or "". */
export const crashReason = (hypervisor: Hypervisor, slot: number): string => {
  const bytes = hypervisor.domains.crashReason.slice(slot * CRASH_REASON_BYTES, (slot + 1) * CRASH_REASON_BYTES);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? CRASH_REASON_BYTES : end));
};

/** Stores the UUID of a domain. */
export const setHandle = (hypervisor: Hypervisor, slot: number, handle: Uint8Array): number => {
  assert(handle.length === 16);
  hypervisor.domains.handle.set(handle, slot * 16);
  return 0;
};

/**
 * Makes the domain in `slot` the device model of `target`, once. It keeps the target's row in use until it is destroyed
 * itself. -EINVAL: it has a target or is its own, -ESRCH: either is dying, -EPERM: the target is dom0.
 */
export const setTarget = (hypervisor: Hypervisor, slot: number, target: number): number => {
  const { domains, locks } = hypervisor;
  if (slot === target) return -EINVAL;
  if (target === DOM0_SLOT) return -EPERM;
  const lock = locks.id("domain", slot);
  locks.acquire(lock);
  Atomics.add(domains.references, target, 1);
  const refused =
    !isAlive(hypervisor, slot) || !isAlive(hypervisor, target) ? -ESRCH : domains.target[slot] !== 0 ? -EINVAL : 0;
  if (refused === 0) Atomics.store(domains.target, slot, target + 1);
  else dropDomain(hypervisor, target);
  locks.release(lock);
  return refused;
};

/** Whether no vCPU of the domain is inside the hypervisor. With a pause or stop requested it stays so. */
export const domainQuiet = (hypervisor: Hypervisor, slot: number): boolean => {
  const { domains, vcpus } = hypervisor;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    if ((Atomics.load(vcpus.gate, vcpus.index(slot, vcpu)) & GATE_IN) !== 0) return false;
  }
  return true;
};

/** Sets a request at the gate of every vCPU of the domain and wakes those that sleep, so that they meet it. */
export const requestVcpus = (hypervisor: Hypervisor, slot: number, request: number): void => {
  const { domains, vcpus, platform } = hypervisor;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    requestGate(vcpus.gate, index, request);
    platform.wake(vcpus.gate, index);
    wakeVcpu(hypervisor, index);
  }
};

/** Tells the control domain, and who else has VIRQ_DOM_EXC, that some domain changed. Takes no lock. */
export const announce = (hypervisor: Hypervisor): void => {
  raiseGlobalVirq(hypervisor, VIRQ_DOM_EXC);
  hypervisor.attention.raise(ATTENTION_DOMAIN);
};

const storeCrashReason = (hypervisor: Hypervisor, slot: number, reason: string): void => {
  const bytes = new Uint8Array(CRASH_REASON_BYTES);
  new TextEncoder().encodeInto(reason, bytes.subarray(0, CRASH_REASON_BYTES - 1));
  hypervisor.domains.crashReason.set(bytes, slot * CRASH_REASON_BYTES);
};
