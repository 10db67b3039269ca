/**
 * Advisories about privilege, lists of calls, creation and refusals of hypercalls (docs/advisories.md, sections 4, 12).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { freeFrameCount } from "../src/buddy.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/domain-reap.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { GATE_IN, GATE_PAUSE } from "../src/gate.ts";
import { createCpu, HYPERCALL_COUNT, hypercall, hypercallTable } from "../src/hypercall.ts";
import { mapPirq, permitIrq, unmapPirq } from "../src/pirq.ts";
import { policy } from "../src/policy-table.ts";
import { mayAct } from "../src/policy.ts";
import { bindVirq } from "../src/event-ports.ts";
import { setTarget } from "../src/domain-ops.ts";
import { setVirqOwner } from "../src/virq.ts";
import { bytesOf, calls, STRUCT } from "./advisories-calls.ts";
import { randomFrom } from "./advisories-kit.ts";
import * as kit from "./events-kit.ts";
import type { Guest } from "./machine.ts";
import { Machine, peekWord, poke, pokeWords } from "./machine.ts";

const { EBUSY, EINVAL, ENOENT, ENOSYS, EPERM, ESRCH } = abi;
const LIST = 0x5000;
const ENTRY = abi.multicall_entry.sizeBytes;

/** Writes a list of calls at LIST: number and arguments of each. */
const writeList = (guest: Guest, entries: readonly (readonly number[])[]): void => {
  for (const [index, [number = 0, ...args]] of entries.entries()) {
    pokeWords(
      guest,
      LIST + index * ENTRY,
      number,
      0x7777,
      ...args,
      ...Array.from({ length: 6 - args.length }, () => 0),
    );
  }
};

/** A call in a fake world: a vCPU that would park comes back as "parked". */
const attempt = (machine: Machine, guest: Guest, number: number, ...args: readonly number[]): number | "parked" => {
  try {
    return machine.call(guest, number, ...args);
  } catch (error) {
    assert.ok(error instanceof ParkedError, String(error));
    return "parked";
  }
};

describe("lists of calls", () => {
  it("H13: the first entry that cannot be read ends the list, and its predecessors stay done (XSA-395)", () => {
    const machine = new Machine();
    const guest = kit.runningGuest(machine);
    const end = 8 * 4096;
    const from = end - 2 * ENTRY;
    const port = [abi.__HYPERVISOR_event_channel_op, 0, abi.EVTCHNOP_alloc_unbound, STRUCT, 0, 0, 0, 0];
    pokeWords(guest, STRUCT, abi.DOMID_SELF);
    pokeWords(guest, from, ...port, ...port);
    assert.equal(machine.call(guest, abi.__HYPERVISOR_multicall, from, 5), -abi.EFAULT);
    assert.equal(machine.hypervisor.events.open[guest.slot], 2);
    // As does the first extent, or page, that fails.
    pokeWords(guest, LIST, 5, 50, 6);
    pokeWords(guest, STRUCT, LIST, 3, 0, 0, abi.DOMID_SELF);
    assert.equal(machine.call(guest, abi.__HYPERVISOR_memory_op, abi.XENMEM_decrease_reservation, STRUCT), 1);
    assert.notEqual(machine.hypervisor.p2m.get(guest.slot, 6), 0);
    pokeWords(guest, STRUCT, (abi.DOMID_SELF | (3 << 16)) >>> 0, abi.XENMAPSPACE_gmfn_range, 4, 60);
    assert.equal(machine.call(guest, abi.__HYPERVISOR_memory_op, abi.XENMEM_add_to_physmap, STRUCT), -EINVAL);
    assert.notEqual(machine.hypervisor.p2m.get(guest.slot, 6), 0);
  });

  it("H04: a list goes on from where the hypervisor stood, whatever the guest writes into it meanwhile (XSA-145, XSA-296)", () => {
    const machine = new Machine();
    const { hypervisor, parts } = machine;
    const guest = kit.runningGuest(machine);
    pokeWords(guest, STRUCT, abi.DOMID_SELF);
    const entries = Array.from({ length: 100 }, () => [
      abi.__HYPERVISOR_event_channel_op,
      abi.EVTCHNOP_alloc_unbound,
      STRUCT,
    ]);
    writeList(guest, entries);
    let pauses = 0;
    const { gate } = hypervisor.vcpus;
    parts.platform.onWait = () => {
      pauses += 1;
      Atomics.and(gate, guest.cpu.index, ~GATE_PAUSE);
      // The entries that were made ask for something else now, and so do those that come.
      for (let index = 0; index < 100; index += 1) pokeWords(guest, LIST + index * ENTRY, abi.__HYPERVISOR_xen_version);
    };
    const publish = hypervisor.events.publish.bind(hypervisor.events);
    hypervisor.events.publish = (slot, port, word) => {
      publish(slot, port, word);
      if (port === 31) Atomics.or(gate, guest.cpu.index, GATE_PAUSE);
    };
    // The pause comes with the 31st port, at the end of the first slice.
    hypercall(guest.cpu, abi.__HYPERVISOR_multicall, LIST, 100, 0, 0, 0);
    assert.equal(pauses, 1);
    assert.equal(hypervisor.events.open[guest.slot], 31);
    assert.equal(gate[guest.cpu.index]! & GATE_IN, 0);
    machine.check();
    for (const cursor of [1, 2, 2 ** 10, 2 ** 25]) {
      const command = (abi.XENMEM_populate_physmap | (cursor << 6)) >>> 0;
      assert.ok([-EINVAL, -ENOSYS].includes(machine.call(guest, abi.__HYPERVISOR_memory_op, command, STRUCT)));
    }
  });
});

describe("who may do what", () => {
  it("H02: vCPU and irq numbers at the end of their range are right, one beyond is an error (XSA-16, XSA-85, XSA-475)", () => {
    const machine = new Machine();
    const guest = kit.runningGuest(machine, { vcpus: 3 });
    for (const [vcpu, isThere] of [
      [2, true],
      [3, false],
      [4, false],
      [31, false],
      [32, false],
      [2 ** 31, false],
      [2 ** 32 - 1, false],
      [-1, false],
    ] as const) {
      for (const command of [
        abi.VCPUOP_is_up,
        abi.VCPUOP_get_runstate_info,
        abi.VCPUOP_stop_periodic_timer,
        abi.VCPUOP_send_nmi,
      ]) {
        const argument = command === abi.VCPUOP_send_nmi ? 0 : STRUCT;
        const result = machine.call(guest, abi.__HYPERVISOR_vcpu_op, command, vcpu, argument);
        assert.equal(result >= 0, isThere, `command ${command} vcpu ${vcpu}: ${result}`);
        if (!isThere) assert.equal(result, -ENOENT);
      }
      const port = kit.bindIpi(guest, vcpu >>> 0);
      assert.equal(port > 0, isThere);
      assert.equal(kit.bindVirq(guest, abi.VIRQ_TIMER, vcpu >>> 0) > 0, isThere);
    }
    for (const pirq of [255, 256, 257, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(kit.bindPirq(guest, pirq), -EINVAL);
      assert.ok(kit.physdev(guest, abi.PHYSDEVOP_eoi, pirq) < 0);
      assert.equal(kit.physdev(guest, abi.PHYSDEVOP_irq_status_query, pirq, 0), pirq < 256 ? 0 : -EINVAL);
      assert.equal(unmapPirq(machine.hypervisor, guest.slot, pirq | 0), -EINVAL);
    }
    for (const virq of [23, 24, 25, 2 ** 31, 2 ** 32 - 1]) assert.ok(kit.bindVirq(guest, virq) < 0);
    machine.check();
  });

  it("W25: a right is looked at when it is used, and what was taken back is gone at once (W-25, CVE-2022-21707)", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const [guest, target] = [kit.runningGuest(machine), machine.guest()];
    permitIrq(hypervisor, guest.slot, 7, true);
    const pirq = mapPirq(hypervisor, guest.slot, 7, -1);
    assert.ok(pirq >= 0);
    assert.equal(unmapPirq(hypervisor, guest.slot, pirq), 0);
    permitIrq(hypervisor, guest.slot, 7, false);
    assert.equal(mapPirq(hypervisor, guest.slot, 7, -1), -EPERM);
    setVirqOwner(hypervisor, abi.VIRQ_CON_RING, guest.slot);
    const port = kit.bindVirq(guest, abi.VIRQ_CON_RING);
    assert.ok(port > 0);
    assert.equal(kit.close(guest, port), 0);
    setVirqOwner(hypervisor, abi.VIRQ_CON_RING, 0);
    assert.equal(kit.bindVirq(guest, abi.VIRQ_CON_RING), -EBUSY);
    assert.equal(mayAct(hypervisor, guest.slot, target.slot, "TARGET"), false, "nothing said is nothing allowed");
    assert.equal(setTarget(hypervisor, guest.slot, target.slot), 0);
    assert.ok(kit.allocUnbound(guest, 0, target.domid) > 0);
    assert.equal(beginDestroy(hypervisor, target.slot), 0);
    assert.ok(kit.allocUnbound(guest, 0, target.domid) < 0);
    assert.equal(mayAct(hypervisor, guest.slot, 0, "DM_PRIV"), false);
    assert.ok(bindVirq(hypervisor, guest.slot, abi.VIRQ_DOM_EXC, 0) < 0);
  });

  it("H24: every combination of creation flags gives a domain that works or -EINVAL (XSA-256)", () => {
    const machine = new Machine({ portsPerDomain: 32 });
    const { hypervisor, dom0 } = machine;
    const call = calls.find(({ name }) => name === "createdomain")!;
    const { createdomain } = abi.xen_domctl.u;
    let created = 0;
    const free = freeFrameCount(hypervisor);
    for (let flags = 0; flags < 1 << 10; flags += 1) {
      for (const vcpus of [0, 1, 4, 5]) {
        const bytes = bytesOf(call);
        const view = new DataView(bytes.buffer);
        createdomain.flags.set(view, 0, flags);
        createdomain.max_vcpus.set(view, 0, vcpus);
        poke(dom0, STRUCT, bytes);
        const result = hypercall(dom0.cpu, abi.__HYPERVISOR_domctl, STRUCT, 0, 0, 0, 0);
        assert.ok(result === 0 || result === -EINVAL, `flags ${flags}, ${vcpus} vCPUs: ${result}`);
        if (result !== 0) continue;
        created += 1;
        const slot = hypervisor.domains.slotOf(peekWord(dom0, STRUCT + abi.xen_domctl.domain.offset) & 0xffff);
        const cpu = createCpu(hypervisor, slot, 0);
        Atomics.store(hypervisor.vcpus.gate, cpu.index, 0);
        assert.ok(hypercall(cpu, abi.__HYPERVISOR_xen_version, abi.XENVER_version, 0, 0, 0, 0) > 0);
        assert.equal(beginDestroy(hypervisor, slot), 0);
        assert.equal(continueDestroy(hypervisor, slot), true);
        assert.equal(reapDomains(hypervisor), 0);
      }
    }
    assert.ok(created > 2 && created < 200, `${created} combinations`);
    assert.equal(freeFrameCount(hypervisor), free);
    machine.check();
  });
});

describe("calls that make no sense", () => {
  it("H27: every number and command has an answer, also those that nothing stands behind (XSA-203)", () => {
    for (const by of ["guest", "dom0"] as const) {
      for (let number = 0; number < HYPERCALL_COUNT + 2; number += 1) {
        const machine = new Machine({ portsPerDomain: 32 });
        const caller = by === "dom0" ? machine.dom0 : kit.runningGuest(machine);
        machine.parts.platform.onWait = () => {
          throw new ParkedError("asleep");
        };
        for (const command of [
          ...Array.from({ length: 70 }, (_, index) => index),
          255,
          2 ** 16,
          2 ** 31,
          2 ** 32 - 1,
        ]) {
          const result = attempt(machine, caller, number, command, 0, 0, 0, 0);
          assert.ok(result === "parked" || Number.isInteger(result), `${number} ${command}`);
          if (result === "parked") break;
          if (hypercallTable[number] === undefined) assert.ok(result === -ENOSYS || result === -EPERM);
        }
      }
    }
    assert.ok(Object.values(policy).some(({ whole }) => whole === "ABSENT"));
  });

  it("H23: a hundred thousand refused calls leave a few notes, and another domain's notes are not lost (XSA-43, XSA-96)", () => {
    const machine = new Machine({ portsPerDomain: 32 });
    const { domains } = machine.hypervisor;
    const [noisy, quiet] = [kit.runningGuest(machine), kit.runningGuest(machine)];
    domains.trace.take(noisy.slot);
    let notes = 0;
    for (let round = 0; round < 100_000; round += 1) {
      hypercall(noisy.cpu, round % 2 === 0 ? 63 : abi.__HYPERVISOR_kexec_op, round, 0, 0, 0, 0);
      if (round % 100 === 0) notes += domains.trace.take(noisy.slot).length;
    }
    notes += domains.trace.take(noisy.slot).length;
    assert.ok(notes > 0 && notes <= 16, `${notes} notes in no time at all`);
    assert.ok(domains.trace.suppressed[noisy.slot]! > 90_000);
    hypercall(quiet.cpu, 63, 0, 0, 0, 0, 0);
    assert.equal(domains.trace.take(quiet.slot).length, 1);
    machine.check();
  });

  it("W23, W21: random calls of several guests get a whole number each and leave the machine in order (W-23, W-21)", () => {
    const seed = 0x5eed_2026;
    const random = randomFrom(seed);
    const machine = new Machine({ portsPerDomain: 64 });
    const { hypervisor, parts } = machine;
    parts.platform.onWait = () => {
      throw new ParkedError("asleep");
    };
    const fresh = (): Guest => kit.runningGuest(machine, { vcpus: 2 });
    const guests = [fresh(), fresh(), fresh()];
    const hostile = [
      0,
      1,
      2,
      3,
      31,
      32,
      1023,
      0x1000,
      STRUCT,
      0x7ffc,
      0x7fff,
      0x8000,
      2 ** 31 - 1,
      2 ** 31,
      2 ** 32 - 4,
      2 ** 32 - 1,
      -1,
      -4096,
    ];
    const pick = (): number => hostile[random(hostile.length)]!;
    for (let step = 0; step < 30_000; step += 1) {
      const index = random(guests.length);
      const guest = guests[index]!;
      const call = calls[random(calls.length)]!;
      parts.platform.nowNs += random(1_000_000);
      const words = Array.from({ length: 12 }, () => (random(3) === 0 ? pick() : random(100)));
      guest.cpu.memory.copyToGuest(
        STRUCT,
        random(2) === 0 ? bytesOf(call) : new Uint8Array(Int32Array.from(words).buffer),
      );
      const address = random(4) === 0 ? pick() : STRUCT;
      const number = random(20) === 0 ? random(70) : call.number;
      let isParked = false;
      try {
        const result: unknown = hypercall(
          guest.cpu,
          number,
          call.at === 0 ? address : call.command,
          address,
          random(2) === 0 ? address : pick(),
          pick(),
          pick(),
        );
        assert.ok(Number.isInteger(result), `seed ${seed}, step ${step}`);
      } catch (error) {
        if (!(error instanceof ParkedError))
          throw new Error(`seed ${seed}, step ${step}, ${call.name}`, { cause: error });
        isParked = true;
      }
      if (isParked || random(2000) === 0) {
        Atomics.and(hypervisor.vcpus.gate, guest.cpu.index, ~GATE_IN);
        beginDestroy(hypervisor, guest.slot);
        while (!continueDestroy(hypervisor, guest.slot));
        reapDomains(hypervisor);
        guests[index] = fresh();
      }
      if (step % 500 === 0) machine.check();
    }
    for (const { slot } of guests) beginDestroy(hypervisor, slot);
    while (reapDomains(hypervisor) > 0);
    machine.check();
    assert.equal(hypervisor.domains.slotOf(guests[0]!.domid), -1, String(ESRCH));
  });
});
