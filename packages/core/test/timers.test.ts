import * as abi from "@xenolith/abi";
import { EINVAL } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_TIMER } from "../src/attention.ts";
import { earliestDeadline, serviceTimers } from "../src/timer-service.ts";
import { nextTick, nextTimer, PERIOD_MIN_NS, SERVICE_INTERVAL_NS } from "../src/timers.ts";
import { bindVirq, clearPort, otherVcpu, pending, runningGuest, vcpuOp } from "./events-kit.ts";
import type { Guest } from "./machine.ts";
import { Machine } from "./machine.ts";

const MS = 1_000_000;
const WORD = 2 ** 32;

const setTimer = (machine: Machine, guest: Guest, ns: number): number =>
  machine.call(guest, abi.__HYPERVISOR_set_timer_op, ns % WORD, Math.floor(ns / WORD));
const singleshot = (guest: Guest, vcpu: number, ns: number, flags = 0): number =>
  vcpuOp(guest, abi.VCPUOP_set_singleshot_timer, vcpu, ns % WORD, Math.floor(ns / WORD), flags);
const periodic = (guest: Guest, vcpu: number, low: number, high = 0): number =>
  vcpuOp(guest, abi.VCPUOP_set_periodic_timer, vcpu, low, high);

/** A machine at 10 ms, with a guest whose VIRQ_TIMER is bound, and the clock. */
const world = () => {
  const machine = new Machine();
  const guest = runningGuest(machine, { vcpus: 2 });
  const port = bindVirq(guest, abi.VIRQ_TIMER);
  const { platform } = machine.parts;
  platform.nowNs = 10 * MS;
  return { machine, guest, port, platform, hypervisor: machine.hypervisor };
};

describe("set_timer_op", () => {
  it("fires VIRQ_TIMER once its absolute time has come", () => {
    const { machine, guest, port, platform, hypervisor } = world();
    assert.equal(setTimer(machine, guest, 20 * MS), 0);
    assert.equal(serviceTimers(hypervisor), 20 * MS);
    assert.equal(pending(guest, port), false);
    platform.nowNs = 20 * MS;
    assert.equal(serviceTimers(hypervisor), Infinity);
    assert.equal(pending(guest, port), true);
    assert.equal(nextTimer(hypervisor, guest.cpu.index), Infinity);
  });

  it("a time in the past fires at once and is off", () => {
    const { machine, guest, port, hypervisor } = world();
    assert.equal(setTimer(machine, guest, 1), 0);
    assert.equal(pending(guest, port), true);
    assert.equal(nextTimer(hypervisor, guest.cpu.index), Infinity);
  });

  it("0 stops the timer", () => {
    const { machine, guest, port, platform, hypervisor } = world();
    setTimer(machine, guest, 20 * MS);
    assert.equal(setTimer(machine, guest, 0), 0);
    platform.nowNs = 30 * MS;
    serviceTimers(hypervisor);
    assert.equal(pending(guest, port), false);
  });

  it("a new time replaces the one before", () => {
    const { machine, guest, port, platform, hypervisor } = world();
    setTimer(machine, guest, 20 * MS);
    setTimer(machine, guest, 40 * MS);
    platform.nowNs = 30 * MS;
    assert.equal(serviceTimers(hypervisor), 40 * MS);
    assert.equal(pending(guest, port), false);
  });

  it("without a bound VIRQ_TIMER nothing happens when it fires", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    machine.parts.platform.nowNs = 10 * MS;
    assert.equal(setTimer(machine, guest, 5 * MS), 0);
    machine.check();
  });
});

describe("single-shot and periodic timers", () => {
  it("are set and stopped for the calling vCPU only, else -EINVAL", () => {
    const { guest } = world();
    assert.equal(singleshot(guest, 1, 20 * MS), -EINVAL);
    assert.equal(vcpuOp(guest, abi.VCPUOP_stop_singleshot_timer, 1), -EINVAL);
    assert.equal(singleshot(guest, 0, 20 * MS), 0);
    assert.equal(vcpuOp(guest, abi.VCPUOP_stop_singleshot_timer, 0), 0);
  });

  it("a single-shot in the past fires at once, whether or not it had to be in the future", () => {
    for (const [ns, flags] of [
      [0, 0],
      [1, 0],
      [5 * MS, abi.VCPU_SSHOTTMR_future],
    ] as const) {
      const { guest, port } = world();
      assert.equal(singleshot(guest, 0, ns, flags), 0);
      assert.equal(pending(guest, port), true);
    }
  });

  it("a periodic timer below a millisecond is refused with -EINVAL, from there on it ticks", () => {
    const { guest, port, platform, hypervisor } = world();
    for (const period of [0, 1, PERIOD_MIN_NS - 1]) assert.equal(periodic(guest, 0, period), -EINVAL);
    assert.equal(periodic(guest, 0, 0xffff_ffff, 0xffff_ffff), -EINVAL);
    assert.equal(periodic(guest, 0, PERIOD_MIN_NS), 0);
    const ticks: boolean[] = [];
    for (let tick = 1; tick <= 3; tick += 1) {
      platform.nowNs = 10 * MS + tick * MS;
      serviceTimers(hypervisor);
      ticks.push(pending(guest, port));
      clearPort(guest, port);
    }
    assert.deepEqual(ticks, [true, true, true]);
    assert.equal(vcpuOp(guest, abi.VCPUOP_stop_periodic_timer, 0), 0);
    platform.nowNs += 5 * MS;
    assert.equal(serviceTimers(hypervisor), Infinity);
  });

  it("ticks that were missed are not made up for, and the series keeps its phase", () => {
    const { guest, platform, hypervisor } = world();
    periodic(guest, 0, 2 * MS);
    platform.nowNs = 10 * MS + 9.5 * MS;
    assert.equal(serviceTimers(hypervisor), 20 * MS);
  });

  it("the next tick is strictly later than now, for any period and any delay", () => {
    for (const [due, period, now] of [
      [1, 1, 2 ** 60],
      [0, 1e6, 0],
      [5, 1e6, 2 ** 53],
      [1e15, 1e6, 1e15],
    ] as const) {
      const next = nextTick(due, period, now);
      assert.ok(next > now || now === 2 ** 60, `${next} after ${now}`);
    }
  });

  it("each vCPU has its own", () => {
    const { machine, guest, port, platform, hypervisor } = world();
    const second = otherVcpu(guest, 1);
    const other = bindVirq(guest, abi.VIRQ_TIMER, 1);
    setTimer(machine, guest, 20 * MS);
    assert.equal(singleshot(second, 1, 15 * MS), 0);
    assert.equal(earliestDeadline(hypervisor), 15 * MS);
    platform.nowNs = 15 * MS;
    serviceTimers(hypervisor);
    assert.deepEqual([pending(guest, port), pending(guest, other)], [false, true]);
  });
});

describe("the control domain's timer", () => {
  it("is told of a deadline before the one it sleeps for, and of no other", () => {
    const { machine, guest, hypervisor } = world();
    const told = (): boolean => (hypervisor.attention.take() & ATTENTION_TIMER) !== 0;
    setTimer(machine, guest, 50 * MS);
    assert.equal(told(), true);
    assert.equal(serviceTimers(hypervisor), 50 * MS);
    setTimer(machine, guest, 60 * MS);
    assert.equal(told(), false);
    setTimer(machine, guest, 40 * MS);
    assert.equal(told(), true);
  });

  it("H20 XSA-20 XSA-504: no time that a guest can name makes it fire more than once, or more often than it may", () => {
    const { guest, machine, port, platform, hypervisor } = world();
    const times = [0, 1, 10 * MS - 1, 10 * MS, 2 ** 31 * MS, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 2 ** 64 - 2 ** 11];
    for (const ns of times) {
      setTimer(machine, guest, ns);
      clearPort(guest, port);
      for (let round = 0; round < 5; round += 1) {
        platform.nowNs += SERVICE_INTERVAL_NS;
        const next = serviceTimers(hypervisor);
        assert.ok(next >= platform.nowNs + SERVICE_INTERVAL_NS, `at ${ns}: ${next}`);
        assert.equal(pending(guest, port), false, `at ${ns}`);
      }
    }
    for (const [low, high] of [
      [0, 0],
      [1, 0],
      [0, 0x8000_0000],
      [0xffff_ffff, 0xffff_ffff],
    ] as const) {
      assert.equal(periodic(guest, 0, low, high), -EINVAL);
    }
  });

  it("W12: a million timers in a row keep it no busier than its interval allows", () => {
    const { machine, guest, hypervisor, platform } = world();
    let served = 0;
    let armed = 0;
    for (let call = 0; call < 20_000; call += 1) {
      platform.nowNs += 100;
      machine.hypervisor.attention.take();
      hypervisor.vcpus.singleshotNs[guest.cpu.index] = 0;
      singleshot(guest, 0, platform.nowNs + 50);
      if ((hypervisor.attention.take() & ATTENTION_TIMER) === 0 && platform.nowNs < armed) continue;
      armed = serviceTimers(hypervisor);
      served += 1;
    }
    assert.ok(served <= (20_000 * 100 * 3) / SERVICE_INTERVAL_NS, `${served} services in 2 ms`);
  });
});
