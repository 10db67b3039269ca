/**
 * Advisories about event channels that change hands while others use them (docs/advisories.md, section 2).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { sendPort, setPending, unmaskPort } from "../src/event-delivery.ts";
import {
  allocateUnbound,
  bindInterdomain as bindPorts,
  bindVirq as bindVirqPort,
  closePort,
} from "../src/event-ports.ts";
import {
  beginReset,
  closeAllPorts,
  continueReset,
  openPortCount,
  RESET_MORE,
  resetEvents,
} from "../src/event-reset.ts";
import { portKind } from "../src/event-table.ts";
import { hypercall } from "../src/hypercall.ts";
import { raiseVirq } from "../src/virq.ts";
import { interleave, otherThread } from "./advisories-kit.ts";
import * as kit from "./events-kit.ts";
import { Machine, poke } from "./machine.ts";

const { EBUSY, EINVAL } = abi;

/** A guest with two vCPUs and ports of every kind, and a peer that it is connected with. */
const busyPair = () => {
  const machine = new Machine({ portsPerDomain: 32 });
  const guest = kit.runningGuest(machine, { vcpus: 2 });
  const peer = kit.runningGuest(machine);
  const { a, b } = kit.connected(machine, guest, peer);
  const timer = kit.bindVirq(guest, abi.VIRQ_TIMER);
  const ipi = kit.bindIpi(guest, 1);
  const spare = kit.allocUnbound(guest, peer.domid);
  const offered = kit.allocUnbound(peer, guest.domid);
  const thread = otherThread(machine.parts);
  return { machine, hypervisor: machine.hypervisor, guest, peer, a, b, timer, ipi, spare, offered, thread };
};
type Pair = ReturnType<typeof busyPair>;

/** What others may do at any moment: the guest's second vCPU and the peer. */
const meddling: Readonly<Record<string, (pair: Pair) => void>> = {
  "the other vCPU allocates": ({ thread, guest, peer }) => void allocateUnbound(thread, guest.slot, peer.domid),
  "the other vCPU binds": ({ thread, guest, peer, offered }) => void bindPorts(thread, guest.slot, peer.domid, offered),
  "the other vCPU binds a virq": ({ thread, guest }) => void bindVirqPort(thread, guest.slot, abi.VIRQ_DEBUG, 1),
  "the other vCPU closes": ({ thread, guest, a }) => void closePort(thread, guest.slot, a),
  "the peer binds": ({ thread, guest, peer, spare }) => void bindPorts(thread, peer.slot, guest.domid, spare),
  "the peer closes": ({ thread, peer, b }) => void closePort(thread, peer.slot, b),
  "the peer resets": ({ thread, peer }) => void resetEvents(thread, peer.slot),
  "dom0 closes all": ({ thread, peer }) => void closeAllPorts(thread, peer.slot),
};

describe("event channels: what happens at the same time", () => {
  for (const [name, meddle] of Object.entries(meddling)) {
    it(`E09: a reset that succeeds leaves no port of the guest open, while ${name} (XSA-343)`, () => {
      const points = interleave(() => {
        const pair = busyPair();
        let result = 1;
        return {
          hypervisor: pair.hypervisor,
          victim: () => (result = resetEvents(pair.hypervisor, pair.guest.slot)),
          adversary: () => meddle(pair),
          verify: () => {
            assert.ok(result === 0 || result === -abi.EAGAIN, `result ${result}`);
            if (result === 0) assert.equal(openPortCount(pair.hypervisor, pair.guest.slot), 0);
            assert.equal(resetEvents(pair.hypervisor, pair.guest.slot), 0);
            assert.equal(openPortCount(pair.hypervisor, pair.guest.slot), 0);
            pair.machine.check();
          },
        };
      });
      assert.ok(points > 5);
    });
  }

  it("E06: close, send and unmask of a port answer an error at worst while a reset removes it (XSA-338)", () => {
    const operations: Readonly<Record<string, (pair: Pair) => number>> = {
      close: ({ hypervisor, guest, a }) => closePort(hypervisor, guest.slot, a),
      send: ({ hypervisor, guest, a }) => sendPort(hypervisor, guest.slot, a),
      "send of an ipi": ({ hypervisor, guest, ipi }) => sendPort(hypervisor, guest.slot, ipi),
      "send by the peer": ({ hypervisor, peer, b }) => sendPort(hypervisor, peer.slot, b),
      unmask: ({ hypervisor, guest, a }) => {
        kit.setMask(guest, a, true);
        setPending(hypervisor, guest.slot, a);
        return unmaskPort(hypervisor, guest.slot, a);
      },
    };
    for (const [name, operation] of Object.entries(operations)) {
      interleave(() => {
        const pair = busyPair();
        let result = 1;
        return {
          hypervisor: pair.hypervisor,
          victim: () => (result = operation(pair)),
          adversary: () => assert.equal(resetEvents(pair.thread, pair.guest.slot), 0),
          verify: () => {
            assert.ok(result === 0 || result === -EINVAL, `${name}: ${result}`);
            assert.equal(openPortCount(pair.hypervisor, pair.guest.slot), 0);
          },
        };
      });
    }
  });

  it("E18: a port that is closed and taken again belongs to the new binding only (CVE-2024-26687)", () => {
    interleave(() => {
      const pair = busyPair();
      const { hypervisor, guest, thread, timer } = pair;
      let bound = 0;
      return {
        hypervisor,
        victim: () => assert.equal(closePort(hypervisor, guest.slot, timer), 0),
        adversary: () => (bound = bindVirqPort(thread, guest.slot, abi.VIRQ_TIMER, 0)),
        verify: () => {
          if (bound < 0) {
            assert.equal(bound, -abi.EEXIST);
            bound = bindVirqPort(hypervisor, guest.slot, abi.VIRQ_TIMER, 0);
          }
          kit.settle(guest);
          raiseVirq(hypervisor, guest.slot, abi.VIRQ_TIMER, 0);
          assert.ok(kit.pending(guest, bound));
          assert.equal(portKind(hypervisor.events.load(guest.slot, bound)), abi.EVTCHNSTAT_virq);
        },
      };
    });
  });

  it("E10: a reset works in slices, refuses a second one meanwhile, and ends as an unsliced one does (XSA-344)", () => {
    const build = () => {
      const machine = new Machine();
      const [guest, peer] = [kit.runningGuest(machine), kit.runningGuest(machine)];
      for (let count = 0; count < 400; count += 1) {
        const port = allocateUnbound(machine.hypervisor, guest.slot, peer.domid);
        assert.ok(bindPorts(machine.hypervisor, peer.slot, guest.domid, port) > 0);
      }
      return { machine, guest, peer };
    };
    const whole = build();
    assert.equal(kit.reset(whole.guest), 0);
    const sliced = build();
    const { hypervisor } = sliced.machine;
    assert.equal(beginReset(hypervisor, sliced.guest.slot), 0);
    let slices = 0;
    for (let result = RESET_MORE; result === RESET_MORE; slices += 1) {
      const open = openPortCount(hypervisor, sliced.guest.slot);
      assert.equal(beginReset(hypervisor, sliced.guest.slot), -EBUSY);
      assert.equal(kit.reset(sliced.guest), -EBUSY);
      result = continueReset(hypervisor, sliced.guest.slot, 16);
      assert.ok(open - openPortCount(hypervisor, sliced.guest.slot) <= 16);
      sliced.machine.check();
    }
    assert.ok(slices >= 400 / 16);
    assert.deepEqual(hypervisor.events.word, whole.machine.hypervisor.events.word);
  });

  it("E17: nobody is told anything while a lock is held that the telling might need (XSA-441)", () => {
    const machine = new Machine();
    const { hypervisor, dom0 } = machine;
    const guest = kit.runningGuest(machine, { vcpus: 2 });
    const { a, b } = kit.connected(machine, guest, dom0);
    const log = kit.allocUnbound(guest, 0);
    const sink = kit.bindInterdomain(dom0, guest.domid, log);
    let told = 0;
    // The log of the control domain is itself a channel to the guest whose channel is being closed.
    machine.parts.platform.ringDoorbell = () => {
      told += 1;
      assert.equal(hypervisor.locks.heldCount, 0);
      hypervisor.attention.take();
      hypervisor.consoles.take(guest.slot);
      assert.ok([0, -EINVAL].includes(sendPort(hypervisor, 0, sink)));
      closePort(hypervisor, 0, b);
    };
    hypervisor.attention.take();
    kit.settle(dom0);
    kit.send(guest, a);
    poke(guest, kit.SPARE, new TextEncoder().encode("closing\n"));
    assert.equal(hypercall(guest.cpu, abi.__HYPERVISOR_console_io, abi.CONSOLEIO_write, 8, kit.SPARE, 0, 0), 0);
    kit.settle(dom0);
    kit.close(guest, a);
    kit.reset(guest);
    kit.sched(guest, abi.SCHEDOP_shutdown_code, 1);
    assert.ok(told >= 2, `told ${told} times`);
    machine.check();
  });
});
