/**
 * Letting a domain run and holding it: pauses, which nest, and going on after a shutdown; and the threads of its vCPUs,
 * which the host starts and ends. Returns 0 or a negative errno; never throws.
 */
import { EINVAL, EOVERFLOW, ESRCH } from "@xenolith/abi";
import { isAlive } from "./accounting.ts";
import { requestVcpus } from "./domain-ops.ts";
import { DOM0_SLOT, DOMAIN_FLAG_CRASHED } from "./domain-table.ts";
import { GATE_INSIDE, GATE_PAUSE, withdrawGate } from "./gate.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { moveDomain } from "./lifecycle.ts";
import { endVcpu, isUp, requestVcpuStart, takeStartRequest } from "./vcpu-life.ts";
import { VCPU_STARTED } from "./vcpu-table.ts";

/** Most pauses of one domain that may be nested. */
export const PAUSE_COUNT_MAX = 255;

/**
 * Stops the domain's vCPUs at their next entry into the hypervisor; `domainQuiet` tells when all are outside it. Pauses
 * nest. -ESRCH: it is dying or gone, -EOVERFLOW: 255 pauses already, -EINVAL: dom0.
 */
export const pauseDomain = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, locks } = hypervisor;
  if (slot === DOM0_SLOT) return -EINVAL;
  const lock = locks.id("domain", slot);
  locks.acquire(lock);
  const result = !isAlive(hypervisor, slot) ? -ESRCH : domains.pauses[slot]! >= PAUSE_COUNT_MAX ? -EOVERFLOW : 0;
  if (result === 0) {
    domains.pauses[slot]! += 1;
    moveDomain(domains, slot, "pause");
    requestVcpus(hypervisor, slot, GATE_PAUSE);
  }
  locks.release(lock);
  return result;
};

/** Takes back one pause; the last lets the domain run. -ESRCH: it is dying or gone, -EINVAL: it is not paused. */
export const unpauseDomain = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("domain", slot);
  locks.acquire(lock);
  const result = !isAlive(hypervisor, slot) ? -ESRCH : domains.pauses[slot] === 0 ? -EINVAL : 0;
  if (result === 0) {
    domains.pauses[slot]! -= 1;
    if (domains.pauses[slot] === 0 && moveDomain(domains, slot, "unpause")) releaseVcpus(hypervisor, slot);
  }
  locks.release(lock);
  return result;
};

/**
 * Lets a domain that shut down go on, as after a suspend; nothing happens to one that did not. -ESRCH: it is dying or
 * gone, -EINVAL: it crashed.
 */
export const resumeDomain = (hypervisor: Hypervisor, slot: number): number => {
  const { domains, locks } = hypervisor;
  const lock = locks.id("domain", slot);
  locks.acquire(lock);
  const crashed = (domains.flags[slot]! & DOMAIN_FLAG_CRASHED) !== 0;
  const result = !isAlive(hypervisor, slot) ? -ESRCH : crashed ? -EINVAL : 0;
  if (result === 0 && domains.stateOf(slot) === "shutdown") {
    Atomics.store(domains.shutdownCode, slot, 0);
    if (domains.pauses[slot] !== 0) moveDomain(domains, slot, "resumePaused");
    else if (moveDomain(domains, slot, "resume")) releaseVcpus(hypervisor, slot);
  }
  locks.release(lock);
  return result;
};

/** The host starts a thread for vCPU row `index`; `tag` is its lock tag. Nobody needs to ask the host for it any more. */
export const vcpuThreadStarted = (hypervisor: Hypervisor, index: number, tag: number): void => {
  const { vcpus } = hypervisor;
  Atomics.or(vcpus.flags, index, VCPU_STARTED);
  takeStartRequest(hypervisor, index);
  Atomics.store(vcpus.tag, index, tag);
};

/**
 * A vCPU's thread is gone, by whatever way. Frees the locks it held and marks it outside the hypervisor; returns how
 * many locks it held: with any, the domain's state may be half changed.
 */
export const vcpuThreadGone = (hypervisor: Hypervisor, index: number, tag: number): number => {
  const { vcpus, locks, platform } = hypervisor;
  const recovered = locks.recover(tag);
  Atomics.and(vcpus.gate, index, ~GATE_INSIDE);
  platform.wake(vcpus.gate, index);
  endVcpu(hypervisor, index);
  takeStartRequest(hypervisor, index);
  Atomics.store(vcpus.tag, index, 0);
  return recovered;
};

/**
 * Lets the vCPUs run; asks the host for threads where there are none. A shutdown that comes between is not lost: it changes the state
 * before it asks the vCPUs.
 */
const releaseVcpus = (hypervisor: Hypervisor, slot: number): void => {
  const { domains, vcpus, platform } = hypervisor;
  for (let vcpu = 0; vcpu < domains.vcpuCount[slot]!; vcpu += 1) {
    const index = vcpus.index(slot, vcpu);
    if (isUp(hypervisor, index)) requestVcpuStart(hypervisor, index);
    withdrawGate(vcpus.gate, index, GATE_PAUSE, platform);
  }
  if (domains.stateOf(slot) !== "running") requestVcpus(hypervisor, slot, GATE_PAUSE);
};
