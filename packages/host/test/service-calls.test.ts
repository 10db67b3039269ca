import { __HYPERVISOR_key_op, __HYPERVISOR_secret_op, EIO, ENOSYS, ESRCH, XENKEY_search } from "@xenolith/abi";
import {
  attachSpace,
  beginDestroy,
  beginVcpu,
  createCpu,
  createDomain,
  createTestHypervisor,
  endVcpu,
  hypercall,
  initialise,
  unpauseDomain,
} from "@xenolith/core";
import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, it } from "node:test";
import { ServiceCalls } from "../src/service-calls.ts";

/** A machine with one guest whose sleeping vCPU lets the control domain serve calls. */
const setUp = () => {
  const { hypervisor, platform } = createTestHypervisor();
  initialise(hypervisor);
  const domid = createDomain(hypervisor, { vcpus: 1 });
  const slot = hypervisor.domains.slotOf(domid);
  assert.equal(attachSpace(hypervisor, slot, 2 ** 34), 0);
  assert.equal(unpauseDomain(hypervisor, slot), 0);
  const cpu = createCpu(hypervisor, slot, 0);
  beginVcpu(cpu);
  const faults: string[] = [];
  const services = new ServiceCalls(hypervisor, (fault) => faults.push(fault));
  platform.onWait = () => services.serve();
  const call = (number = __HYPERVISOR_key_op, argument = 0): number =>
    hypercall(cpu, number, XENKEY_search, argument, 0, 0, 0);
  return { hypervisor, platform, services, faults, cpu, domid, slot, call };
};

describe("hypercalls that the control domain's thread answers", () => {
  it("go to the handler of their number, with the caller's identity", () => {
    const { services, call, domid, slot } = setUp();
    const seen: unknown[] = [];
    services.handle(__HYPERVISOR_key_op, (asked) => {
      seen.push([asked.domid, asked.slot, asked.vcpu, asked.command, asked.argument, asked.signal.aborted]);
      return 42;
    });
    assert.equal(call(__HYPERVISOR_key_op, 0xf000_0000), 42);
    assert.deepEqual(seen, [[domid, slot, 0, XENKEY_search, 0xf000_0000, false]]);
    assert.equal(services.pendingCount, 0);
  });

  it("are -ENOSYS where nobody answers that number", () => {
    const { services, call } = setUp();
    services.handle(__HYPERVISOR_key_op, () => 0);
    assert.equal(call(__HYPERVISOR_key_op), 0);
    assert.equal(call(__HYPERVISOR_secret_op), -ENOSYS);
  });

  it("are -EIO when the handler throws, and that is noted as our fault", () => {
    const { services, call, faults } = setUp();
    services.handle(__HYPERVISOR_key_op, () => {
      throw new Error("broken");
    });
    assert.equal(call(), -EIO);
    assert.deepEqual(faults, ["hypercall 49, command 2: Error: broken"]);
  });

  it("are -ESRCH, and reach no handler, once the domain is dying", () => {
    const { services, call, hypervisor, slot } = setUp();
    let calls = 0;
    services.handle(__HYPERVISOR_key_op, () => (calls += 1));
    assert.equal(call(), 1);
    const { gate } = hypervisor.vcpus;
    assert.equal(beginDestroy(hypervisor, slot), 0);
    Atomics.store(gate, hypervisor.vcpus.index(slot, 0), 0);
    assert.equal(call(), -ESRCH);
    assert.equal(calls, 1);
  });
});

describe("a call whose answer takes long", () => {
  it("is told that its domain ends, and what it answers then is nobody's", async () => {
    const { services, call, hypervisor, platform, cpu, slot, faults } = setUp();
    let settle: (value: number) => void = () => {};
    let wasAborted = false;
    services.handle(__HYPERVISOR_key_op, ({ signal }) => {
      signal.addEventListener("abort", () => (wasAborted = true));
      return new Promise((resolve) => (settle = resolve));
    });
    platform.onWait = () => {
      services.serve();
      throw new Error("the thread is ended here");
    };
    assert.throws(call);
    assert.equal(services.pendingCount, 1);
    services.abandon(slot);
    endVcpu(hypervisor, cpu.index);
    assert.deepEqual([wasAborted, services.pendingCount], [true, 0]);
    settle(7);
    await nextTurn();
    assert.deepEqual(faults, []);
    assert.equal(hypervisor.services.state[cpu.index], 0);
  });

  it("is told nothing when another vCPU or another domain ends", () => {
    const { services, call, platform, slot } = setUp();
    let signal: AbortSignal | undefined;
    services.handle(__HYPERVISOR_key_op, (asked) => {
      ({ signal } = asked);
      return new Promise(() => {});
    });
    platform.onWait = () => {
      services.serve();
      throw new Error("the thread is ended here");
    };
    assert.throws(call);
    services.abandon(slot, 1);
    services.abandon(slot + 1);
    assert.equal(signal?.aborted, false);
    services.abandon(slot, 0);
    assert.equal(signal?.aborted, true);
  });
});
