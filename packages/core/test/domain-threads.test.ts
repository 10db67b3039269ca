import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { attachSpace } from "../src/address-space.ts";
import { audit } from "../src/auditor.ts";
import { initialise } from "../src/boot.ts";
import { createDomain } from "../src/domain-create.ts";
import { crashDomain, domainQuiet } from "../src/domain-ops.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { beginDestroy, continueDestroy, reapStage } from "../src/domain-reap.ts";
import { pauseDomain, unpauseDomain, vcpuThreadGone, vcpuThreadStarted } from "../src/domain-run.ts";
import { createTestHypervisor } from "../src/fake-platform.ts";
import type { TestHypervisor } from "../src/fake-platform.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import { populateRun } from "../src/memory-populate.ts";
import { threadPlatform } from "./domain-worker.ts";
import type { VcpuOrder } from "./domain-worker.ts";

/** A hypercall that goes through the gate and does nothing. */
const FLUSH = [abi.__HYPERVISOR_hvm_op, abi.HVMOP_flush_tlbs, 0] as const;
/** One that looks at memory. */
const VERSION = [abi.__HYPERVISOR_xen_version, abi.XENVER_capabilities, 0x1000] as const;

/** A machine whose control domain is this thread and whose vCPUs are workers. */
class ThreadedMachine {
  readonly hypervisor: Hypervisor;
  readonly #parts: TestHypervisor = createTestHypervisor();
  readonly #workers = new Map<number, { readonly worker: Worker; readonly tag: number }>();
  #tag = 1;

  constructor() {
    const platform = threadPlatform(this.#parts.mmu);
    this.hypervisor = new Hypervisor(this.#parts.storage, { platform, tag: 1 });
    initialise(this.hypervisor);
  }

  /** A running domain whose vCPU makes `call` without end. */
  start(call: VcpuOrder["call"]): number {
    const { hypervisor } = this;
    const slot = hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 1 }));
    setMaxPages(hypervisor, slot, 10);
    assert.equal(attachSpace(hypervisor, slot, 2 ** 33 * (slot + 1)), 0);
    populateRun(hypervisor, slot, 0, 4, { count: 0, blockedGfn: -1, error: 0 });
    this.#tag += 1;
    const workerData: VcpuOrder = { storage: this.#parts.storage, slot, vcpu: 0, tag: this.#tag, call };
    vcpuThreadStarted(hypervisor, hypervisor.vcpus.index(slot, 0), this.#tag);
    const worker = new Worker(new URL("domain-worker.js", import.meta.url), { workerData });
    this.#workers.set(slot, { worker, tag: this.#tag });
    assert.equal(unpauseDomain(hypervisor, slot), 0);
    return slot;
  }

  /** Ends the thread; it must be outside the hypervisor. Returns how many locks it held. */
  async stop(slot: number): Promise<number> {
    const { worker, tag } = this.#workers.get(slot)!;
    await worker.terminate();
    this.#workers.delete(slot);
    return vcpuThreadGone(this.hypervisor, this.hypervisor.vcpus.index(slot, 0), tag);
  }

  /** Waits until the domain made `count` hypercalls more. */
  async progress(slot: number, count: number): Promise<void> {
    const { domains } = this.hypervisor;
    const wanted = domains.hypercallCount(slot) + count;
    while (domains.hypercallCount(slot) < wanted) await turn();
  }

  async end(): Promise<void> {
    for (const slot of this.#workers.keys()) {
      crashDomain(this.hypervisor, slot, "the test is over");
      while (!domainQuiet(this.hypervisor, slot)) await turn();
      assert.equal(await this.stop(slot), 0);
    }
    assert.deepEqual(audit(this.hypervisor), []);
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("domains on threads", () => {
  it("a paused domain makes no hypercall until it is unpaused, time after time", async () => {
    const machine = new ThreadedMachine();
    const { hypervisor } = machine;
    const slot = machine.start(FLUSH);
    for (let round = 0; round < 200; round += 1) {
      await machine.progress(slot, 10);
      assert.equal(pauseDomain(hypervisor, slot), 0);
      while (!domainQuiet(hypervisor, slot));
      const before = hypervisor.domains.hypercallCount(slot);
      await turn();
      assert.equal(hypervisor.domains.hypercallCount(slot), before);
      assert.equal(unpauseDomain(hypervisor, slot), 0);
    }
    await machine.end();
  });

  it("a crashed domain's vCPU parks outside the hypervisor, with no lock, wherever it was", async () => {
    const machine = new ThreadedMachine();
    for (let round = 0; round < 4; round += 1) {
      const slot = machine.start(VERSION);
      await machine.progress(slot, 100 + round * 17);
      crashDomain(machine.hypervisor, slot, "test");
      while (!domainQuiet(machine.hypervisor, slot));
      assert.equal(await machine.stop(slot), 0);
      beginDestroy(machine.hypervisor, slot);
      assert.equal(continueDestroy(machine.hypervisor, slot), true);
      assert.deepEqual(audit(machine.hypervisor), []);
    }
    await machine.end();
  });

  it("a domain's end is not held up by others that make hypercalls all the time", async () => {
    const machine = new ThreadedMachine();
    const { hypervisor } = machine;
    const busy = [machine.start(VERSION), machine.start(VERSION)];
    for (const slot of busy) await machine.progress(slot, 1000);
    for (let round = 0; round < 50; round += 1) {
      const slot = hypervisor.domains.slotOf(createDomain(hypervisor, { vcpus: 2 }));
      beginDestroy(hypervisor, slot);
      while (reapStage(hypervisor, slot) !== undefined) continueDestroy(hypervisor, slot);
      assert.equal(hypervisor.domains.stateOf(slot), "free");
    }
    for (const slot of busy) await machine.progress(slot, 1000);
    await machine.end();
  });
});
