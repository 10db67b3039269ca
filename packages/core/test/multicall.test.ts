import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { beginDestroy } from "../src/domain-reap.ts";
import { pauseDomain } from "../src/domain-run.ts";
import { Machine, PARKED, peekWord, pokeWords, RAM_BYTES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { EAGAIN, EFAULT, EINVAL, ENOSYS, EPERM } = abi;
const LIST = 0x1000;
const ARG = 0x3000;
const MULTICALL = abi.__HYPERVISOR_multicall;
const UNTOUCHED = 0x5a5a;

type Call = readonly [number, ...number[]];

const writeList = (guest: Guest, calls: readonly Call[], at = LIST): void => {
  for (const [index, [number, ...args]] of calls.entries()) {
    const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = args;
    pokeWords(guest, at + index * 32, number, UNTOUCHED, a, b, c, d, e, f);
  }
};

const results = (guest: Guest, count: number, at = LIST): number[] =>
  Array.from({ length: count }, (_, index) => peekWord(guest, at + index * 32 + 4));

const pageSize: Call = [abi.__HYPERVISOR_xen_version, abi.XENVER_pagesize, 0];
const allocPort: Call = [abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_alloc_unbound, ARG];

describe("multicall", () => {
  it("each entry gets the result of its own call, failures included, and the whole returns 0", () => {
    const machine = new Machine();
    const guest = machine.guest();
    pokeWords(guest, ARG, abi.DOMID_SELF);
    writeList(guest, [pageSize, [63], [12, 40], allocPort, [36, ARG], [18, 0, 2 ** 31, 0]]);
    assert.equal(machine.call(guest, MULTICALL, LIST, 6), 0);
    assert.deepEqual(results(guest, 6), [4096, -ENOSYS, -ENOSYS, 0, -abi.EACCES, -abi.E2BIG]);
  });

  it("an empty list is done at once, wherever it is", () => {
    const machine = new Machine();
    assert.equal(machine.call(machine.guest(), MULTICALL, 0xffff_fff0, 0), 0);
  });

  it("a list in a list is refused, the rest of the list is made", () => {
    const machine = new Machine();
    const guest = machine.guest();
    writeList(guest, [[MULTICALL, LIST, 1], pageSize]);
    assert.equal(machine.call(guest, MULTICALL, LIST, 2), 0);
    assert.deepEqual(results(guest, 2), [-EINVAL, 4096]);
  });

  it("privilege is checked for each entry", () => {
    const machine = new Machine();
    const guest = machine.guest();
    writeList(guest, [[abi.__HYPERVISOR_memory_op, abi.XENMEM_claim_pages, ARG], pageSize]);
    assert.equal(machine.call(guest, MULTICALL, LIST, 2), 0);
    assert.deepEqual(results(guest, 2), [-EPERM, 4096]);
  });

  it("H04: counts and addresses that no list can have are refused before any call is made", () => {
    const machine = new Machine();
    const guest = machine.guest();
    writeList(guest, [pageSize]);
    for (const [list, count] of [
      [LIST, 2 ** 27],
      [LIST, 2 ** 32 - 1],
      [LIST, -1],
      [0xffff_ffe1, 1],
      [-1, 1],
    ] as const) {
      assert.equal(machine.call(guest, MULTICALL, list, count), -EFAULT);
      assert.deepEqual(results(guest, 1), [UNTOUCHED]);
    }
  });

  it("a list that leaves memory is made up to there", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const at = RAM_BYTES - 64;
    writeList(guest, [pageSize, pageSize], at);
    assert.equal(machine.call(guest, MULTICALL, at, 3), -EFAULT);
    assert.deepEqual(results(guest, 2, at), [4096, 4096]);
  });

  it("arguments that entries do not use may hold anything", () => {
    const machine = new Machine();
    const guest = machine.guest();
    pokeWords(guest, LIST, abi.__HYPERVISOR_xen_version, UNTOUCHED, abi.XENVER_version, -1, -1, -1, -1, -1);
    assert.equal(machine.call(guest, MULTICALL, LIST, 1), 0);
    assert.deepEqual(results(guest, 1), [0x0004_0016]);
  });

  it("H04: an entry that the guest rewrites while the list runs is read once, when its turn comes", () => {
    const machine = new Machine();
    const guest = machine.guest();
    // The first entry writes its 16-byte reply over the second one: op 0, a hypercall that does not exist here.
    writeList(guest, [[abi.__HYPERVISOR_xen_version, abi.XENVER_guest_handle, LIST + 32], pageSize, pageSize]);
    assert.equal(machine.call(guest, MULTICALL, LIST, 3), 0);
    assert.deepEqual(results(guest, 3), [0, -ENOSYS, 4096]);
  });

  for (const [name, element] of [
    ["a reset of the own event channels", [abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_reset, ARG]],
    ["a shutdown", [abi.__HYPERVISOR_sched_op, abi.SCHEDOP_shutdown, ARG + 8]],
    ["a crash of the caller", [abi.__HYPERVISOR_sched_op, abi.SCHEDOP_shutdown, ARG + 12]],
  ] as const satisfies readonly (readonly [string, Call])[]) {
    it(`H05: after ${name} no entry is made; those that follow get -EAGAIN`, () => {
      const machine = new Machine();
      machine.keepAwake();
      const guest = machine.guest();
      pokeWords(guest, ARG, abi.DOMID_SELF, 0, abi.SHUTDOWN_suspend, abi.SHUTDOWN_crash);
      writeList(guest, [pageSize, element, allocPort, pageSize]);
      const result = machine.call(guest, MULTICALL, LIST, 4);
      assert(result === 0 || result === PARKED);
      assert.deepEqual(results(guest, 4), [4096, 0, -EAGAIN, -EAGAIN]);
      assert.equal(machine.hypervisor.events.open[guest.slot], 0);
    });
  }

  it("H05: a vCPU that is asked to pause or to stop during a list makes no further entry", () => {
    for (const ask of [pauseDomain, beginDestroy]) {
      const machine = new Machine();
      machine.keepAwake();
      const guest = machine.guest();
      // Printing a line rings the doorbell: the control domain acts while the vCPU is in the middle of its list.
      machine.parts.platform.ringDoorbell = () => void ask(machine.hypervisor, guest.slot);
      machine.hypervisor.attention.take();
      pokeWords(guest, ARG, 0x0a41);
      writeList(guest, [[abi.__HYPERVISOR_console_io, abi.CONSOLEIO_write, 2, ARG], pageSize]);
      const result = machine.call(guest, MULTICALL, LIST, 2);
      assert.equal(result, PARKED);
      assert.deepEqual(results(guest, 2), [0, -EAGAIN]);
    }
  });
});
