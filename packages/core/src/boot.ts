/**
 * The first moments of a hypervisor: free frames, and the control domain. Done once, by the control domain's thread,
 * over zeroed storage; threads that attach later find everything there.
 */
import assert from "node:assert/strict";
import { allocateFrames, layFreeFrames, withholdFirstFrame } from "./buddy.ts";
import type { Cpu } from "./cpu.ts";
import { fillRow, publishDomain } from "./domain-create.ts";
import { dmaSlot, DOM0_SLOT } from "./domain-table.ts";
import { createCpu } from "./hypercall.ts";
import { createGrantTable } from "./grant-grow.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { moveDomain } from "./lifecycle.ts";
import { secretBase } from "./secret-frames.ts";
import { VCPU_RUNNING, VCPU_STARTED } from "./vcpu-table.ts";

/**
 * Lays out the free frames and makes dom0: privileged, running, with one vCPU that is the calling thread, and a ceiling
 * of all machine memory. Returns dom0's calling side.
 */
export const initialise = (hypervisor: Hypervisor): Cpu => {
  const { domains, geometry, vcpus } = hypervisor;
  assert(domains.stateOf(DOM0_SLOT) === "free", "a hypervisor is initialised once");
  assert(geometry.framesPerBank * geometry.bankCount <= secretBase(geometry), "frames are not named as secrets are");
  layFreeFrames(hypervisor);
  withholdFirstFrame(hypervisor);
  const moved = moveDomain(domains, DOM0_SLOT, "reserve");
  assert(moved);
  const frame = allocateFrames(hypervisor, 0);
  assert(frame >= 0, "a machine needs a frame for dom0");
  domains.generation[DOM0_SLOT] = Atomics.add(domains.serial, 0, 1) + 1;
  fillRow(hypervisor, DOM0_SLOT, { vcpus: 1, privileged: true, vmaBudget: geometry.vmaLimit }, frame);
  const granted = createGrantTable(hypervisor, DOM0_SLOT, {});
  assert(granted === 0, "a machine needs a frame for dom0's grants");
  domains.vmaBudget[dmaSlot(domains)] = geometry.vmaLimit;
  domains.maxPages[DOM0_SLOT] = geometry.machineFrames;
  publishDomain(hypervisor, DOM0_SLOT);
  const index = vcpus.index(DOM0_SLOT, 0);
  vcpus.flags[index]! |= VCPU_STARTED;
  Atomics.store(vcpus.state, index, VCPU_RUNNING);
  for (const event of ["created", "unpause"] as const) {
    const isLegal = moveDomain(domains, DOM0_SLOT, event);
    assert(isLegal);
  }
  return createCpu(hypervisor, DOM0_SLOT, 0);
};
