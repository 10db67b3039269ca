import {
  EEXIST,
  EINVAL,
  ENOMEM,
  ENOSPC,
  EOVERFLOW,
  EPERM,
  ESRCH,
  SHUTDOWN_crash,
  SHUTDOWN_suspend,
} from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_DOMAIN } from "../src/attention.ts";
import { createDomain } from "../src/domain-create.ts";
import { domainInfo, listDomains } from "../src/domain-info.ts";
import { crashDomain, crashReason, domainQuiet, findDomain, setTarget, shutdownDomain } from "../src/domain-ops.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { beginDestroy, continueDestroy } from "../src/domain-reap.ts";
import { pauseDomain, PAUSE_COUNT_MAX, resumeDomain, unpauseDomain } from "../src/domain-run.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { GATE_PAUSE } from "../src/gate.ts";
import { hypercall } from "../src/hypercall.ts";
import { populateRun } from "../src/memory-populate.ts";
import { Machine } from "./machine.ts";

const XEN_VERSION = 17;

describe("creation of a domain", () => {
  it("a newborn domain is paused once, owns nothing and may own nothing", () => {
    const { hypervisor } = new Machine();
    const domid = createDomain(hypervisor, { vcpus: 2 });
    const info = domainInfo(hypervisor, hypervisor.domains.slotOf(domid));
    assert.equal(info.state, "paused");
    assert.equal(info.pauses, 1);
    assert.equal(info.totPages, 0);
    assert.equal(info.maxPages, 0);
    assert.equal(info.vcpuCount, 2);
    assert.equal(info.onlineVcpuCount, 1);
  });

  it("numbers ascend, and a number is not given out again while the counter has not come round", () => {
    const machine = new Machine();
    const first = machine.guest();
    const second = machine.guest();
    assert.deepEqual([first.domid, second.domid], [1, 2]);
    beginDestroy(machine.hypervisor, first.slot);
    continueDestroy(machine.hypervisor, first.slot);
    const third = machine.guest();
    assert.equal(third.domid, 3);
    assert.equal(third.slot, first.slot);
    assert.deepEqual(
      listDomains(machine.hypervisor).map((slot) => machine.hypervisor.domains.domid[slot]),
      [0, 2, 3],
    );
    machine.check();
  });

  it("numbers wrap below the reserved ones and skip those in use", () => {
    const { hypervisor } = new Machine();
    assert.equal(createDomain(hypervisor, { vcpus: 1, domid: 1 }), 1);
    hypervisor.domains.serial[1] = 0x7fee;
    assert.equal(createDomain(hypervisor, { vcpus: 1 }), 0x7fef);
    assert.equal(createDomain(hypervisor, { vcpus: 1 }), 2);
  });

  it("a number in use, a reserved number and an impossible one are refused; a free one is given", () => {
    const { hypervisor } = new Machine();
    assert.equal(createDomain(hypervisor, { vcpus: 1, domid: 7 }), 7);
    assert.equal(createDomain(hypervisor, { vcpus: 1, domid: 7 }), -EEXIST);
    assert.equal(createDomain(hypervisor, { vcpus: 1, domid: 0 }), -EEXIST);
    for (const domid of [0x7ff0, 0x7ff4, 0x7fff, 0xffff, -1, 1.5, Number.NaN]) {
      assert.equal(createDomain(hypervisor, { vcpus: 1, domid }), -EINVAL, String(domid));
    }
    assert.equal(createDomain(hypervisor, { vcpus: 1, domid: 0x7fef }), 0x7fef);
  });

  it("the number of vCPUs is from 1 to what the geometry has", () => {
    const { hypervisor } = new Machine();
    for (const vcpus of [0, 5, -1, 1.5, Number.NaN, Infinity]) {
      assert.equal(createDomain(hypervisor, { vcpus }), -EINVAL, String(vcpus));
    }
    assert.equal(createDomain(hypervisor, { vcpus: 4 }), 1);
  });

  it("creation without a free slot or a free frame fails and leaves nothing behind", () => {
    const machine = new Machine({ domainCountMax: 4 });
    machine.guest();
    machine.guest();
    assert.equal(createDomain(machine.hypervisor, { vcpus: 1 }), -ENOSPC);
    machine.check();
    const full = new Machine();
    setMaxPages(full.hypervisor, 0, 1000);
    populateRun(full.hypervisor, 0, 0, 1000, { count: 0, blockedGfn: -1, error: 0 });
    assert.equal(createDomain(full.hypervisor, { vcpus: 1 }), -ENOMEM);
    full.check();
  });

  it("W19: the same number at another time is another domain", () => {
    const machine = new Machine();
    const first = machine.guest({ domid: 9 });
    const generation = machine.hypervisor.domains.generation[first.slot]!;
    assert.equal(findDomain(machine.hypervisor, 9, generation), first.slot);
    beginDestroy(machine.hypervisor, first.slot);
    continueDestroy(machine.hypervisor, first.slot);
    const second = machine.guest({ domid: 9 });
    assert.equal(findDomain(machine.hypervisor, 9, generation), -ESRCH);
    assert.equal(findDomain(machine.hypervisor, 9, generation + 1), second.slot);
  });

  it("M32: every way of creation sets max_pages to a number that binds", () => {
    const { hypervisor } = new Machine();
    const slot = hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 1 }));
    const outcome = { count: 0, blockedGfn: -1, error: 0 };
    populateRun(hypervisor, slot, 0, 4, outcome);
    assert.equal(outcome.count, 0);
    assert.equal(setMaxPages(hypervisor, slot, 3), 0);
    populateRun(hypervisor, slot, 0, 4, outcome);
    assert.equal(outcome.count, 3);
    assert.equal(hypervisor.domains.maxPages[0], 500);
    for (const pages of [Number.NaN, -1, -Infinity]) assert.equal(setMaxPages(hypervisor, slot, pages), -EINVAL);
    assert.equal(setMaxPages(hypervisor, slot, Infinity), 0);
    assert.equal(hypervisor.domains.maxPages[slot], 0xffff_fffe);
  });
});

describe("pause", () => {
  it("pauses nest; the last unpause lets the domain run", () => {
    const machine = new Machine();
    const { slot } = machine.guest();
    const { hypervisor } = machine;
    assert.equal(pauseDomain(hypervisor, slot), 0);
    assert.equal(pauseDomain(hypervisor, slot), 0);
    assert.equal(unpauseDomain(hypervisor, slot), 0);
    assert.equal(hypervisor.domains.stateOf(slot), "paused");
    assert.equal(hypervisor.vcpus.gate[hypervisor.vcpus.index(slot, 0)], GATE_PAUSE);
    assert.equal(unpauseDomain(hypervisor, slot), 0);
    assert.equal(hypervisor.domains.stateOf(slot), "running");
    assert.equal(hypervisor.vcpus.gate[hypervisor.vcpus.index(slot, 0)], 0);
    assert.equal(unpauseDomain(hypervisor, slot), -EINVAL);
    machine.check();
  });

  it("no more than 255 pauses nest", () => {
    const { hypervisor } = new Machine();
    const slot = hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 1 }));
    for (let count = 1; count < PAUSE_COUNT_MAX; count += 1) assert.equal(pauseDomain(hypervisor, slot), 0);
    assert.equal(pauseDomain(hypervisor, slot), -EOVERFLOW);
    assert.equal(unpauseDomain(hypervisor, slot), 0);
    assert.equal(pauseDomain(hypervisor, slot), 0);
  });

  it("dom0 and a dying domain cannot be paused", () => {
    const machine = new Machine();
    const { slot } = machine.guest();
    assert.equal(pauseDomain(machine.hypervisor, 0), -EINVAL);
    beginDestroy(machine.hypervisor, slot);
    assert.equal(pauseDomain(machine.hypervisor, slot), -ESRCH);
    assert.equal(unpauseDomain(machine.hypervisor, slot), -ESRCH);
  });

  it("a paused domain's hypercall waits at the gate and goes on where it was", () => {
    const machine = new Machine();
    const { slot, cpu } = machine.guest();
    pauseDomain(machine.hypervisor, slot);
    assert.equal(domainQuiet(machine.hypervisor, slot), true);
    let waits = 0;
    machine.parts.platform.onWait = () => {
      waits += 1;
      unpauseDomain(machine.hypervisor, slot);
    };
    assert.equal(hypercall(cpu, XEN_VERSION, 7, 0, 0, 0, 0), 4096);
    assert.equal(waits, 1);
  });
});

describe("shutdown and crash", () => {
  it("a domain that shuts down keeps its first reason and stops, paused or not", () => {
    const machine = new Machine();
    for (const paused of [true, false]) {
      const { slot } = machine.guest({}, { paused });
      shutdownDomain(machine.hypervisor, slot, SHUTDOWN_suspend);
      shutdownDomain(machine.hypervisor, slot, SHUTDOWN_crash);
      const info = domainInfo(machine.hypervisor, slot);
      assert.equal(info.state, "shutdown");
      assert.equal(info.shutdownCode, SHUTDOWN_suspend);
      machine.check();
    }
  });

  it("only 8 bits of a shutdown reason count", () => {
    const machine = new Machine();
    const { slot } = machine.guest();
    shutdownDomain(machine.hypervisor, slot, 0x102);
    assert.equal(domainInfo(machine.hypervisor, slot).shutdownCode, 2);
  });

  it("a suspended domain goes on where it was: running, or paused when it is paused", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const { slot } = machine.guest();
    shutdownDomain(hypervisor, slot, SHUTDOWN_suspend);
    assert.equal(resumeDomain(hypervisor, slot), 0);
    assert.equal(hypervisor.domains.stateOf(slot), "running");
    shutdownDomain(hypervisor, slot, SHUTDOWN_suspend);
    pauseDomain(hypervisor, slot);
    assert.equal(resumeDomain(hypervisor, slot), 0);
    assert.equal(hypervisor.domains.stateOf(slot), "paused");
    machine.check();
    assert.equal(unpauseDomain(hypervisor, slot), 0);
    assert.equal(resumeDomain(hypervisor, slot), 0);
    machine.check();
  });

  it("a crashed domain keeps its first reason, tells dom0 and cannot be resumed", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const { slot } = machine.guest();
    hypervisor.attention.take();
    crashDomain(hypervisor, slot, "touched the void");
    crashDomain(hypervisor, slot, "and again");
    assert.equal(crashReason(hypervisor, slot), "touched the void");
    assert.equal(domainInfo(hypervisor, slot).shutdownCode, SHUTDOWN_crash);
    assert.equal(hypervisor.attention.take() & ATTENTION_DOMAIN, ATTENTION_DOMAIN);
    assert.equal(resumeDomain(hypervisor, slot), -EINVAL);
    machine.check();
  });

  it("a crash reason longer than the column is cut at a whole character", () => {
    const machine = new Machine();
    const { slot } = machine.guest();
    crashDomain(machine.hypervisor, slot, "é".repeat(400));
    assert.equal(crashReason(machine.hypervisor, slot), "é".repeat(127));
  });

  it("a crash may come with any lock held", () => {
    const machine = new Machine();
    const { locks } = machine.hypervisor;
    const { slot } = machine.guest();
    for (const rank of ["p2m", "event", "allocator"] as const)
      locks.acquire(locks.id(rank, rank === "allocator" ? 0 : slot));
    crashDomain(machine.hypervisor, slot, "in the middle");
    for (const rank of ["allocator", "event", "p2m"] as const)
      locks.release(locks.id(rank, rank === "allocator" ? 0 : slot));
    machine.check();
  });

  it("W06: every further hypercall of a crashed domain's vCPU is refused, caught exceptions or not", () => {
    const machine = new Machine();
    const { slot, cpu } = machine.guest();
    assert.equal(hypercall(cpu, XEN_VERSION, 7, 0, 0, 0, 0), 4096);
    crashDomain(machine.hypervisor, slot, "misbehaved");
    for (let attempt = 0; attempt < 3; attempt += 1) {
      assert.throws(() => hypercall(cpu, XEN_VERSION, 7, 0, 0, 0, 0), ParkedError);
    }
    machine.check();
  });

  it("a crash of dom0 marks it and stops nobody", () => {
    const machine = new Machine();
    const guest = machine.guest();
    crashDomain(machine.hypervisor, 0, "the operator's code misbehaved");
    assert.equal(machine.hypervisor.domains.stateOf(0), "running");
    assert.equal(hypercall(guest.cpu, XEN_VERSION, 7, 0, 0, 0, 0), 4096);
  });
});

describe("races of the life cycle", () => {
  it("a shutdown in the middle of an unpause is not lost: the vCPUs stay held", () => {
    for (const wakes of [1, 2, 3, 4]) {
      const machine = new Machine();
      const { slot } = machine.guest({ vcpus: 4 }, { paused: true });
      let left = wakes;
      machine.parts.platform.wake = () => {
        left -= 1;
        if (left === 0) shutdownDomain(machine.hypervisor, slot, SHUTDOWN_suspend);
        return 0;
      };
      assert.equal(unpauseDomain(machine.hypervisor, slot), 0);
      assert.equal(machine.hypervisor.domains.stateOf(slot), "shutdown");
      machine.check();
    }
  });

  it("a destruction or a crash in the middle of a resume is not lost either", () => {
    for (const end of [crashDomain, beginDestroy]) {
      const machine = new Machine();
      const { slot } = machine.guest({ vcpus: 4 });
      shutdownDomain(machine.hypervisor, slot, SHUTDOWN_suspend);
      let left = 2;
      machine.parts.platform.wake = () => {
        left -= 1;
        if (left === 0 && end === crashDomain) crashDomain(machine.hypervisor, slot, "test");
        return 0;
      };
      assert.equal(resumeDomain(machine.hypervisor, slot), 0);
      if (end === beginDestroy) beginDestroy(machine.hypervisor, slot);
      machine.check();
    }
  });
});

describe("device models", () => {
  it("a domain gets one target, which is neither itself nor dom0", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const model = machine.guest();
    const target = machine.guest();
    const other = machine.guest();
    assert.equal(setTarget(hypervisor, model.slot, model.slot), -EINVAL);
    assert.equal(setTarget(hypervisor, model.slot, 0), -EPERM);
    assert.equal(setTarget(hypervisor, model.slot, target.slot), 0);
    assert.equal(setTarget(hypervisor, model.slot, other.slot), -EINVAL);
    machine.check();
  });

  it("a dead target's number stays taken until its device model is gone", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const model = machine.guest();
    const target = machine.guest();
    setTarget(hypervisor, model.slot, target.slot);
    beginDestroy(hypervisor, target.slot);
    assert.equal(continueDestroy(hypervisor, target.slot), true);
    assert.equal(hypervisor.domains.stateOf(target.slot), "dead");
    assert.equal(createDomain(hypervisor, { vcpus: 1, domid: target.domid }), -EEXIST);
    machine.check();
    beginDestroy(hypervisor, model.slot);
    continueDestroy(hypervisor, model.slot);
    continueDestroy(hypervisor, target.slot);
    assert.equal(hypervisor.domains.stateOf(target.slot), "free");
    assert.equal(createDomain(hypervisor, { vcpus: 1, domid: target.domid }), target.domid);
    machine.check();
  });
});
