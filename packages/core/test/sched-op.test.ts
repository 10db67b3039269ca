import * as abi from "@xenolith/abi";
import { EFAULT, EINVAL, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_TIMER } from "../src/attention.ts";
import { blockVcpu, prepareBlock, wakeVcpu } from "../src/block.ts";
import { domainInfo } from "../src/domain-info.ts";
import { setTarget } from "../src/domain-ops.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { serviceTimers } from "../src/timer-service.ts";
import { setSingleshot } from "../src/timers.ts";
import { VCPU_BLOCKED } from "../src/vcpu-table.ts";
import {
  allocUnbound,
  bindVirq,
  clearUpcall,
  connected,
  LIST,
  NOWHERE,
  pending,
  poll,
  pollAt,
  runningGuest,
  sched,
  send,
  setMask,
  upcallPending,
  vcpuInfo,
} from "./events-kit.ts";
import { Machine } from "./machine.ts";

const SCHED = abi.__HYPERVISOR_sched_op;
const MS = 1_000_000;

/** Lets something happen whenever a vCPU would sleep; returns how often that was. */
const whenSleeping = (machine: Machine, act: () => void): { readonly count: () => number } => {
  let count = 0;
  machine.parts.platform.onWait = () => {
    count += 1;
    act();
  };
  return { count: () => count };
};

describe("SCHEDOP_block", () => {
  it("clears the upcall mask and returns at once when an upcall is pending", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const sleeps = whenSleeping(machine, () => assert.fail("slept"));
    const info = vcpuInfo(machine.hypervisor, guest.slot);
    info.setUint8(0, 1);
    info.setUint8(1, 1);
    assert.equal(sched(guest, abi.SCHEDOP_block), 0);
    assert.deepEqual([info.getUint8(0), info.getUint8(1), sleeps.count()], [1, 0, 0]);
  });

  it("sleeps outside the hypervisor until an event arrives", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a } = connected(machine, first, second);
    const { vcpus } = machine.hypervisor;
    const sleeps = whenSleeping(machine, () => {
      assert.equal(vcpus.gate[second.cpu.index], 0);
      assert.equal(vcpus.state[second.cpu.index], VCPU_BLOCKED);
      send(first, a);
    });
    assert.equal(sched(second, abi.SCHEDOP_block), 0);
    assert.deepEqual([sleeps.count(), upcallPending(second)], [1, true]);
    machine.check();
  });

  it("a masked event does not end it", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const masked = connected(machine, first, second);
    const open = connected(machine, first, second);
    setMask(second, masked.b, true);
    const sleeps = whenSleeping(machine, () => send(first, sleeps.count() === 1 ? masked.a : open.a));
    machine.parts.platform.onWait = ((act) => (wait) => {
      act!(wait);
      // The fake platform wants every endless wait to be ended: this one is asked again.
      if (sleeps.count() === 1) machine.parts.platform.onWait!(wait);
    })(machine.parts.platform.onWait);
    assert.equal(sched(second, abi.SCHEDOP_block), 0);
    assert.equal(sleeps.count(), 2);
  });

  it("serves the vCPU's own timers while it sleeps", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const port = bindVirq(guest, abi.VIRQ_TIMER);
    setSingleshot(machine.hypervisor, guest.cpu.index, 5 * MS);
    assert.equal(sched(guest, abi.SCHEDOP_block), 0);
    assert.equal(machine.parts.platform.nowNs, 5 * MS);
    assert.equal(pending(guest, port), true);
  });

  it("of dom0 never sleeps", () => {
    const machine = new Machine();
    whenSleeping(machine, () => assert.fail("slept"));
    assert.equal(sched(machine.dom0, abi.SCHEDOP_block), 0);
    assert.equal(poll(machine.dom0, [], 1e15), 0);
  });

  it("a stop request ends it for ever", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const { vcpus } = machine.hypervisor;
    whenSleeping(machine, () => {
      Atomics.or(vcpus.gate, guest.cpu.index, 4);
      wakeVcpu(machine.hypervisor, guest.cpu.index);
    });
    assert.throws(() => sched(guest, abi.SCHEDOP_block), ParkedError);
    assert.equal(machine.hypervisor.locks.heldCount, 0);
  });

  it("a pause request holds the vCPU at its gate until it is withdrawn", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const { vcpus } = machine.hypervisor;
    const words: string[] = [];
    machine.parts.platform.onWait = (wait) => {
      words.push(wait.words === vcpus.gate ? "gate" : "wake");
      if (wait.words === vcpus.gate) Atomics.and(vcpus.gate, guest.cpu.index, ~2);
      else {
        Atomics.or(vcpus.gate, guest.cpu.index, 2);
        wakeVcpu(machine.hypervisor, guest.cpu.index);
      }
    };
    assert.equal(sched(guest, abi.SCHEDOP_block), 0);
    assert.deepEqual(words, ["wake", "gate"]);
  });
});

describe("blockVcpu", () => {
  it("does not sleep when a wake-up came between the announcement and the sleep", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    whenSleeping(machine, () => assert.fail("slept"));
    const seen = prepareBlock(guest.cpu);
    wakeVcpu(machine.hypervisor, guest.cpu.index);
    assert.equal(blockVcpu(guest.cpu, Infinity, seen), true);
  });

  it("returns false at its deadline", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(blockVcpu(guest.cpu, 3 * MS), false);
    assert.equal(machine.parts.platform.nowNs, 3 * MS);
  });

  it("hands a timer that it did not wait for back to the control domain", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const { hypervisor, parts } = machine;
    hypervisor.attention.take();
    setSingleshot(hypervisor, guest.cpu.index, 50 * MS);
    assert.equal(hypervisor.attention.take() & ATTENTION_TIMER, ATTENTION_TIMER);
    parts.platform.onWait = () => {
      parts.platform.nowNs += MS;
      assert.equal(serviceTimers(hypervisor), Infinity, "a vCPU that blocks serves its own");
      wakeVcpu(hypervisor, guest.cpu.index);
    };
    assert.equal(blockVcpu(guest.cpu, Infinity), true);
    assert.equal(hypervisor.attention.take() & ATTENTION_TIMER, ATTENTION_TIMER);
    parts.platform.nowNs += MS;
    assert.equal(serviceTimers(hypervisor), 50 * MS);
  });
});

describe("SCHEDOP_poll", () => {
  it("returns 0 at once when a listed port is pending, masked or not", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const one = connected(machine, first, second);
    const two = connected(machine, first, second);
    setMask(second, two.b, true);
    send(first, two.a);
    whenSleeping(machine, () => assert.fail("slept"));
    assert.equal(poll(second, [one.b, two.b]), 0);
  });

  it("returns 0 at once when an upcall is deliverable, before it looks at the ports", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    vcpuInfo(machine.hypervisor, guest.slot).setUint8(0, 1);
    assert.equal(poll(guest, [999]), 0);
    vcpuInfo(machine.hypervisor, guest.slot).setUint8(1, 1);
    assert.equal(poll(guest, [999]), -EINVAL);
  });

  it("sleeps until its port is pending, also when that is masked", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    setMask(second, b, true);
    const sleeps = whenSleeping(machine, () => send(first, a));
    assert.equal(poll(second, [b]), 0);
    assert.deepEqual([sleeps.count(), pending(second, b), upcallPending(second)], [1, true, false]);
    assert.equal(machine.hypervisor.events.pollMask[second.slot], 0);
    machine.check();
  });

  it("on one port is not woken by another that is masked; on two ports it is woken by any", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const [one, two, other] = [
      connected(machine, first, second),
      connected(machine, first, second),
      connected(machine, first, second),
    ];
    setMask(second, other.b, true);
    whenSleeping(machine, () => send(first, other.a));
    assert.equal(poll(second, [one.b], 10 * MS), 0);
    assert.equal(machine.parts.platform.nowNs, 10 * MS, "it slept to the end");
    const { pollMask } = machine.hypervisor.events;
    machine.parts.platform.onWait = () => {
      assert.equal(pollMask[second.slot], 1);
      send(first, one.a);
    };
    assert.equal(poll(second, [two.b, two.b], 20 * MS), 0);
    assert.equal(machine.parts.platform.nowNs, 10 * MS, "it was woken");
    assert.equal(pending(second, two.b), false);
  });

  it("its timeout is absolute, and the result does not tell that it passed", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    machine.parts.platform.nowNs = 7 * MS;
    const port = allocUnbound(guest, 0);
    assert.equal(poll(guest, [port], 9 * MS), 0);
    assert.equal(machine.parts.platform.nowNs, 9 * MS);
    assert.equal(poll(guest, [port], 8 * MS), 0);
    assert.equal(machine.parts.platform.nowNs, 9 * MS, "it was past already");
  });

  it("with no port and a timeout is a sleep, which any event ends", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    assert.equal(poll(second, [], 4 * MS), 0);
    assert.equal(machine.parts.platform.nowNs, 4 * MS);
    setMask(second, b, true);
    whenSleeping(machine, () => send(first, a));
    assert.equal(poll(second, [], 99 * MS), 0);
    assert.equal(machine.parts.platform.nowNs, 4 * MS);
  });

  it("refuses more than 128 ports with -EINVAL; 128 are looked at", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const port = allocUnbound(guest, 0);
    assert.equal(
      poll(
        guest,
        Array.from({ length: 129 }, () => port),
        1,
      ),
      -EINVAL,
    );
    assert.equal(
      poll(
        guest,
        Array.from({ length: 128 }, () => port),
        1 * MS,
      ),
      0,
    );
    assert.equal(pollAt(guest, LIST, 0xffff_ffff, 1), -EINVAL);
  });

  it("answers -EFAULT for a list, or an argument, that is not readable", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(pollAt(guest, NOWHERE, 1, 1), -EFAULT);
    assert.equal(pollAt(guest, 0xffff_fffe, 1, 1), -EFAULT);
    assert.equal(machine.call(guest, SCHED, abi.SCHEDOP_poll, NOWHERE), -EFAULT);
    assert.equal(pollAt(guest, NOWHERE, 0, 1 * MS), 0, "an empty list is not read");
  });
});

describe("shutdown", () => {
  it("records the reason, stops the domain and tells the control domain", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const exception = bindVirq(machine.dom0, abi.VIRQ_DOM_EXC);
    const held = { count: 0 };
    machine.parts.platform.onWait = (wait) => {
      held.count += 1;
      Atomics.store(wait.words, wait.index, 0);
    };
    assert.equal(sched(guest, abi.SCHEDOP_shutdown, abi.SHUTDOWN_reboot), 0);
    assert.equal(held.count, 1, "the caller is held before it runs guest code again");
    const info = domainInfo(machine.hypervisor, guest.slot);
    assert.deepEqual([info.state, info.shutdownCode], ["shutdown", abi.SHUTDOWN_reboot]);
    assert.equal(pending(machine.dom0, exception), true);
  });

  it("keeps the first reason; SCHEDOP_shutdown_code records one without stopping", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    machine.parts.platform.onWait = (wait) => void Atomics.store(wait.words, wait.index, 0);
    assert.equal(sched(guest, abi.SCHEDOP_shutdown_code, abi.SHUTDOWN_suspend), 0);
    assert.equal(domainInfo(machine.hypervisor, guest.slot).state, "running");
    assert.equal(sched(guest, abi.SCHEDOP_shutdown, abi.SHUTDOWN_crash), 0);
    assert.equal(domainInfo(machine.hypervisor, guest.slot).shutdownCode, abi.SHUTDOWN_suspend);
  });

  it("a reason is one byte", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    machine.parts.platform.onWait = (wait) => void Atomics.store(wait.words, wait.index, 0);
    assert.equal(sched(guest, abi.SCHEDOP_shutdown, 0x0102), 0);
    assert.equal(domainInfo(machine.hypervisor, guest.slot).shutdownCode, 2);
  });

  it("of another domain needs the rights of its device model: none -EPERM, itself too, missing -ESRCH", () => {
    const machine = new Machine();
    const [guest, target] = [runningGuest(machine), runningGuest(machine)];
    const remote = (who: typeof guest, domid: number): number =>
      sched(who, abi.SCHEDOP_remote_shutdown, domid, abi.SHUTDOWN_poweroff);
    assert.equal(remote(guest, target.domid), -EPERM);
    assert.equal(remote(guest, guest.domid), -EPERM);
    assert.equal(remote(guest, 99), -ESRCH);
    assert.equal(setTarget(machine.hypervisor, guest.slot, target.slot), 0);
    assert.equal(remote(guest, target.domid), 0);
    assert.equal(domainInfo(machine.hypervisor, target.slot).state, "shutdown");
    assert.equal(remote(machine.dom0, guest.domid), 0);
  });

  it("answers -EFAULT for a reason that is not readable, and does not stop", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    for (const command of [
      abi.SCHEDOP_shutdown,
      abi.SCHEDOP_shutdown_code,
      abi.SCHEDOP_remote_shutdown,
      abi.SCHEDOP_watchdog,
    ]) {
      assert.equal(machine.call(guest, SCHED, command, NOWHERE), -EFAULT);
    }
    assert.equal(domainInfo(machine.hypervisor, guest.slot).state, "running");
  });
});

describe("SCHEDOP_watchdog", () => {
  const watchdog = (guest: Parameters<typeof sched>[0], id: number, seconds: number): number =>
    sched(guest, abi.SCHEDOP_watchdog, id, seconds);

  it("id 0 creates one of two; none free -ENOSPC; timeout 0 destroys", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.deepEqual([watchdog(guest, 0, 5), watchdog(guest, 0, 5), watchdog(guest, 0, 5)], [1, 2, -ENOSPC]);
    assert.equal(watchdog(guest, 1, 0), 0);
    assert.equal(watchdog(guest, 1, 5), -EINVAL);
    assert.equal(watchdog(guest, 0, 5), 1);
  });

  it("refuses ids that do not exist or are not in use, and creation without a timeout, with -EINVAL", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    for (const id of [1, 2, 3, 0xffff_ffff]) assert.equal(watchdog(guest, id, 5), -EINVAL);
    assert.equal(watchdog(guest, 0, 0), -EINVAL);
    assert.equal(watchdog(guest, 0, 1), 1);
  });

  it("one that is not set anew shuts the domain down", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const { platform } = machine.parts;
    assert.equal(watchdog(guest, 0, 2), 1);
    platform.nowNs = 1_500 * MS;
    assert.equal(watchdog(guest, 1, 2), 0);
    platform.nowNs = 2_500 * MS;
    assert.equal(serviceTimers(machine.hypervisor), 3_500 * MS);
    assert.equal(domainInfo(machine.hypervisor, guest.slot).state, "running");
    platform.nowNs = 3_500 * MS;
    assert.equal(serviceTimers(machine.hypervisor), Infinity);
    const info = domainInfo(machine.hypervisor, guest.slot);
    assert.deepEqual([info.state, info.shutdownCode], ["shutdown", abi.SHUTDOWN_watchdog]);
  });
});

describe("the rest of sched_op", () => {
  it("yield returns 0; pin_override is dom0's; an unknown command is -ENOSYS", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(sched(guest, abi.SCHEDOP_yield), 0);
    assert.equal(sched(guest, abi.SCHEDOP_pin_override, -1), -EPERM);
    assert.equal(sched(machine.dom0, abi.SCHEDOP_pin_override, -1), 0);
    assert.equal(sched(machine.dom0, abi.SCHEDOP_pin_override, 0), -EOPNOTSUPP);
    for (const command of [8, 9, 0xffff_ffff]) assert.equal(sched(guest, command), -ENOSYS);
    clearUpcall(guest);
  });
});
