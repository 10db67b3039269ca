/**
 * Events of domains whose code is the host's: dom0 takes what is pending for it, with late EOI.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_EVENT } from "../src/attention.ts";
import { audit } from "../src/auditor.ts";
import { maskPort, takePending, unmaskPort } from "../src/event-delivery.ts";
import { allocatePort, closeAnyPort } from "../src/event-ports.ts";
import { closeAllPorts, openPortCount, resetEvents } from "../src/event-reset.ts";
import { portWord } from "../src/event-table.ts";
import { EventThrottle } from "../src/event-throttle.ts";
import { mapPirq, permitIrq } from "../src/pirq.ts";
import { serviceTimers } from "../src/timer-service.ts";
import * as kit from "./events-kit.ts";
import { Machine } from "./machine.ts";

/** dom0 with channels to a guest; `ports` are pairs of the guest's and dom0's. */
const world = (count: number) => {
  const machine = new Machine();
  const guest = kit.runningGuest(machine);
  const ports = Array.from({ length: count }, () => kit.connected(machine, guest, machine.dom0));
  machine.hypervisor.attention.take();
  return { machine, hypervisor: machine.hypervisor, guest, ports };
};

/** Takes up to `room` pending ports of dom0. */
const take = (machine: Machine, room = 64): number[] => {
  const ports = new Uint16Array(room);
  return [...ports.subarray(0, takePending(machine.hypervisor, 0, 0, ports))];
};

describe("dom0's events", () => {
  it("raise its attention and are taken once", () => {
    const { machine, hypervisor, guest, ports } = world(40);
    for (const { a } of ports) kit.send(guest, a);
    assert.equal(hypervisor.attention.take() & ATTENTION_EVENT, ATTENTION_EVENT);
    const expected = ports.map(({ b }) => b);
    assert.deepEqual(
      take(machine).toSorted((x, y) => x - y),
      expected,
    );
    assert.deepEqual(take(machine), []);
    assert.equal(hypervisor.attention.take(), 0);
  });

  it("that find no room stay pending, and attention is raised again", () => {
    const { machine, hypervisor, guest, ports } = world(70);
    for (const { a } of ports) kit.send(guest, a);
    const taken: number[] = [];
    for (let turn = 0; turn < 10; turn += 1) {
      if ((hypervisor.attention.take() & ATTENTION_EVENT) === 0) continue;
      taken.push(...take(machine, 16));
    }
    assert.deepEqual(
      taken.toSorted((x, y) => x - y),
      ports.map(({ b }) => b),
    );
  });

  it("of a masked port wait until it is unmasked", () => {
    const { machine, hypervisor, guest, ports } = world(1);
    const { a, b } = ports[0]!;
    maskPort(hypervisor, 0, b);
    kit.send(guest, a);
    assert.deepEqual([hypervisor.attention.take(), take(machine)], [0, []]);
    assert.equal(unmaskPort(hypervisor, 0, b), 0);
    assert.equal(hypervisor.attention.take(), ATTENTION_EVENT);
    assert.deepEqual(take(machine), [b]);
  });

  it("E16: with late EOI a guest that floods is handled a few times, one that works every time (XSA-332)", () => {
    const { machine, hypervisor, guest, ports } = world(2);
    const [flood, work] = [ports[0]!, ports[1]!];
    const throttle = new EventThrottle(1024);
    const handled = new Map<number, number>();
    for (let now = 0; now < 100_000_000; now += 100_000) {
      for (let due = throttle.takeDue(now); due >= 0; due = throttle.takeDue(now)) unmaskPort(hypervisor, 0, due);
      kit.send(guest, flood.a);
      kit.send(guest, work.a);
      for (const port of take(machine)) {
        maskPort(hypervisor, 0, port);
        throttle.begin(port);
        handled.set(port, (handled.get(port) ?? 0) + 1);
        if (throttle.end(port, port === work.b, now)) unmaskPort(hypervisor, 0, port);
      }
    }
    assert.equal(handled.get(work.b), 1000);
    assert.ok(handled.get(flood.b)! < 12, `${handled.get(flood.b)} times`);
    machine.check();
  });
});

describe("ports that the hypervisor consumes", () => {
  it("cannot be sent on, moved or closed by the guest, and survive its reset, but not its end", () => {
    const { machine, hypervisor, guest } = world(0);
    const port = allocatePort(hypervisor, guest.slot, portWord(abi.EVTCHNSTAT_unbound, 0, 0, true));
    kit.allocUnbound(guest, 0);
    assert.deepEqual(
      [kit.send(guest, port), kit.close(guest, port), kit.bindVcpu(guest, port, 0)],
      [-abi.EINVAL, -abi.EINVAL, -abi.EINVAL],
    );
    assert.equal(resetEvents(hypervisor, guest.slot), 0);
    assert.deepEqual([hypervisor.events.open[guest.slot], openPortCount(hypervisor, guest.slot)], [1, 0]);
    machine.check();
    const peer = kit.bindInterdomain(machine.dom0, guest.domid, port);
    assert.ok(peer > 0);
    assert.equal(kit.send(guest, port), -abi.EINVAL);
    assert.equal(closeAnyPort(hypervisor, 0, peer), 0);
    machine.check();
    assert.equal(closeAllPorts(hypervisor, guest.slot), true);
    assert.equal(hypervisor.events.open[guest.slot], 0);
  });

  it("closing all ports keeps to its budget", () => {
    const { machine, hypervisor, guest } = world(0);
    for (let port = 1; port <= 10; port += 1) kit.allocUnbound(guest, 0);
    assert.equal(closeAllPorts(hypervisor, guest.slot, 4), false);
    assert.equal(hypervisor.events.open[guest.slot], 6);
    machine.check();
    assert.equal(closeAllPorts(hypervisor, guest.slot, 4), false);
    assert.equal(closeAllPorts(hypervisor, guest.slot, 4), true);
  });
});

describe("the auditor", () => {
  /** Spoils one thing in a world that was clean, and returns what the auditor says about it. */
  const spoiled = (spoil: (about: ReturnType<typeof world>) => void): string[] => {
    const about = world(1);
    permitIrq(about.hypervisor, about.guest.slot, 20, true);
    mapPirq(about.hypervisor, about.guest.slot, 20, -1);
    kit.bindPirq(about.guest, 20);
    kit.bindVirq(about.guest, abi.VIRQ_TIMER);
    kit.bindIpi(about.guest, 0);
    about.machine.check();
    spoil(about);
    return audit(about.hypervisor);
  };
  const cases: Readonly<Record<string, (about: ReturnType<typeof world>) => void>> = {
    "a peer that does not name it": ({ hypervisor, ports }) =>
      hypervisor.events.word.fill(0, ports[0]!.b, ports[0]!.b + 1),
    "a count that is wrong": ({ hypervisor, guest }) => hypervisor.events.open.fill(9, guest.slot, guest.slot + 1),
    "a count of consumed ports that is wrong": ({ hypervisor }) => hypervisor.events.xenOpen.fill(1, 0, 1),
    "a hint above a free port": ({ hypervisor, guest }) =>
      hypervisor.events.freeHint.fill(99, guest.slot, guest.slot + 1),
    "a virq that names another's port": ({ hypervisor, guest }) => {
      hypervisor.events.virqPort[hypervisor.events.virqRow(guest.slot, 0, abi.VIRQ_DEBUG)] = 1;
    },
    "a virq port that no virq names": ({ hypervisor, guest }) => {
      hypervisor.events.virqPort[hypervisor.events.virqRow(guest.slot, 0, abi.VIRQ_TIMER)] = 0;
    },
    "a pirq that is bound and not mapped": ({ hypervisor, guest }) => {
      hypervisor.pirqs.irq[hypervisor.pirqs.row(guest.slot, 20)] = 0;
    },
    "a pirq that no port has": ({ hypervisor, guest }) => {
      hypervisor.pirqs.port[hypervisor.pirqs.row(guest.slot, 20)] = 0;
    },
    "an irq that is mapped twice": ({ hypervisor, guest }) => {
      hypervisor.pirqs.irq[hypervisor.pirqs.row(guest.slot, 21)] = 21;
    },
    "a vCPU that polls and does not block": ({ hypervisor, guest }) => {
      hypervisor.events.pollMask[guest.slot] = 1;
    },
    "a vCPU that waits and does not block": ({ hypervisor, guest }) => {
      hypervisor.vcpus.futexMask[guest.slot] = 1;
    },
    "a vcpu_info that is nowhere": ({ hypervisor, guest }) => {
      hypervisor.vcpus.vcpuInfo[guest.cpu.index] = 4096;
    },
    "a vcpu_info in a frame of somebody else": ({ hypervisor, guest }) => {
      hypervisor.vcpus.infoFrame[guest.cpu.index] = hypervisor.domains.sharedInfo[0]!;
    },
    "a port that notifies a vCPU that is not there": ({ hypervisor, guest }) => {
      const word = hypervisor.events.load(guest.slot, 1);
      hypervisor.events.word[guest.slot * 1024 + 1] = word | (3 << 4);
    },
    "an owner of a global virq that does not exist": ({ hypervisor }) => {
      hypervisor.events.virqOwner[abi.VIRQ_CON_RING] = 7;
    },
  };
  for (const [name, spoil] of Object.entries(cases)) {
    it(`finds ${name}`, () => assert.notDeepEqual(spoiled(spoil), []));
  }

  it("finds nothing where nothing was spoiled", () =>
    assert.deepEqual(
      spoiled(() => undefined),
      [],
    ));
});

describe("timer service", () => {
  it("called too early it looks at nothing and says when it will", () => {
    const { machine, hypervisor } = world(0);
    machine.parts.platform.nowNs = 1_000_000;
    assert.equal(serviceTimers(hypervisor), Infinity);
    machine.parts.platform.nowNs += 1;
    assert.equal(serviceTimers(hypervisor), 1_200_000);
  });
});
