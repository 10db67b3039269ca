import { __HYPERVISOR_key_op, __HYPERVISOR_secret_op, ENOSYS, XENKEY_search, XENSECRET_query } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_SERVICE } from "../src/attention.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { GATE_IN, GATE_STOP, requestGate, withdrawGate } from "../src/gate.ts";
import { hypercall } from "../src/hypercall.ts";
import { answerServiceCall, type ServiceRequest, takeServiceCalls } from "../src/service-call.ts";
import { endVcpu } from "../src/vcpu-life.ts";
import { otherVcpu, runningGuest } from "./events-kit.ts";
import { Machine } from "./machine.ts";

/** Whenever a vCPU would sleep, the control domain does this with the calls that wait. */
const serving = (machine: Machine, serve: (request: ServiceRequest) => void): void => {
  machine.parts.platform.onWait = () => {
    for (const request of takeServiceCalls(machine.hypervisor, 0, 10)) serve(request);
  };
};

describe("a call that the control domain answers", () => {
  it("sleeps outside the hypervisor until the answer is there, and returns it", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    machine.hypervisor.attention.take();
    const seen: unknown[] = [];
    serving(machine, (request) => {
      const { slot, vcpu, number, command, argument } = request;
      const { vcpus, attention } = machine.hypervisor;
      seen.push([slot, vcpu, number, command, argument], attention.take(), vcpus.gate[guest.cpu.index]! & GATE_IN);
      assert.equal(answerServiceCall(machine.hypervisor, request, -7), true);
    });
    assert.equal(machine.call(guest, __HYPERVISOR_key_op, XENKEY_search, 0x1234), -7);
    const call = [guest.slot, 0, __HYPERVISOR_key_op, XENKEY_search, 0x1234];
    assert.deepEqual(seen, [call, ATTENTION_SERVICE, 0]);
  });

  it("is not ended by an event that wakes the vCPU", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    let sleeps = 0;
    machine.parts.platform.onWait = ({ words, index }) => {
      sleeps += 1;
      if (sleeps < 3) Atomics.add(words, index, 1);
      else
        for (const request of takeServiceCalls(machine.hypervisor, 0, 1))
          answerServiceCall(machine.hypervisor, request, 5);
    };
    assert.equal(machine.call(guest, __HYPERVISOR_secret_op, XENSECRET_query, 0), 5);
    assert.equal(sleeps, 3);
  });

  it("is -ENOSYS for dom0, and for a command that there is not", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(machine.call(machine.dom0, __HYPERVISOR_key_op, XENKEY_search, 0), -ENOSYS);
    assert.equal(machine.call(guest, __HYPERVISOR_key_op, 0x7000, 0), -ENOSYS);
  });

  it("is answered once, and an answer to an earlier call of the vCPU is nobody's", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const requests: ServiceRequest[] = [];
    serving(machine, (request) => {
      for (const earlier of requests) assert.equal(answerServiceCall(machine.hypervisor, earlier, 99), false);
      requests.push(request);
      assert.equal(answerServiceCall(machine.hypervisor, request, requests.length), true);
      assert.equal(answerServiceCall(machine.hypervisor, request, 99), false);
    });
    assert.equal(machine.call(guest, __HYPERVISOR_key_op, XENKEY_search, 0), 1);
    assert.equal(machine.call(guest, __HYPERVISOR_key_op, XENKEY_search, 0), 2);
  });

  it("of a vCPU that ends is nobody's any more, whether it was taken or not", () => {
    for (const takenBefore of [false, true]) {
      const machine = new Machine();
      const { hypervisor } = machine;
      const guest = runningGuest(machine);
      let taken: ServiceRequest[] = [];
      machine.parts.platform.onWait = () => {
        if (takenBefore) taken = takeServiceCalls(hypervisor, 0, 1);
        requestGate(hypervisor.vcpus.gate, guest.cpu.index, GATE_STOP);
        Atomics.add(hypervisor.vcpus.wake, guest.cpu.index, 1);
      };
      assert.throws(() => hypercall(guest.cpu, __HYPERVISOR_key_op, XENKEY_search, 0, 0, 0, 0), ParkedError);
      withdrawGate(hypervisor.vcpus.gate, guest.cpu.index, GATE_STOP, machine.parts.platform);
      endVcpu(hypervisor, guest.cpu.index);
      assert.equal(hypervisor.services.posted[0], 0);
      for (const request of taken) assert.equal(answerServiceCall(hypervisor, request, 1), false);
      assert.deepEqual(takeServiceCalls(hypervisor, 0, 10), []);
      machine.check();
    }
  });

  it("is taken in turn: the slots from the one that is named come first, and what is left raises attention again", () => {
    const machine = new Machine();
    const { hypervisor } = machine;
    const guests = [runningGuest(machine, { vcpus: 2 }), runningGuest(machine), runningGuest(machine)];
    const cpus = [otherVcpu(guests[0]!, 1), ...guests];
    // Each sleeps with its call posted while the next one makes its own; the last one lets the control domain look.
    const order: number[][] = [];
    machine.parts.platform.onWait = () => {
      const next = cpus.shift();
      if (next !== undefined) machine.call(next, __HYPERVISOR_key_op, XENKEY_search, 0);
      for (const first of [guests[1]!.slot, 0, 0]) {
        hypervisor.attention.take();
        const requests = takeServiceCalls(hypervisor, first, 1);
        if (requests.length === 0) continue;
        order.push([first, ...requests.map(({ slot }) => slot), hypervisor.attention.take() & ATTENTION_SERVICE]);
        for (const request of requests) answerServiceCall(hypervisor, request, 0);
      }
    };
    machine.call(cpus.shift()!, __HYPERVISOR_key_op, XENKEY_search, 0);
    const [a, b, c] = guests.map(({ slot }) => slot);
    assert.deepEqual(order, [
      [b, b, ATTENTION_SERVICE],
      [0, a, a, ATTENTION_SERVICE],
      [0, c, 0],
    ]);
  });
});
