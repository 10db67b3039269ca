/**
 * Advisories about memory that changes in the middle of something: failures half way, other threads, domains that die
 * (docs/advisories.md, section 3).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { freeFrameCount } from "../src/buddy.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/domain-reap.ts";
import { pauseDomain, unpauseDomain } from "../src/domain-run.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { getFrame, putFrame } from "../src/frame-reference.ts";
import { createCpu } from "../src/hypercall.ts";
import { addToPhysmap, removeFromPhysmap } from "../src/memory-physmap.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { P2M_HOLE } from "../src/p2m.ts";
import { setEoiPage } from "../src/pirq.ts";
import { registerVcpuInfo } from "../src/vcpu-areas.ts";
import { failEach, interleave, otherThread } from "./advisories-kit.ts";
import * as kit from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

const { EBUSY, ENOMEM } = abi;
const { PAGE, range } = kit;

/** A guest with RAM at 0-15, each page filled with its own number, and shared_info at 30. */
const setUp = (): { world: World; guest: Guest } => {
  const world = kit.createWorld();
  const guest = kit.addGuest(world, 64);
  assert.equal(kit.populate(guest, range(0, 16)), 16);
  for (const gfn of range(0, 16)) assert.ok(world.mmu.write(guest.base, gfn * PAGE, gfn + 1));
  assert.equal(addToPhysmap(world.hypervisor, guest.slot, abi.XENMAPSPACE_shared_info, 0, 30), 0);
  return { world, guest };
};

/** Writes the arguments of an exchange. */
const prepareExchange = (guest: Guest, given: readonly number[], taken: readonly number[], order = 0): void => {
  const lists = [kit.writeList(guest, given), kit.writeList(guest, taken, 2 * PAGE)] as const;
  kit.writeArgument(guest, abi.xen_memory_exchange.sizeBytes, (view) => {
    const { in: inSide, out } = abi.xen_memory_exchange;
    kit.fillReservation(view, inSide.offsetBytes, { list: lists[0], count: given.length }, {});
    kit.fillReservation(view, out.offsetBytes, { list: lists[1], count: taken.length }, { order });
  });
};

const exchange = (guest: Guest, given: readonly number[], taken: readonly number[], order = 0): number => {
  prepareExchange(guest, given, taken, order);
  return kit.memoryOp(guest, abi.XENMEM_exchange);
};

/** Writes the arguments of a populate or a decrease of single pages. */
const prepareReservation = (guest: Guest, gfns: readonly number[]): void => {
  const list = kit.writeList(guest, gfns);
  kit.writeArgument(guest, abi.xen_memory_reservation.sizeBytes, (view) => {
    kit.fillReservation(view, 0, { list, count: gfns.length }, {});
  });
};

describe("memory: a failure half way", () => {
  it("M01, M35: the two maps change together or not at all, and what was done is what is counted (XSA-22, XSA-389)", () => {
    const operations: Readonly<Record<string, (guest: Guest, slot: number) => number>> = {
      "populate of scattered pages": (guest) => kit.populate(guest, [40, 42, 44, 46]),
      "populate over RAM": (guest) => kit.populate(guest, [2, 4, 6]),
      "decrease of scattered pages": (guest) => kit.decrease(guest, [1, 3, 5, 7]),
      "move onto RAM": (guest, slot) => addToPhysmap(guest.cpu.hypervisor, slot, abi.XENMAPSPACE_gmfn, 3, 9),
      "shared_info onto RAM": (guest, slot) =>
        addToPhysmap(guest.cpu.hypervisor, slot, abi.XENMAPSPACE_shared_info, 0, 9),
      "exchange into one extent": (guest) => exchange(guest, range(4, 4), [4], 2),
    };
    for (const [name, operate] of Object.entries(operations)) {
      const calls = failEach(() => {
        const { world, guest } = setUp();
        const { hypervisor, mmu } = world;
        const present = (): number =>
          range(0, 64).filter((gfn) => hypervisor.p2m.get(guest.slot, gfn) !== P2M_HOLE).length;
        const before = present();
        let done = 0;
        return {
          hypervisor,
          mmu,
          operation: () => (done = operate(guest, guest.slot)),
          verify: () => {
            if (name.startsWith("populate of")) assert.equal(present(), before + done);
            if (name.startsWith("decrease")) assert.equal(present(), before - done);
            kit.settle(world);
          },
        };
      });
      assert.ok(calls >= 2, name);
    }
  });

  it("M14: an exchange that fails at any step leaves each page owned once, old or new (XSA-159)", () => {
    for (const failures of [1, 2, 1000]) {
      const steps = failEach(() => {
        const { world, guest } = setUp();
        const { hypervisor, mmu } = world;
        const owned = kit.ownedPages(world, guest);
        let result = 0;
        return {
          hypervisor,
          mmu,
          operation: () => (result = exchange(guest, [0, 2, 5, 9], [40], 2)),
          verify: (call) => {
            if (call === 1) mmu.failAt(call, failures);
            assert.ok(result === 0 || result === -ENOMEM, `call ${call}: ${result}`);
            assert.equal(kit.ownedPages(world, guest), owned);
            kit.settle(world);
          },
        };
      });
      assert.ok(steps >= 5);
    }
  });

  it("M27: after a failure at any step a page that is removed is out of reach at once (XSA-80)", () => {
    failEach(() => {
      const { world, guest } = setUp();
      const { hypervisor, mmu } = world;
      return {
        hypervisor,
        mmu,
        operation: () => {
          for (const gfn of range(0, 4)) addToPhysmap(hypervisor, guest.slot, abi.XENMAPSPACE_gmfn, gfn, gfn + 50);
        },
        verify: (call) => {
          for (const gfn of [...range(0, 4), ...range(50, 4)]) {
            const isThere = hypervisor.p2m.get(guest.slot, gfn) !== P2M_HOLE;
            if (isThere) assert.equal(removeFromPhysmap(hypervisor, guest.slot, gfn), 0, `call ${call}, gfn ${gfn}`);
            assert.equal(mmu.frameAt(guest.base, gfn), -1);
          }
          kit.settle(world);
        },
      };
    });
  });
});

describe("memory: others at the same time", () => {
  it("M41: a page is looked up and held in one step (XSA-473)", () => {
    const rivals: Readonly<Record<string, (world: World, guest: Guest) => void>> = {
      removal: (world, guest) => void removeFromPhysmap(otherThread(world), guest.slot, 4),
      decrease: (world, guest) => void depopulateRun(otherThread(world), guest.slot, 0, 16),
      death: (world, guest) => {
        const thread = otherThread(world);
        beginDestroy(thread, guest.slot);
        continueDestroy(thread, guest.slot);
      },
    };
    for (const [name, rival] of Object.entries(rivals)) {
      interleave(() => {
        const { world, guest } = setUp();
        const { hypervisor } = world;
        let frame = -1;
        return {
          hypervisor,
          victim: () => {
            frame = getFrame(hypervisor, guest.slot, 4);
            if (frame < 0) return;
            assert.equal(hypervisor.frames.owner[frame], guest.slot + 1, name);
            assert.ok(hypervisor.frames.refs[frame]! > 0, name);
            putFrame(hypervisor, frame);
          },
          adversary: () => rival(world, guest),
          verify: () => {
            while (name === "death" && reapDomains(hypervisor) > 0);
            if (frame >= 0) assert.equal(hypervisor.frames.refs[frame], name === "removal" ? 1 : 0);
          },
        };
      });
    }
  });

  it("M43: of two vCPUs that choose a page for the same purpose one wins, and the other's page is let go (XSA-472)", () => {
    const choices: Readonly<Record<string, (cpu: Guest["cpu"], gfn: number) => number>> = {
      vcpu_info: (cpu, gfn) => registerVcpuInfo(cpu, cpu.hypervisor.vcpus.index(cpu.slot, 0), gfn, 0),
      "page of pirq flags": (cpu, gfn) => setEoiPage(cpu.hypervisor, cpu.slot, gfn, false),
      shared_info: (cpu, gfn) => addToPhysmap(cpu.hypervisor, cpu.slot, abi.XENMAPSPACE_shared_info, 0, gfn + 100),
    };
    for (const [name, choose] of Object.entries(choices)) {
      interleave(() => {
        const { world, guest } = setUp();
        const { hypervisor } = world;
        const other = createCpu(otherThread(world), guest.slot, 1);
        const results: number[] = [];
        return {
          hypervisor,
          victim: () => results.push(choose(guest.cpu, 5)),
          adversary: () => results.push(choose(other, 6)),
          verify: () => {
            const expected = name === "shared_info" ? [0, 0] : [-EBUSY, 0];
            assert.deepEqual(
              results.toSorted((a, b) => a - b),
              expected,
              name,
            );
            kit.settle(world);
            assert.equal(beginDestroy(hypervisor, guest.slot), 0);
            assert.equal(continueDestroy(hypervisor, guest.slot), true);
            assert.equal(reapDomains(hypervisor), 0);
          },
        };
      });
    }
  });

  it("M14, M10: a domain that is destroyed in the middle of its own call loses every page once (XSA-159, XSA-147)", () => {
    const calls: Readonly<Record<string, readonly [number, (guest: Guest) => void]>> = {
      exchange: [abi.XENMEM_exchange, (guest) => prepareExchange(guest, range(0, 8), range(0, 8))],
      populate: [abi.XENMEM_populate_physmap, (guest) => prepareReservation(guest, [20, 22, 24])],
      decrease: [abi.XENMEM_decrease_reservation, (guest) => prepareReservation(guest, [0, 2, 4, 6])],
    };
    for (const [name, [command, prepare]] of Object.entries(calls)) {
      interleave(() => {
        const { world, guest } = setUp();
        prepare(guest);
        const { hypervisor } = world;
        const free = freeFrameCount(hypervisor) + hypervisor.domains.totPages[guest.slot]! + 2;
        return {
          hypervisor,
          victim: () => {
            try {
              kit.memoryOp(guest, command);
            } catch (error) {
              assert.ok(error instanceof ParkedError, name);
            }
          },
          adversary: () => {
            const thread = otherThread(world);
            assert.equal(beginDestroy(thread, guest.slot), 0);
            continueDestroy(thread, guest.slot, 5);
          },
          verify: () => {
            while (!continueDestroy(hypervisor, guest.slot, 3));
            assert.equal(reapDomains(hypervisor), 0);
            assert.equal(freeFrameCount(hypervisor), free);
          },
        };
      });
    }
  });

  it("M45: a long list is interrupted where nothing is half done, and ends as an uninterrupted one does (XSA-97, XSA-264)", () => {
    const even = range(0, 340).map((index) => 2 * index);
    const calls: Readonly<Record<string, (guest: Guest) => number>> = {
      exchange: (guest) => exchange(guest, new Array<number>(1024).fill(3), new Array<number>(1024).fill(3)),
      decrease: (guest) => 340 - kit.decrease(guest, even),
      populate: (guest) =>
        300 -
        kit.populate(
          guest,
          range(0, 300).map((index) => 800 + 2 * index),
        ),
    };
    for (const [name, call] of Object.entries(calls)) {
      const world = kit.createWorld({ gfnCount: 2048, machineFrames: 2000, framesPerBank: 1024, vmaLimit: 4000 });
      const guest = kit.addGuest(world, 1100, { vmaBudget: 4000 });
      assert.equal(kit.populate(guest, range(0, 700)), 700);
      const { calls: made } = world.mmu;
      const thread = otherThread(world);
      const [asked, parked] = [made.length + 10, [] as number[]];
      const push = made.push.bind(made);
      made.push = (...call) => {
        if (made.length === asked) assert.equal(pauseDomain(thread, guest.slot), 0);
        return push(...call);
      };
      world.platform.onWait = ({ words }) => {
        assert.equal(words, world.hypervisor.vcpus.gate);
        parked.push(made.length);
        kit.settle(world);
        assert.equal(unpauseDomain(thread, guest.slot), 0);
      };
      assert.equal(call(guest), 0, name);
      assert.equal(parked.length, 1, name);
      assert.ok(parked[0]! < made.length, `${name}: it parked only at the end`);
      assert.ok(parked[0]! - asked < 2000, `${name}: it went on for ${parked[0]! - asked} calls`);
      kit.settle(world);
    }
  });
});
