import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  FUTEX_FAULT,
  FUTEX_NOT_EQUAL,
  FUTEX_TIMED_OUT,
  FUTEX_WOKEN,
  guestNotify,
  guestWait32,
  guestWait64,
} from "../src/futex.ts";
import { endVcpu } from "../src/vcpu-life.ts";
import { bindVirq, NOWHERE, otherVcpu, runningGuest, SPARE } from "./events-kit.ts";
import { raiseVirq } from "../src/virq.ts";
import { Machine, pokeWords } from "./machine.ts";

const MS = 1_000_000;

const world = () => {
  const machine = new Machine();
  const guest = runningGuest(machine, { vcpus: 3 });
  const second = otherVcpu(guest, 1);
  return { machine, guest, second, hypervisor: machine.hypervisor, platform: machine.parts.platform };
};

describe("wait and notify", () => {
  it("a wait on another value than expected returns not-equal without sleeping", () => {
    const { guest, platform } = world();
    platform.onWait = () => assert.fail("slept");
    pokeWords(guest, SPARE, 5);
    assert.equal(guestWait32(guest.cpu, SPARE, 4, Infinity), FUTEX_NOT_EQUAL);
    assert.equal(guestWait64(guest.cpu, SPARE, 4n, Infinity), FUTEX_NOT_EQUAL);
    assert.equal(guestWait64(guest.cpu, SPARE, 5n + (1n << 32n), Infinity), FUTEX_NOT_EQUAL);
  });

  it("a wait that nobody ends times out", () => {
    const { machine, guest, platform } = world();
    pokeWords(guest, SPARE, 5, 0xffff_ffff);
    assert.equal(guestWait32(guest.cpu, SPARE, 5, 2 * MS), FUTEX_TIMED_OUT);
    assert.equal(guestWait32(guest.cpu, SPARE + 4, -1, 0), FUTEX_TIMED_OUT);
    assert.equal(guestWait64(guest.cpu, SPARE, (0xffff_ffffn << 32n) | 5n, 2 * MS), FUTEX_TIMED_OUT);
    assert.equal(guestWait64(guest.cpu, SPARE, BigInt.asIntN(64, (0xffff_ffffn << 32n) | 5n), 0), FUTEX_TIMED_OUT);
    assert.equal(platform.nowNs, 4 * MS);
    machine.check();
  });

  it("a notify wakes a waiter on the same word and tells how many it woke", () => {
    const { machine, guest, second, platform } = world();
    const woken: number[] = [];
    platform.onWait = () => {
      woken.push(
        guestNotify(second.cpu, SPARE + 4, 9),
        guestNotify(second.cpu, SPARE, 9),
        guestNotify(second.cpu, SPARE, 9),
      );
    };
    assert.equal(guestWait32(guest.cpu, SPARE, 0, Infinity), FUTEX_WOKEN);
    assert.deepEqual(woken, [0, 1, 0]);
    machine.check();
  });

  it("wakes in the order of arrival, as many as asked for", () => {
    const { guest, second, hypervisor, platform } = world();
    const third = otherVcpu(guest, 2);
    const order: number[] = [];
    const waits = [second, third, guest];
    const results: number[] = [];
    let depth = 0;
    platform.onWait = () => {
      depth += 1;
      if (depth < waits.length) results.push(guestWait32(waits[depth]!.cpu, SPARE, 0, 5 * MS));
      else {
        assert.equal(guestNotify(guest.cpu, SPARE, 2), 2);
        for (const who of waits) if ((hypervisor.vcpus.futexState[who.cpu.index]! & 3) === 2) order.push(who.cpu.vcpu);
      }
    };
    assert.equal(guestWait32(waits[0]!.cpu, SPARE, 0, 5 * MS), FUTEX_WOKEN);
    assert.deepEqual(order, [1, 2]);
    assert.deepEqual(results, [FUTEX_TIMED_OUT, FUTEX_WOKEN], "the last to arrive timed out");
  });

  it("an event does not end a wait", () => {
    const { guest, second, hypervisor, platform } = world();
    bindVirq(guest, abi.VIRQ_DEBUG);
    let sleeps = 0;
    const act = (): void => {
      sleeps += 1;
      if (sleeps === 1) raiseVirq(hypervisor, guest.slot, abi.VIRQ_DEBUG);
      else guestNotify(second.cpu, SPARE, 1);
    };
    platform.onWait = act;
    assert.equal(guestWait32(guest.cpu, SPARE, 0, Infinity), FUTEX_WOKEN);
    assert.equal(sleeps, 2);
  });

  it("two mappings of one frame are one place, also between domains", () => {
    const { machine, guest, platform } = world();
    const other = runningGuest(machine);
    const { p2m } = machine.hypervisor;
    // As if the frame at SPARE were granted to the other domain.
    const mine = p2m.at(other.slot, SPARE >>> 12);
    const before = p2m.entries[mine]!;
    p2m.entries[mine] = (p2m.get(guest.slot, SPARE >>> 12) & ~15) | 4;
    platform.onWait = () => assert.equal(guestNotify(other.cpu, SPARE, 1), 1);
    assert.equal(guestWait32(guest.cpu, SPARE, 0, Infinity), FUTEX_WOKEN);
    p2m.entries[mine] = before;
    machine.check();
  });

  it("the same address in two domains is two places", () => {
    const { machine, guest, platform } = world();
    const other = runningGuest(machine);
    platform.onWait = () => assert.equal(guestNotify(other.cpu, SPARE, 1), 0);
    assert.equal(guestWait32(guest.cpu, SPARE, 0, 1 * MS), FUTEX_TIMED_OUT);
  });

  it("a wait on memory that is not there faults, a notify there wakes nobody; misaligned ones fault", () => {
    const { machine, guest } = world();
    assert.equal(guestWait32(guest.cpu, NOWHERE, 0, 0), FUTEX_FAULT);
    assert.equal(guestWait64(guest.cpu, NOWHERE, 0n, 0), FUTEX_FAULT);
    assert.equal(guestWait32(guest.cpu, SPARE + 2, 0, 0), FUTEX_FAULT);
    assert.equal(guestWait64(guest.cpu, SPARE + 4, 0n, 0), FUTEX_FAULT);
    assert.equal(guestNotify(guest.cpu, NOWHERE, 1), 0);
    assert.equal(guestNotify(guest.cpu, SPARE + 1, 1), FUTEX_FAULT);
    assert.equal(guestNotify(guest.cpu, 0xffff_fffc, 0xffff_ffff), 0);
    machine.check();
  });

  it("a vCPU whose thread ends while it waits is forgotten", () => {
    const { machine, guest, second, hypervisor, platform } = world();
    platform.onWait = () => {
      platform.onWait = undefined;
      endVcpu(hypervisor, guest.cpu.index);
      assert.equal(guestNotify(second.cpu, SPARE, 1), 0);
    };
    guestWait32(guest.cpu, SPARE, 0, 1 * MS);
    machine.check();
  });
});
