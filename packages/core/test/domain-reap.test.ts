import { EINVAL, ENOSPC, ESRCH } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { attachSpace } from "../src/address-space.ts";
import { ATTENTION_REQUEST } from "../src/attention.ts";
import { freeFrameCount } from "../src/buddy.ts";
import { createDomain } from "../src/domain-create.ts";
import { crashDomain } from "../src/domain-ops.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { beginDestroy, continueDestroy, reapDomains, reapStage } from "../src/domain-reap.ts";
import { vcpuThreadGone, vcpuThreadStarted } from "../src/domain-run.ts";
import { allocateUnbound, bindInterdomain } from "../src/event-ports.ts";
import { getFrame, putFrame } from "../src/frame-reference.ts";
import { enterGate, leaveGate } from "../src/gate.ts";
import { depopulateRun, populateRun } from "../src/memory-populate.ts";
import { Machine, RAM_FRAMES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const destroyWholly = (machine: Machine, guest: Guest): void => {
  assert.equal(beginDestroy(machine.hypervisor, guest.slot), 0);
  assert.equal(continueDestroy(machine.hypervisor, guest.slot), true);
};

/** Whatever a domain can hold: ports to others, memory taken away and given back. */
const busyGuest = (machine: Machine): Guest => {
  const guest = machine.guest({ vcpus: 2 });
  const port = allocateUnbound(machine.hypervisor, 0, guest.domid);
  bindInterdomain(machine.hypervisor, guest.slot, 0, port);
  depopulateRun(machine.hypervisor, guest.slot, 2, 3);
  populateRun(machine.hypervisor, guest.slot, 2, 1, { count: 0, blockedGfn: -1, error: 0 });
  return guest;
};

describe("destruction", () => {
  it("M11: creation and destruction leave the machine as it was, on every path", () => {
    const machine = new Machine();
    const before = freeFrameCount(machine.hypervisor);
    for (let round = 0; round < 300; round += 1) {
      const guest = round % 3 === 0 ? busyGuest(machine) : machine.guest({}, { paused: round % 2 === 0 });
      if (round % 5 === 0) crashDomain(machine.hypervisor, guest.slot, "test");
      destroyWholly(machine, guest);
      assert.equal(machine.hypervisor.domains.stateOf(guest.slot), "free");
    }
    machine.check();
    // The ports of dom0 became unbound; they hold no memory.
    assert.equal(freeFrameCount(machine.hypervisor), before);
  });

  it("dom0 and a domain that does not exist cannot be destroyed; doing it twice is harmless", () => {
    const machine = new Machine();
    const guest = machine.guest();
    assert.equal(beginDestroy(machine.hypervisor, 0), -EINVAL);
    assert.equal(beginDestroy(machine.hypervisor, 5), -ESRCH);
    assert.equal(beginDestroy(machine.hypervisor, guest.slot), 0);
    assert.equal(beginDestroy(machine.hypervisor, guest.slot), 0);
    assert.equal(continueDestroy(machine.hypervisor, guest.slot), true);
    assert.equal(continueDestroy(machine.hypervisor, guest.slot), true);
    machine.check();
  });

  it("E10: many ports and frames go in slices no longer than asked for, with the same result", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const guest = machine.guest();
    while (allocateUnbound(hypervisor, guest.slot, 0) !== -ENOSPC);
    assert.equal(hypervisor.events.open[guest.slot], 1023);
    beginDestroy(hypervisor, guest.slot);
    let slices = 0;
    for (let open = 1023; reapStage(hypervisor, guest.slot) !== undefined; slices += 1) {
      continueDestroy(hypervisor, guest.slot, 10);
      const left = hypervisor.events.open[guest.slot]!;
      assert(open - left <= 10);
      open = left;
      machine.check();
    }
    assert(slices >= 102, `${slices} slices`);
  });

  it("nothing of a domain is freed while a thread of it runs", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const guest = machine.guest();
    vcpuThreadStarted(hypervisor, guest.cpu.index, 7);
    beginDestroy(hypervisor, guest.slot);
    assert.equal(continueDestroy(hypervisor, guest.slot), false);
    assert.equal(reapStage(hypervisor, guest.slot), "quiesce");
    assert.equal(hypervisor.domains.totPages[guest.slot], RAM_FRAMES);
    assert.equal(vcpuThreadGone(hypervisor, guest.cpu.index, 7), 0);
    assert.equal(continueDestroy(hypervisor, guest.slot), true);
    machine.check();
  });

  it("W15: memory, slot and number of a domain stay its own while some vCPU may still look at them", () => {
    const machine = new Machine();
    const { hypervisor, parts } = machine;
    const guest = machine.guest();
    const witness = machine.guest();
    const inside = (): void => enterGate(hypervisor.vcpus.gate, witness.cpu.index, parts.platform);
    const outside = (): void => leaveGate(hypervisor.vcpus.gate, witness.cpu.index, parts.platform);
    inside();
    beginDestroy(hypervisor, guest.slot);
    for (const stage of ["quiesce", "grace", "retire"] as const) {
      assert.equal(continueDestroy(hypervisor, guest.slot), stage === "retire");
      assert.equal(reapStage(hypervisor, guest.slot), stage);
      assert.notEqual(createDomain(hypervisor, { vcpus: 1, domid: guest.domid }), guest.domid);
      if (stage === "quiesce") assert.equal(hypervisor.domains.totPages[guest.slot], RAM_FRAMES);
      if (stage === "grace") assert.notEqual(hypervisor.domains.sharedInfo[guest.slot], 0);
      outside();
      // The vCPU is seen outside once: that is enough, though it enters again before the next stage is over.
      const before = hypervisor.domains.gateSeen[witness.cpu.index]!;
      const stageBefore = hypervisor.domains.reapStage[guest.slot]!;
      if (stage === "retire") break;
      sampleOnly(machine, guest);
      assert(hypervisor.domains.gateSeen[witness.cpu.index]! > before);
      hypervisor.domains.reapStage[guest.slot] = stageBefore;
      inside();
    }
    assert.equal(continueDestroy(hypervisor, guest.slot), true);
    assert.equal(hypervisor.domains.stateOf(guest.slot), "free");
    machine.check();
  });

  it("a zombie keeps its number until the last foreign reference to its memory goes", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const guest = machine.guest();
    const held = getFrame(hypervisor, guest.slot, 1);
    destroyWholly(machine, guest);
    assert.equal(hypervisor.domains.stateOf(guest.slot), "dead");
    assert.equal(hypervisor.domains.totPages[guest.slot], 1);
    assert.equal(hypervisor.domains.slotOf(guest.domid), guest.slot);
    assert.equal(reapDomains(hypervisor), 1);
    hypervisor.attention.take();
    putFrame(hypervisor, held);
    assert.equal(hypervisor.attention.take(), ATTENTION_REQUEST, "the control domain is told that it can go on");
    assert.equal(reapDomains(hypervisor), 0);
    assert.equal(hypervisor.domains.slotOf(guest.domid), -1);
    machine.check();
  });

  it("the memory of a domain's tables goes back to the host with its slot, however late that is", () => {
    const machine = new Machine();
    const { hypervisor, parts } = machine;
    const guest = machine.guest();
    const held = getFrame(hypervisor, guest.slot, 1);
    hypervisor.grants.gfn[hypervisor.grants.row(guest.slot, 5)] = 77;
    destroyWholly(machine, guest);
    assert.equal(parts.platform.discardedBytes, 0, "a zombie keeps them");
    putFrame(hypervisor, held);
    reapDomains(hypervisor);
    const { gfnCount, grantFramesMax } = hypervisor.geometry;
    assert.equal(parts.platform.discardedBytes, 4 * (gfnCount + 7 * 512 * grantFramesMax));
    const rows = [hypervisor.p2m.rowsOf(guest.slot), ...hypervisor.grants.rowsOf(guest.slot)];
    assert.ok(rows.every((row) => row.every((word) => word === 0)));
    machine.check();
  });

  it("a domain that is retired is looked at again until every vCPU was outside", () => {
    const machine = new Machine();
    const { hypervisor, parts } = machine;
    const guest = machine.guest();
    const witness = machine.guest();
    const held = getFrame(hypervisor, guest.slot, 1);
    destroyWholly(machine, guest);
    hypervisor.attention.take();
    putFrame(hypervisor, held);
    enterGate(hypervisor.vcpus.gate, witness.cpu.index, parts.platform);
    for (let turn = 0; turn < 3; turn += 1) {
      assert.equal(hypervisor.attention.take(), ATTENTION_REQUEST);
      assert.equal(reapDomains(hypervisor), 1);
    }
    leaveGate(hypervisor.vcpus.gate, witness.cpu.index, parts.platform);
    assert.equal(hypervisor.attention.take(), ATTENTION_REQUEST);
    assert.equal(reapDomains(hypervisor), 0);
    assert.equal(hypervisor.attention.take(), 0);
    machine.check();
  });

  it("M10: a frame that dom0 takes away while the domain is dying is freed once", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const before = freeFrameCount(hypervisor);
    const guest = machine.guest();
    beginDestroy(hypervisor, guest.slot);
    for (let gfn = 0; reapStage(hypervisor, guest.slot) !== undefined; gfn += 1) {
      depopulateRun(hypervisor, guest.slot, gfn % RAM_FRAMES, 1);
      continueDestroy(hypervisor, guest.slot, 1);
      machine.check();
    }
    assert.equal(freeFrameCount(hypervisor), before);
  });

  it("H26: a domain can be destroyed from every stage of its building", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const before = freeFrameCount(hypervisor);
    const steps: readonly ((slot: number) => void)[] = [
      () => undefined,
      (slot) => void attachSpace(hypervisor, slot, 2 ** 40),
      (slot) => void setMaxPages(hypervisor, slot, 10),
      (slot) => populateRun(hypervisor, slot, 0, 5, { count: 0, blockedGfn: -1, error: 0 }),
    ];
    for (let count = 0; count <= steps.length; count += 1) {
      const slot = hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 1 }));
      for (const step of steps.slice(0, count)) step(slot);
      for (let twice = 0; twice < 2; twice += 1) {
        beginDestroy(hypervisor, slot);
        continueDestroy(hypervisor, slot);
      }
      machine.check();
      assert.equal(freeFrameCount(hypervisor), before);
    }
  });

  it("a page table that refuses delays the end of a domain and loses nothing", () => {
    const machine = new Machine();
    const { hypervisor, parts } = machine;
    const guest = machine.guest();
    beginDestroy(hypervisor, guest.slot);
    parts.mmu.failAt(1);
    assert.equal(continueDestroy(hypervisor, guest.slot), false);
    assert.equal(reapStage(hypervisor, guest.slot), "detach");
    machine.check();
    assert.equal(continueDestroy(hypervisor, guest.slot), true);
    machine.check();
  });
});

/** Lets the reaper look at the gates without letting the domain's end advance. */
const sampleOnly = (machine: Machine, guest: Guest): void => {
  const { hypervisor } = machine;
  const { domains } = hypervisor;
  const wanted = domains.graceEpoch[guest.slot]!;
  domains.graceEpoch[guest.slot] = wanted + 1000;
  continueDestroy(hypervisor, guest.slot);
  domains.graceEpoch[guest.slot] = wanted;
};
