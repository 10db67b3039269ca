/**
 * Advisories about locks and about what other threads may see in the middle of a change (docs/advisories.md, sections
 * 3, 4 and 12), with real threads.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { attachSpace, hookRun } from "../src/address-space.ts";
import { audit } from "../src/auditor.ts";
import { initialise } from "../src/boot.ts";
import { createDomain } from "../src/domain-create.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/domain-reap.ts";
import { pauseDomain, unpauseDomain, vcpuThreadGone, vcpuThreadStarted } from "../src/domain-run.ts";
import { bindVirq } from "../src/event-ports.ts";
import { createTestHypervisor } from "../src/fake-platform.ts";
import { createCpu } from "../src/hypercall.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import { depopulateRun, populateRun } from "../src/memory-populate.ts";
import { P2M_RAM } from "../src/p2m.ts";
import { serviceTimers } from "../src/timer-service.ts";
import { setPeriodic, setSingleshot, stopTimers } from "../src/timers.ts";
import { failEach, interleave, otherThread } from "./advisories-kit.ts";
import { COUNTER, INCREMENTS, READY, realPlatform, ROUNDS, STOP } from "./advisories-worker.ts";
import type { Order } from "./advisories-worker.ts";
import * as kit from "./events-kit.ts";
import { Machine } from "./machine.ts";

/** A machine whose control thread sleeps for real, with one running guest of two pages. */
const realMachine = () => {
  const { storage, mmu } = createTestHypervisor({ portsPerDomain: 32 });
  const hypervisor = new Hypervisor(storage, { platform: realPlatform(mmu), tag: 1 });
  initialise(hypervisor);
  const slot = hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 4 }));
  assert.equal(attachSpace(hypervisor, slot, 2 ** 33), 0);
  setMaxPages(hypervisor, slot, 20);
  const outcome = { count: 0, blockedGfn: -1, error: 0 };
  populateRun(hypervisor, slot, 0, 4, outcome);
  assert.equal(outcome.count, 4);
  unpauseDomain(hypervisor, slot);
  for (let vcpu = 0; vcpu < 4; vcpu += 1) Atomics.store(hypervisor.vcpus.gate, hypervisor.vcpus.index(slot, vcpu), 0);
  const common = new SharedArrayBuffer(64);
  return { hypervisor, storage, slot, common, words: new Int32Array(common) };
};

const start = (
  machine: ReturnType<typeof realMachine>,
  order: Pick<Order, "tag" | "role"> & Partial<Order>,
): Worker => {
  const { storage, slot, common } = machine;
  const workerData: Order = { storage, slot, common, address: 0, values: [], ...order };
  return new Worker(new URL("advisories-worker.js", import.meta.url), { workerData });
};

/** Resolves when the thread has ended well. */
const ended = (worker: Worker): Promise<void> =>
  new Promise((resolve, reject) => {
    worker.once("error", reject);
    worker.once("exit", (code) => (code === 0 ? resolve() : reject(new Error(`thread ended with ${code}`))));
  });

const whenReady = async (words: Int32Array, count: number): Promise<void> => {
  while (Atomics.load(words, READY) < count) await nextTurn();
};

describe("locks", () => {
  it("H10: what was done under a lock is seen by the next to hold it (XSA-314)", async () => {
    const machine = realMachine();
    const workers = [2, 3, 4, 5].map((tag) => start(machine, { tag, role: "count" }));
    await Promise.all(workers.map((worker) => ended(worker)));
    assert.equal(machine.words[COUNTER], workers.length * INCREMENTS);
  });

  it("H09: many that look cannot keep one out who changes (XSA-114)", async () => {
    const machine = realMachine();
    const { hypervisor, slot, words } = machine;
    const { memory } = createCpu(hypervisor, slot, 0);
    assert.equal(memory.copyToGuest(0, Uint8Array.from([0xf0, 0x7f])), 0);
    const workers = [2, 3, 4].map((tag) => start(machine, { tag, role: "query" }));
    await whenReady(words, workers.length);
    const outcome = { count: 0, blockedGfn: -1, error: 0 };
    for (let round = 0; round < 2000; round += 1) {
      populateRun(hypervisor, slot, 10, 2, outcome);
      assert.equal(outcome.count, 2);
      assert.equal(depopulateRun(hypervisor, slot, 10, 2), 2);
    }
    assert.ok(Atomics.load(words, ROUNDS) > 0);
    assert.equal(pauseDomain(hypervisor, slot), 0);
    assert.equal(unpauseDomain(hypervisor, slot), 0);
    Atomics.store(words, STOP, 1);
    await Promise.all(workers.map((worker) => ended(worker)));
    assert.deepEqual(audit(hypervisor), []);
  });

  it("M29: whoever looks at a page while it is exchanged sees the old one or the new one (XSA-328, XSA-347)", async () => {
    const machine = realMachine();
    const { hypervisor, slot, words } = machine;
    const { locks, p2m, directMap } = hypervisor;
    const frames = [p2m.get(slot, 2) >>> 4, p2m.get(slot, 3) >>> 4];
    const values = [0x1111_1111, 0x2222_2222];
    for (const [index, frame] of frames.entries()) directMap.storeU32(frame * 4096, values[index]!);
    const workers = [2, 3].map((tag) => start(machine, { tag, role: "read", address: 2 * 4096, values }));
    await whenReady(words, workers.length);
    const lock = locks.id("p2m", slot);
    for (let round = 0; round < 20_000; round += 1) {
      locks.acquire(lock);
      assert.equal(hookRun(hypervisor, slot, 2, frames[round % 2]!, 1, P2M_RAM), 0);
      locks.release(lock);
    }
    Atomics.store(words, STOP, 1);
    await Promise.all(workers.map((worker) => ended(worker)));
    assert.ok(words[ROUNDS]! > 0);
  });

  it("W28: the locks of a thread that was ended in the middle of something are free again (W-28, XSA-295)", async () => {
    const machine = realMachine();
    const { hypervisor, slot, words } = machine;
    const index = hypervisor.vcpus.index(slot, 1);
    vcpuThreadStarted(hypervisor, index, 77);
    const worker = start(machine, { tag: 77, role: "hold" });
    await whenReady(words, 1);
    await worker.terminate();
    assert.equal(vcpuThreadGone(hypervisor, index, 77), 1);
    assert.equal(vcpuThreadGone(hypervisor, index, 77), 0);
    const outcome = { count: 0, blockedGfn: -1, error: 0 };
    populateRun(hypervisor, slot, 8, 2, outcome);
    assert.equal(outcome.count, 2);
    assert.equal(beginDestroy(hypervisor, slot), 0);
    while (!continueDestroy(hypervisor, slot));
    assert.equal(reapDomains(hypervisor), 0);
    assert.deepEqual(audit(hypervisor), []);
  });

  it("H11: giving back a lock that one does not hold, or out of order, is caught; no failure half way does it (XSA-458)", () => {
    const machine = new Machine();
    const { locks } = machine.hypervisor;
    const [first, second] = [locks.id("p2m", 1), locks.id("pages", 1)];
    assert.throws(() => locks.release(first), /order/);
    locks.acquire(first);
    locks.acquire(second);
    assert.throws(() => locks.acquire(first), /order/);
    assert.throws(() => otherThread(machine.parts).locks.release(first), /order/);
    const other = new Machine();
    other.hypervisor.locks.acquire(first);
    other.hypervisor.locks.acquire(second);
    assert.throws(() => other.hypervisor.locks.release(first), /order/);
    const calls = failEach(() => {
      const world = new Machine();
      const guest = kit.runningGuest(world);
      return {
        hypervisor: world.hypervisor,
        mmu: world.parts.mmu,
        operation: () => {
          depopulateRun(world.hypervisor, guest.slot, 0, 3);
          populateRun(world.hypervisor, guest.slot, 0, 3, { count: 0, blockedGfn: -1, error: 0 });
          beginDestroy(world.hypervisor, guest.slot);
          continueDestroy(world.hypervisor, guest.slot);
        },
      };
    });
    assert.ok(calls >= 4);
  });

  it("H21: a timer that is set, served and moved at once leaves every lock free and fires as it was last set (XSA-336)", () => {
    const rivals: Readonly<Record<string, (thread: Hypervisor, slot: number) => void>> = {
      "the control domain serves": (thread) => void serviceTimers(thread),
      "the other vCPU sets it": (thread, slot) => void setPeriodic(thread, thread.vcpus.index(slot, 0), 2_000_000),
      "all are stopped": (thread, slot) => stopTimers(thread, slot),
    };
    for (const [name, rival] of Object.entries(rivals)) {
      interleave(() => {
        const machine = new Machine({ portsPerDomain: 32 });
        const guest = kit.runningGuest(machine, { vcpus: 2 });
        const { hypervisor, parts } = machine;
        const port = bindVirq(hypervisor, guest.slot, abi.VIRQ_TIMER, 0);
        const thread = otherThread(parts);
        parts.platform.nowNs = 1_000_000;
        return {
          hypervisor,
          victim: () => {
            setSingleshot(hypervisor, guest.cpu.index, 5_000_000);
            setPeriodic(hypervisor, guest.cpu.index, 3_000_000);
          },
          adversary: () => rival(thread, guest.slot),
          verify: () => {
            assert.equal(thread.locks.heldCount, 0, name);
            kit.settle(guest);
            setSingleshot(hypervisor, guest.cpu.index, 6_000_000);
            parts.platform.nowNs = 7_000_000;
            serviceTimers(hypervisor);
            assert.ok(kit.pending(guest, port), name);
          },
        };
      });
    }
  });
});
