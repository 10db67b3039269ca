/**
 * Advisories about event channels (docs/advisories.md, section 2).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { hookRun, unhookRun } from "../src/address-space.ts";
import { isPending, sendPort } from "../src/event-delivery.ts";
import { bindVirq as bindVirqPort } from "../src/event-ports.ts";
import { beginReset, continueReset, RESET_MORE } from "../src/event-reset.ts";
import { hypercall } from "../src/hypercall.ts";
import { P2M_RAM, P2M_RAM_RO } from "../src/p2m.ts";
import { mapPirq, permitIrq } from "../src/pirq.ts";
import { raiseGlobalVirq, raiseVirq } from "../src/virq.ts";
import * as kit from "./events-kit.ts";
import type { Guest } from "./machine.ts";
import { Machine, poke } from "./machine.ts";

const { EBUSY, EFAULT, EINVAL, ENOSPC, EOPNOTSUPP, EPERM } = abi;

/** All port words of all domains. */
const portWords = (machine: Machine): Int32Array => machine.hypervisor.events.word.slice();

/** Makes the guest's page at `address` read-only, or writable again. */
const setWritable = (guest: Guest, address: number, isWritable: boolean): void => {
  const { hypervisor } = guest.cpu;
  const gfn = address / 4096;
  const lock = hypervisor.locks.id("p2m", guest.slot);
  hypervisor.locks.acquire(lock);
  const mfn = hypervisor.p2m.get(guest.slot, gfn) >>> 4;
  assert.equal(unhookRun(hypervisor, guest.slot, gfn, 1), 0);
  assert.equal(hookRun(hypervisor, guest.slot, gfn, mfn, 1, isWritable ? P2M_RAM : P2M_RAM_RO), 0);
  hypervisor.locks.release(lock);
};

/** Makes an event hypercall with its argument where the guest cannot be written to. */
const withReadOnlyArgument = (guest: Guest, command: number, ...words: readonly number[]): number => {
  const bytes = new Uint8Array(Uint32Array.from([...words, 0, 0, 0, 0, 0, 0]).buffer);
  poke(guest, kit.SPARE, bytes);
  setWritable(guest, kit.SPARE, false);
  const result = hypercall(guest.cpu, abi.__HYPERVISOR_event_channel_op, command, kit.SPARE, 0, 0, 0);
  setWritable(guest, kit.SPARE, true);
  return result;
};

describe("event channels: refusals leave nothing behind", () => {
  it("E01: a refused bind publishes nothing, and its port serves the next call (XSA-47)", () => {
    const machine = new Machine();
    const [a, b, c] = [kit.runningGuest(machine), kit.runningGuest(machine), kit.runningGuest(machine)];
    const reserved = kit.allocUnbound(a, c.domid);
    const before = portWords(machine);
    const refusals: readonly [() => number, number][] = [
      [() => kit.bindInterdomain(b, a.domid, reserved), -EINVAL],
      [() => kit.bindInterdomain(b, a.domid, reserved + 1), -EINVAL],
      [() => kit.bindVirq(b, abi.VIRQ_DOM_EXC), -EBUSY],
      [() => kit.bindVirq(b, abi.VIRQ_DEBUG, 1), -abi.ENOENT],
      [() => kit.bindPirq(b, 20), -EINVAL],
      [() => kit.bindIpi(b, 1), -abi.ENOENT],
      [() => kit.allocUnbound(b, c.domid, a.domid), -EPERM],
    ];
    for (const [call, expected] of refusals) {
      assert.equal(call(), expected);
      assert.deepEqual(portWords(machine), before);
      assert.equal(kit.send(b, 1), -EINVAL);
      machine.check();
    }
    assert.equal(kit.allocUnbound(b, a.domid), 1);
    assert.equal(kit.send(b, 1), 0);
    assert.ok(kit.bindInterdomain(c, a.domid, reserved) > 0);
  });

  it("E14: a vcpu_info that is misaligned or leaves its page is refused, and the old one stays in use (XSA-327)", () => {
    const machine = new Machine();
    const guest = kit.runningGuest(machine);
    const port = kit.bindIpi(guest, 0);
    const at = machine.hypervisor.vcpus.vcpuInfo[guest.cpu.index];
    const gfn = kit.SPARE / 4096;
    for (const offset of [1, 2, 3, 63, 4096 - 63, 4096 - 60, 4095, 4096, 4097, 2 ** 31, 2 ** 32 - 4, 2 ** 32 - 1]) {
      const result = kit.vcpuOp(guest, abi.VCPUOP_register_vcpu_info, 0, gfn, 0, offset, 0);
      assert.ok(result === -abi.ENXIO || result === -EINVAL, `offset ${offset}: ${result}`);
      assert.equal(machine.hypervisor.vcpus.vcpuInfo[guest.cpu.index], at);
      machine.check();
    }
    for (const [low, high] of [
      [8, 0],
      [1024, 0],
      [2 ** 32 - 1, 0],
      [gfn, 1],
      [2 ** 32 - 1, 2 ** 32 - 1],
    ] as const) {
      assert.equal(kit.vcpuOp(guest, abi.VCPUOP_register_vcpu_info, 0, low, high, 0, 0), -EINVAL, `${high}:${low}`);
    }
    assert.equal(kit.vcpuOp(guest, abi.VCPUOP_register_vcpu_info, 0, gfn, 0, 4096 - 64, 0), 0);
    kit.settle(guest);
    assert.equal(kit.send(guest, port), 0);
    assert.ok(kit.upcallPending(guest));
    machine.check();
  });

  it("E12: a virq that cannot be bound takes nobody else's virq away (XSA-496)", () => {
    const machine = new Machine();
    const { hypervisor, dom0 } = machine;
    const watched = bindVirqPort(hypervisor, 0, abi.VIRQ_DOM_EXC, 0);
    assert.ok(watched > 0);
    const guest = kit.runningGuest(machine, { portMax: 3 });
    for (let port = 1; port <= 3; port += 1) assert.equal(kit.allocUnbound(guest, 0), port);
    assert.equal(kit.bindVirq(guest, abi.VIRQ_DEBUG), -ENOSPC);
    assert.equal(kit.bindVirq(guest, abi.VIRQ_DOM_EXC), -EBUSY);
    assert.equal(kit.close(guest, 3), 0);
    assert.equal(withReadOnlyArgument(guest, abi.EVTCHNOP_bind_virq, abi.VIRQ_DEBUG, 0), -EFAULT);
    assert.equal(kit.bindVirq(guest, abi.VIRQ_DEBUG), 3);
    assert.equal(withReadOnlyArgument(guest, abi.EVTCHNOP_bind_virq, abi.VIRQ_DEBUG, 0), -abi.EEXIST);
    kit.settle(dom0);
    kit.settle(guest);
    raiseGlobalVirq(hypervisor, abi.VIRQ_DOM_EXC);
    raiseVirq(hypervisor, guest.slot, abi.VIRQ_DEBUG, 0);
    assert.ok(isPending(hypervisor, 0, watched));
    assert.ok(kit.pending(guest, 3));
    machine.check();
  });

  it("H14: a port whose number could not be told is closed, and neither end of it is of use (XSA-83, XSA-70)", () => {
    const machine = new Machine();
    const [a, b] = [kit.runningGuest(machine), kit.runningGuest(machine)];
    permitIrq(machine.hypervisor, b.slot, 5, true);
    const pirq = mapPirq(machine.hypervisor, b.slot, 5, -1);
    const waiting = kit.allocUnbound(a, b.domid);
    const before = portWords(machine);
    const calls: readonly (readonly [number, readonly number[]])[] = [
      [abi.EVTCHNOP_alloc_unbound, [abi.DOMID_SELF | (a.domid << 16)]],
      [abi.EVTCHNOP_bind_interdomain, [a.domid, waiting]],
      [abi.EVTCHNOP_bind_virq, [abi.VIRQ_TIMER, 0]],
      [abi.EVTCHNOP_bind_ipi, [0]],
      [abi.EVTCHNOP_bind_pirq, [pirq, 0]],
    ];
    for (const [command, words] of calls) {
      assert.equal(withReadOnlyArgument(b, command, ...words), -EFAULT, `command ${command}`);
      assert.deepEqual(portWords(machine), before, `command ${command}`);
      assert.equal(kit.send(b, 1), -EINVAL);
      assert.equal(kit.close(b, 1), -EINVAL);
      machine.check();
    }
    assert.equal(kit.bindInterdomain(b, a.domid, waiting), 1);
    assert.equal(kit.bindPirq(b, pirq), 2);
    assert.equal(kit.bindVirq(b, abi.VIRQ_TIMER), 3);
  });
});

describe("event channels: ports and limits", () => {
  it("E04: poll looks at every port of the list before it sleeps (XSA-221)", () => {
    const machine = new Machine();
    const guest = kit.runningGuest(machine);
    const port = kit.allocUnbound(guest, 0);
    machine.parts.platform.onWait = () => assert.fail("it sleeps");
    for (const bad of [0, port + 1, 1022, 1023, 1024, 1025, 2 ** 31, 2 ** 31 + 1, 2 ** 32 - 1]) {
      assert.equal(kit.poll(guest, [bad], 1), -EINVAL, `[${bad}]`);
      assert.equal(kit.poll(guest, [port, bad], 1), -EINVAL, `[good, ${bad}]`);
      assert.equal(kit.poll(guest, [bad, port], 1), -EINVAL, `[${bad}, good]`);
    }
    for (const count of [129, 2 ** 16, 2 ** 30, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(kit.pollAt(guest, kit.LIST, count, 1), -EINVAL, `count ${count}`);
    }
    const end = machine.hypervisor.p2m.gfnCount * 4096;
    for (const list of [kit.NOWHERE, end - 4, 2 ** 32 - 8, 2 ** 32 - 1]) {
      assert.equal(kit.pollAt(guest, list, 3, 1), -EFAULT, `list at ${list}`);
    }
    machine.check();
    machine.parts.platform.onWait = undefined;
    machine.parts.platform.nowNs = 5;
    assert.equal(kit.poll(guest, [port], 1), 0);
    machine.check();
  });

  it("E05: at the limit an allocation is refused, and each port handed out can be asked about and closed (CVE-2020-15566)", () => {
    const machine = new Machine();
    const guest = kit.runningGuest(machine, { portMax: 5, vcpus: 2 });
    const peer = kit.runningGuest(machine);
    permitIrq(machine.hypervisor, guest.slot, 3, true);
    const pirq = mapPirq(machine.hypervisor, guest.slot, 3, -1);
    const waiting = kit.allocUnbound(peer, guest.domid);
    const open = [
      () => kit.allocUnbound(guest, peer.domid),
      () => kit.bindInterdomain(guest, peer.domid, waiting),
      () => kit.bindVirq(guest, abi.VIRQ_TIMER),
      () => kit.bindIpi(guest, 1),
      () => kit.bindPirq(guest, pirq),
    ];
    for (let round = 0; round < open.length; round += 1) {
      const order = open.map((_, index) => open[(index + round) % open.length]!);
      const ports = order.map((call) => call());
      assert.deepEqual(
        ports.toSorted((x, y) => x - y),
        [1, 2, 3, 4, 5],
      );
      for (const call of [() => kit.allocUnbound(guest, 0), () => kit.bindIpi(guest, 0)]) assert.equal(call(), -ENOSPC);
      for (const port of ports) {
        assert.equal(kit.status(guest, port).result, 0);
        assert.notEqual(kit.status(guest, port).status, abi.EVTCHNSTAT_closed);
        assert.equal(kit.close(guest, port), 0);
        assert.equal(kit.close(guest, port), -EINVAL);
      }
      machine.check();
    }
  });

  it("E08: there are as many ports as the bitmap has bits, and the highest touches its own bit only (XSA-342)", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const guest = kit.runningGuest(machine, { portMax: 131_071 });
    let last = 0;
    for (let port = kit.bindIpi(guest, 0); port > 0; port = kit.bindIpi(guest, 0)) last = port;
    assert.equal(last, abi.EVTCHN_2L_NR_CHANNELS - 1);
    assert.equal(kit.bindIpi(guest, 0), -ENOSPC);
    for (const port of [1, 31, 32, 33, 63, 64, 65, 511, 512, last - 1, last]) {
      kit.settle(guest);
      const page = kit.sharedInfo(hypervisor, guest.slot);
      const before = new Uint8Array(page.buffer.slice(page.byteOffset, page.byteOffset + 4096));
      assert.equal(kit.send(guest, port), 0);
      const after = new Uint8Array(page.buffer.slice(page.byteOffset, page.byteOffset + 4096));
      const changed = [...after.keys()].filter(
        (at) => at >= abi.shared_info.evtchn_pending.offset && after[at] !== before[at],
      );
      const byte = abi.shared_info.evtchn_pending.offset + (port >>> 3);
      assert.deepEqual(changed, [byte], `port ${port}`);
      assert.equal(after[byte]! ^ before[byte]!, 1 << (port & 7));
      assert.equal(kit.selector(guest), (1 << (port >>> 5)) >>> 0);
    }
    for (const port of [1024, 1025, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(kit.send(guest, port), -EINVAL);
      assert.equal(kit.unmask(guest, port), -EINVAL);
      assert.equal(kit.close(guest, port), -EINVAL);
      assert.equal(kit.bindVcpu(guest, port, 0), -EINVAL);
      assert.equal(kit.status(guest, port).result, -EINVAL);
    }
    machine.check();
  });

  it("E03, E13: FIFO control blocks and arrays are refused in every state, and events go on (XSA-188, XSA-505)", () => {
    const machine = new Machine();
    const guest = kit.runningGuest(machine);
    const port = kit.bindIpi(guest, 0);
    const attempt = (command: number, gfn: number): void => {
      poke(guest, kit.ARG, new Uint8Array(new BigUint64Array([BigInt(gfn), 0n, 0n]).buffer));
      const before = portWords(machine);
      assert.equal(machine.call(guest, abi.__HYPERVISOR_event_channel_op, command, kit.ARG), -EOPNOTSUPP);
      assert.deepEqual(portWords(machine), before);
    };
    for (const gfn of [2 ** 40, 3, 2 ** 40, 0]) {
      attempt(abi.EVTCHNOP_init_control, gfn);
      attempt(abi.EVTCHNOP_expand_array, gfn);
      kit.settle(guest);
      assert.equal(kit.send(guest, port), 0);
      assert.ok(kit.pending(guest, port));
    }
    assert.equal(beginReset(machine.hypervisor, guest.slot), 0);
    attempt(abi.EVTCHNOP_expand_array, 3);
    while (continueReset(machine.hypervisor, guest.slot, 100) === RESET_MORE) attempt(abi.EVTCHNOP_expand_array, 3);
    machine.check();
  });

  it("E19: polling on lists that cannot be read keeps no memory (CVE-2025-38469)", async () => {
    const { setFlagsFromString } = await import("node:v8");
    const { runInNewContext } = await import("node:vm");
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const machine = new Machine();
    const guest = kit.runningGuest(machine);
    poke(guest, kit.ARG, new Uint8Array(Uint32Array.from([kit.NOWHERE, 64, 0, 0]).buffer));
    const round = (count: number): void => {
      for (let call = 0; call < count; call += 1) {
        const result = hypercall(guest.cpu, abi.__HYPERVISOR_sched_op, abi.SCHEDOP_poll, kit.ARG, 0, 0, 0);
        assert.equal(result, -EFAULT);
      }
      collect();
    };
    round(20_000);
    const before = process.memoryUsage().heapUsed;
    round(100_000);
    assert.ok(
      process.memoryUsage().heapUsed - before < 1 << 20,
      `${process.memoryUsage().heapUsed - before} bytes stay`,
    );
  });
});

describe("event channels: floods", () => {
  it("E16: events that a guest has not looked at merge, however many are sent (XSA-332)", () => {
    const machine = new Machine();
    const [a, b] = [kit.runningGuest(machine), kit.runningGuest(machine)];
    const { a: port } = kit.connected(machine, a, b);
    const { domains } = machine.hypervisor;
    kit.send(a, port);
    const received = domains.eventCount(b.slot);
    const wakes = machine.parts.platform.wakes;
    for (let count = 0; count < 100_000; count += 1) sendPort(machine.hypervisor, a.slot, port);
    assert.equal(domains.eventCount(b.slot), received);
    assert.equal(machine.parts.platform.wakes, wakes);
  });
});
