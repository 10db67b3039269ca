import * as abi from "@xenolith/abi";
import { DOMID_SELF, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { pauseDomain } from "../src/domain-run.ts";
import { bindVirq as coreBindVirq } from "../src/event-ports.ts";
import {
  allocUnbound,
  ARG,
  bindIpi,
  bindVirq,
  clearPort,
  clearUpcall,
  close,
  connected,
  NOWHERE,
  otherVcpu,
  pending,
  reset,
  runningGuest,
  selector,
  send,
  setMask,
  status,
  unmask,
  upcallPending,
} from "./events-kit.ts";
import { Machine, pokeWords } from "./machine.ts";

const EVENT = abi.__HYPERVISOR_event_channel_op;

describe("send and delivery", () => {
  it("sets the peer's pending bit, its selector bit and its upcall", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    for (let fill = 0; fill < 40; fill += 1) allocUnbound(second, 0);
    const { a, b } = connected(machine, first, second);
    assert.equal(b, 41);
    assert.equal(send(first, a), 0);
    assert.deepEqual([pending(second, b), selector(second), upcallPending(second)], [true, 2, true]);
    assert.deepEqual([pending(first, a), upcallPending(first)], [false, false]);
  });

  it("events merge: a port that is pending is not told again", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a } = connected(machine, first, second);
    send(first, a);
    clearUpcall(second);
    send(first, a);
    assert.deepEqual([selector(second), upcallPending(second)], [0, false]);
    assert.equal(machine.hypervisor.domains.eventCount(second.slot), 2, "one for the bind, one for both sends");
  });

  it("a masked port becomes pending and tells nobody", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    setMask(second, b, true);
    send(first, a);
    assert.deepEqual([pending(second, b), selector(second), upcallPending(second)], [true, 0, false]);
  });

  it("refuses invalid and closed ports, virqs and pirqs with -EINVAL; an unbound port drops the event", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const virq = bindVirq(guest, abi.VIRQ_TIMER);
    for (const port of [0, 900, 1024, 4096, 0xffff_ffff, virq])
      assert.equal(send(guest, port), -EINVAL, `port ${port}`);
    assert.equal(send(guest, allocUnbound(guest, 0)), 0);
    assert.equal(upcallPending(guest), false);
  });
});

describe("unmask", () => {
  it("of a masked pending port delivers", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    setMask(second, b, true);
    send(first, a);
    assert.equal(unmask(second, b), 0);
    assert.deepEqual([selector(second), upcallPending(second)], [1, true]);
  });

  it("of a port whose mask is clear does nothing, even when it is pending", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    setMask(second, b, true);
    send(first, a);
    setMask(second, b, false);
    assert.equal(unmask(second, b), 0);
    assert.equal(upcallPending(second), false);
  });

  it("of a port that is not pending only clears the mask", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    setMask(second, b, true);
    assert.equal(unmask(second, b), 0);
    assert.equal(upcallPending(second), false);
    send(first, a);
    assert.equal(upcallPending(second), true);
  });

  it("refuses ports out of range with -EINVAL; one that is closed is in range", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { portMax: 100 });
    for (const port of [0, 101, 1024, 0xffff_ffff]) assert.equal(unmask(guest, port), -EINVAL, `port ${port}`);
    assert.equal(unmask(guest, 100), 0);
  });
});

describe("status", () => {
  it("refuses ports out of range with -EINVAL, domains without right with -EPERM, missing ones with -ESRCH", () => {
    const machine = new Machine();
    const [guest, other] = [runningGuest(machine), runningGuest(machine)];
    for (const port of [0, 1024, 0xffff_ffff]) assert.equal(status(guest, port).result, -EINVAL);
    assert.equal(status(guest, 1, other.domid).result, -EPERM);
    assert.equal(status(guest, 1, 99).result, -ESRCH);
    assert.deepEqual([status(guest, 1).result, status(guest, 1).status], [0, abi.EVTCHNSTAT_closed]);
    assert.equal(status(machine.dom0, 1, guest.domid).result, 0);
  });

  it("names the virq and the vCPU of a virq port", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const port = status(guest, bindVirq(guest, abi.VIRQ_DEBUG, 1));
    assert.deepEqual([port.status, port.vcpu, port.number], [abi.EVTCHNSTAT_virq, 1, abi.VIRQ_DEBUG]);
  });
});

describe("reset", () => {
  it("closes every port of the caller; peers wait for it again", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a } = connected(machine, first, second);
    bindVirq(second, abi.VIRQ_TIMER);
    bindIpi(second, 0);
    allocUnbound(second, 0);
    assert.equal(reset(second), 0);
    assert.equal(machine.hypervisor.events.open[second.slot], 0);
    assert.deepEqual([status(first, a).status, status(first, a).dom], [abi.EVTCHNSTAT_unbound, second.domid]);
    assert.equal(allocUnbound(second, 0), 1);
    machine.check();
  });

  it("of another domain needs it paused by its controller, else -EINVAL", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    allocUnbound(guest, 0);
    assert.equal(reset(machine.dom0, guest.domid), -EINVAL);
    assert.equal(pauseDomain(machine.hypervisor, guest.slot), 0);
    assert.equal(reset(machine.dom0, guest.domid), 0);
    assert.equal(machine.hypervisor.events.open[guest.slot], 0);
  });

  it("of another domain without right over it fails with -EPERM, of a missing one with -ESRCH", () => {
    const machine = new Machine();
    const [guest, other] = [runningGuest(machine), runningGuest(machine)];
    assert.equal(reset(guest, other.domid), -EPERM);
    assert.equal(reset(guest, 99), -ESRCH);
    assert.equal(reset(guest, guest.domid), 0);
  });
});

describe("event_channel_op in general", () => {
  it("the FIFO operations are refused: -EOPNOTSUPP and -ENOSYS", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(machine.call(guest, EVENT, abi.EVTCHNOP_init_control, ARG), -EOPNOTSUPP);
    assert.equal(machine.call(guest, EVENT, abi.EVTCHNOP_expand_array, ARG), -EOPNOTSUPP);
    assert.equal(machine.call(guest, EVENT, abi.EVTCHNOP_set_priority, ARG), -ENOSYS);
    for (const command of [14, 99, -1]) assert.equal(machine.call(guest, EVENT, command, ARG), -ENOSYS);
  });

  it("every operation answers -EFAULT for an argument that is not in memory, and changes nothing", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const port = allocUnbound(guest, 0);
    for (let command = 0; command <= 10; command += 1) {
      for (const address of [NOWHERE, 0xffff_fffe, 0x0fff_fffd]) {
        assert.equal(machine.call(guest, EVENT, command, address), -EFAULT, `command ${command} at ${address}`);
      }
    }
    assert.equal(status(guest, port).status, abi.EVTCHNSTAT_unbound);
    assert.equal(machine.hypervisor.events.open[guest.slot], 1);
  });

  it("an argument may straddle two pages", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    pokeWords(guest, 0x1ffc, DOMID_SELF, 0);
    assert.equal(machine.call(guest, EVENT, abi.EVTCHNOP_alloc_unbound, 0x1ffc), 0);
  });

  it("ports of a domain that is dying cannot be opened, and those that wait for it cannot be bound", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    machine.hypervisor.domains.state[guest.slot] = 5;
    assert.equal(coreBindVirq(machine.hypervisor, guest.slot, abi.VIRQ_TIMER, 0), -EINVAL);
  });

  it("what one vCPU opens, another of the domain may use", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const second = otherVcpu(guest, 1);
    const port = allocUnbound(guest, 0);
    assert.equal(close(second, port), 0);
    clearPort(guest, port);
    machine.check();
  });
});
