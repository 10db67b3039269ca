import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hookRun, unhookRun } from "../src/address-space.ts";
import { crashReason } from "../src/domain-ops.ts";
import { pauseDomain } from "../src/domain-run.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { awaitReaders, GATE_IN, GATE_INSIDE, GATE_READ } from "../src/gate.ts";
import { hypercall } from "../src/hypercall.ts";
import { P2M_HOLE, P2M_RAM, p2mMfn } from "../src/p2m.ts";
import { policy } from "../src/policy-table.ts";
import { isQuick } from "../src/quick-call.ts";
import { ARG, connected, NOWHERE, pending, runningGuest } from "./events-kit.ts";
import { Machine, PARKED, poke, pokeWords, RAM_FRAMES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { __HYPERVISOR_event_channel_op: EVENT, __HYPERVISOR_memory_op: MEMORY } = abi;
const reservation = (machine: Machine, guest: Guest, address: number): number =>
  machine.call(guest, MEMORY, abi.XENMEM_current_reservation, address);
const domidAt = (guest: Guest, address: number, domid: number): void =>
  poke(guest, address, Uint8Array.of(domid & 0xff, domid >>> 8));

/** Changes the guest's p2m as the hypervisor does, under its lock. */
const withP2m = (machine: Machine, guest: Guest, change: () => number): void => {
  const { locks } = machine.hypervisor;
  const lock = locks.id("p2m", guest.slot);
  locks.acquire(lock);
  assert.equal(change(), 0);
  locks.release(lock);
};

/** Lets vCPU 1 of the guest read without the lock until somebody waits for it; returns how often that happened. */
const readMeanwhile = (machine: Machine, guest: Guest, seen: () => void): (() => number) => {
  const { vcpus } = machine.hypervisor;
  const index = vcpus.index(guest.slot, 1);
  let waits = 0;
  Atomics.store(vcpus.gate, index, GATE_INSIDE);
  machine.parts.platform.onWait = (wait) => {
    assert.deepEqual([wait.words, wait.index], [vcpus.gate, index]);
    assert.notEqual(wait.timeoutNs, Infinity, "a reader wakes nobody");
    seen();
    waits += 1;
    Atomics.store(vcpus.gate, index, 0);
  };
  return () => waits;
};

describe("calls that take no lock", () => {
  it("are those that every domain may make for itself", () => {
    assert.ok(isQuick(MEMORY, abi.XENMEM_current_reservation, 0));
    assert.ok(isQuick(EVENT, abi.EVTCHNOP_send, 0));
    assert.equal(policy.memory_op.commands?.[abi.XENMEM_current_reservation], "TARGET");
    assert.equal(policy.event_channel_op.commands?.[abi.EVTCHNOP_send], "HOOK");
    for (const [number, command] of [
      [MEMORY, abi.XENMEM_maximum_reservation],
      [EVENT, abi.EVTCHNOP_unmask],
      [abi.__HYPERVISOR_sched_op, abi.XENMEM_current_reservation],
    ] as const) {
      assert.ok(!isQuick(number, command, 1));
    }
  });

  it("answer as any other call, wherever their argument stands, and count once", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const other = machine.guest();
    const before = machine.hypervisor.domains.hypercallCount(guest.slot);
    for (const address of [0, 2, 0x1001, 0x1fff, 0x2ffe]) {
      domidAt(guest, address, abi.DOMID_SELF);
      assert.equal(reservation(machine, guest, address), RAM_FRAMES);
      domidAt(guest, address, guest.domid);
      assert.equal(reservation(machine, guest, address), RAM_FRAMES);
      domidAt(guest, address, other.domid);
      assert.equal(reservation(machine, guest, address), -abi.EPERM);
    }
    for (const address of [NOWHERE, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]) {
      assert.equal(reservation(machine, guest, address), -abi.EFAULT);
    }
    assert.equal(machine.hypervisor.domains.hypercallCount(guest.slot), before + 19);
    assert.equal(machine.hypervisor.vcpus.gate[guest.cpu.index], 0);
  });

  it("send through a port that stands across two pages", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    pokeWords(first, ARG + 4094, a);
    assert.equal(machine.call(first, EVENT, abi.EVTCHNOP_send, ARG + 4094), 0);
    assert.ok(pending(second, b));
    assert.equal(machine.call(first, EVENT, abi.EVTCHNOP_send, NOWHERE), -abi.EFAULT);
    pokeWords(first, ARG, 0xffff_ffff);
    assert.equal(machine.call(first, EVENT, abi.EVTCHNOP_send, ARG), -abi.EINVAL);
    assert.equal(machine.hypervisor.vcpus.gate[first.cpu.index], 0);
  });

  it("park at the gate as others do", () => {
    const machine = new Machine();
    machine.keepAwake();
    const guest = machine.guest();
    domidAt(guest, 0, abi.DOMID_SELF);
    pauseDomain(machine.hypervisor, guest.slot);
    assert.equal(reservation(machine, guest, 0), PARKED);
  });

  it("are waited for by whoever takes a page away, when it can no longer be found", () => {
    const machine = new Machine();
    const guest = machine.guest({ vcpus: 2 });
    const { hypervisor } = machine;
    const { p2m } = hypervisor;
    const mfn = p2mMfn(p2m.get(guest.slot, 3));
    const unhooked = readMeanwhile(machine, guest, () => assert.equal(p2m.get(guest.slot, 3), P2M_HOLE));
    withP2m(machine, guest, () => unhookRun(hypervisor, guest.slot, 3, 1));
    assert.equal(unhooked(), 1);
    const hooked = readMeanwhile(machine, guest, () => assert.fail("nothing was taken away"));
    withP2m(machine, guest, () => hookRun(hypervisor, guest.slot, 3, mfn, 1, P2M_RAM));
    assert.equal(hooked(), 0);
    Atomics.store(hypervisor.vcpus.gate, hypervisor.vcpus.index(guest.slot, 1), 0);
    withP2m(machine, guest, () => unhookRun(hypervisor, guest.slot, 3, 1));
    const displaced = readMeanwhile(machine, guest, () => assert.equal(p2mMfn(p2m.get(guest.slot, 4)), mfn));
    withP2m(machine, guest, () => hookRun(hypervisor, guest.slot, 4, mfn, 1, P2M_RAM));
    assert.equal(displaced(), 1);
  });

  it("that come later are not waited for, nor is who is inside for another reason", () => {
    const machine = new Machine();
    const guest = machine.guest({ vcpus: 2 });
    const { gate } = machine.hypervisor.vcpus;
    machine.parts.platform.onWait = () => assert.fail("waits for nobody");
    Atomics.store(gate, guest.cpu.index, GATE_IN);
    awaitReaders(gate, guest.cpu.index, 2, machine.parts.platform);
    Atomics.store(gate, guest.cpu.index + 2, GATE_READ | GATE_IN);
    awaitReaders(gate, guest.cpu.index, 2, machine.parts.platform);
  });
});

describe("an exception inside the hypervisor", () => {
  const broken = (machine: Machine): void => {
    machine.parts.mmu.map = () => {
      throw new TypeError("a test's fault");
    };
  };
  const populate = (guest: Guest): number => {
    const bytes = new Uint8Array(abi.xen_memory_reservation.sizeBytes);
    const view = new DataView(bytes.buffer);
    abi.xen_memory_reservation.extent_start.set(view, 0, ARG + 64);
    abi.xen_memory_reservation.nr_extents.set(view, 0, 1);
    abi.xen_memory_reservation.domid.set(view, 0, abi.DOMID_SELF);
    poke(guest, ARG, bytes);
    pokeWords(guest, ARG + 64, RAM_FRAMES + 2);
    return hypercall(guest.cpu, MEMORY, abi.XENMEM_populate_physmap, ARG, 0, 0, 0);
  };

  it("ends the guest's domain with a reason, and leaves no lock and no gate held", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const { domains, locks, vcpus } = machine.hypervisor;
    broken(machine);
    assert.throws(() => populate(guest), ParkedError);
    assert.equal(domains.stateOf(guest.slot), "shutdown");
    assert.match(crashReason(machine.hypervisor, guest.slot), /fault in a hypercall: TypeError: a test's fault/);
    assert.equal(vcpus.gate[guest.cpu.index]! & GATE_INSIDE, 0);
    assert.equal(locks.heldCount, 0);
    for (const number of [MEMORY, EVENT, abi.__HYPERVISOR_sched_op]) {
      assert.throws(() => hypercall(guest.cpu, number, 0, 0, 0, 0, 0), ParkedError, "it does not spin");
    }
  });

  it("is thrown to dom0, which can go on", () => {
    const machine = new Machine();
    pokeWords(machine.dom0, ARG, 1);
    const { events } = machine.hypervisor;
    events.peek = () => assert.fail("a test's fault");
    const send = (): number => hypercall(machine.dom0.cpu, EVENT, abi.EVTCHNOP_send, ARG, 0, 0, 0);
    assert.throws(send, /a test's fault/);
    assert.ok(Reflect.deleteProperty(events, "peek"));
    assert.equal(send(), -abi.EINVAL, "there is no such port");
    assert.equal(machine.hypervisor.locks.heldCount, 0);
    assert.equal(machine.hypervisor.vcpus.gate[machine.dom0.cpu.index], 0);
    assert.equal(hypercall(machine.dom0.cpu, MEMORY, abi.XENMEM_maximum_ram_page, 0, 0, 0, 0), 499);
  });

  it("while an event is sent ends the domain too", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a } = connected(machine, first, second);
    pokeWords(first, ARG, a);
    machine.hypervisor.events.peek = () => assert.fail("a test's fault");
    assert.throws(() => hypercall(first.cpu, EVENT, abi.EVTCHNOP_send, ARG, 0, 0, 0), ParkedError);
    assert.equal(machine.hypervisor.domains.stateOf(first.slot), "shutdown");
    assert.equal(machine.hypervisor.vcpus.gate[first.cpu.index]! & GATE_INSIDE, 0);
  });
});
