import * as abi from "@xenolith/abi";
import { DOMID_SELF, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT, ENOSPC, EPERM, ESRCH } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTarget } from "../src/domain-ops.ts";
import { raiseGlobalVirq, raiseVirq, setVirqOwner } from "../src/virq.ts";
import {
  allocUnbound,
  bindInterdomain,
  bindIpi,
  bindVcpu,
  bindVirq,
  close,
  connected,
  NOWHERE,
  pending,
  runningGuest,
  send,
  setMask,
  settle,
  status,
  upcallPending,
} from "./events-kit.ts";
import { Machine } from "./machine.ts";

const EVENT = abi.__HYPERVISOR_event_channel_op;

describe("alloc_unbound", () => {
  it("takes the lowest free port, from 1 upwards", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.deepEqual(
      [1, 2, 3].map(() => allocUnbound(guest, 0)),
      [1, 2, 3],
    );
    assert.equal(close(guest, 2), 0);
    assert.deepEqual(
      [1, 2].map(() => allocUnbound(guest, 0)),
      [2, 4],
    );
    machine.check();
  });

  it("accepts a remote domain that does not exist yet, and DOMID_SELF for the caller", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(status(guest, allocUnbound(guest, 4711)).dom, 4711);
    assert.equal(status(guest, allocUnbound(guest, DOMID_SELF)).dom, guest.domid);
  });

  it("for another domain needs rights over it: none -EPERM, its device model and dom0 may, no such domain -ESRCH", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const other = runningGuest(machine);
    assert.equal(allocUnbound(guest, 0, other.domid), -EPERM);
    assert.equal(allocUnbound(guest, 0, 99), -ESRCH);
    assert.equal(allocUnbound(machine.dom0, guest.domid, other.domid), 1);
    assert.equal(setTarget(machine.hypervisor, guest.slot, other.slot), 0);
    assert.equal(allocUnbound(guest, 0, other.domid), 2);
    assert.equal(status(other, 1).dom, guest.domid);
    machine.check();
  });

  it("fails with -ENOSPC when the highest port that the domain may have is open", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { portMax: 3 });
    assert.deepEqual(
      [1, 2, 3, 4].map(() => allocUnbound(guest, 0)),
      [1, 2, 3, -ENOSPC],
    );
    assert.equal(close(guest, 1), 0);
    assert.equal(allocUnbound(guest, 0), 1);
  });

  it("fails with -EFAULT and opens nothing where the argument cannot be read, or not be written", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    for (const address of [NOWHERE, 0xffff_ffff, 0xffff_fffc]) {
      assert.equal(machine.call(guest, EVENT, abi.EVTCHNOP_alloc_unbound, address), -EFAULT);
    }
    assert.equal(allocUnbound(guest, 0), 1);
  });
});

describe("bind_interdomain", () => {
  it("connects both ends, and the new local port is pending at once", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const a = allocUnbound(first, second.domid);
    const b = bindInterdomain(second, first.domid, a);
    assert.deepEqual(
      { ...status(first, a), result: 0, number: 0 },
      { result: 0, status: 2, vcpu: 0, number: 0, dom: second.domid, port: b },
    );
    assert.deepEqual(
      { ...status(second, b), result: 0, number: 0 },
      { result: 0, status: 2, vcpu: 0, number: 0, dom: first.domid, port: a },
    );
    assert.equal(pending(second, b), true);
    assert.equal(upcallPending(second), true);
    assert.equal(pending(first, a), false);
  });

  it("refuses a domain that is not there with -ESRCH", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    for (const domid of [7, 0x7fef, 0x7ff4, 0xffff]) assert.equal(bindInterdomain(guest, domid, 1), -ESRCH);
  });

  it("refuses a port that is invalid, closed, bound or reserved for somebody else with -EINVAL", () => {
    const machine = new Machine();
    const [first, second, third] = [runningGuest(machine), runningGuest(machine), runningGuest(machine)];
    const reserved = allocUnbound(first, third.domid);
    for (const port of [0, 1023, 1024, 0x7fff_ffff, 0xffff_ffff, reserved]) {
      assert.equal(bindInterdomain(second, first.domid, port), -EINVAL, `port ${port}`);
    }
    assert.equal(bindInterdomain(third, first.domid, reserved), 1);
    assert.equal(bindInterdomain(third, first.domid, reserved), -EINVAL);
    machine.check();
  });

  it("fails with -ENOSPC when the caller has no port left, and leaves the remote port waiting", () => {
    const machine = new Machine();
    const first = runningGuest(machine);
    const second = runningGuest(machine, { portMax: 1 });
    const a = allocUnbound(first, second.domid);
    assert.equal(allocUnbound(second, 0), 1);
    assert.equal(bindInterdomain(second, first.domid, a), -ENOSPC);
    assert.equal(status(first, a).status, abi.EVTCHNSTAT_unbound);
    assert.equal(close(second, 1), 0);
    assert.equal(bindInterdomain(second, first.domid, a), 1);
  });

  it("connects two ports of one domain with each other", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const a = allocUnbound(guest, DOMID_SELF);
    const b = bindInterdomain(guest, DOMID_SELF, a);
    settle(guest);
    assert.equal(send(guest, a), 0);
    assert.deepEqual([pending(guest, a), pending(guest, b)], [false, true]);
    assert.equal(close(guest, a), 0);
    assert.equal(status(guest, b).status, abi.EVTCHNSTAT_unbound);
    machine.check();
  });
});

describe("bind_virq", () => {
  it("refuses a number that is no virq, and a virq of the whole domain on another vCPU, with -EINVAL", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    for (const virq of [24, 25, 255, 0xffff_ffff]) assert.equal(bindVirq(guest, virq), -EINVAL);
    assert.equal(bindVirq(guest, abi.VIRQ_ARGO, 1), -EINVAL);
    assert.equal(bindVirq(machine.dom0, abi.VIRQ_DOM_EXC, 1), -EINVAL);
    assert.equal(bindVirq(guest, abi.VIRQ_ARGO, 0), 1);
  });

  it("refuses a vCPU that is not there with -ENOENT", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    assert.equal(bindVirq(guest, abi.VIRQ_TIMER, 2), -ENOENT);
    assert.equal(bindVirq(guest, abi.VIRQ_TIMER, 1), 1);
  });

  it("refuses a global virq to everybody but its owner with -EBUSY", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    assert.equal(bindVirq(guest, abi.VIRQ_DOM_EXC), -EBUSY);
    assert.equal(bindVirq(machine.dom0, abi.VIRQ_DOM_EXC), 1);
    setVirqOwner(machine.hypervisor, abi.VIRQ_CON_RING, guest.slot);
    assert.equal(bindVirq(machine.dom0, abi.VIRQ_CON_RING), -EBUSY);
    assert.equal(bindVirq(guest, abi.VIRQ_CON_RING), 1);
    raiseGlobalVirq(machine.hypervisor, abi.VIRQ_CON_RING);
    assert.equal(pending(guest, 1), true);
  });

  it("refuses a virq that is bound with -EEXIST, per vCPU, until its port is closed", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    assert.equal(bindVirq(guest, abi.VIRQ_TIMER, 0), 1);
    assert.equal(bindVirq(guest, abi.VIRQ_TIMER, 0), -EEXIST);
    assert.equal(bindVirq(guest, abi.VIRQ_TIMER, 1), 2);
    assert.equal(close(guest, 1), 0);
    assert.equal(bindVirq(guest, abi.VIRQ_TIMER, 0), 1);
  });

  it("delivers to the vCPU that it was bound for", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const port = bindVirq(guest, abi.VIRQ_TIMER, 1);
    raiseVirq(machine.hypervisor, guest.slot, abi.VIRQ_TIMER, 0);
    assert.equal(pending(guest, port), false);
    raiseVirq(machine.hypervisor, guest.slot, abi.VIRQ_TIMER, 1);
    assert.deepEqual([upcallPending(guest, 0), upcallPending(guest, 1)], [false, true]);
  });

  it("a virq of the whole domain that was moved to another vCPU can be closed and bound again", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const port = bindVirq(guest, abi.VIRQ_ARGO);
    assert.equal(bindVcpu(guest, port, 1), 0);
    machine.check();
    raiseVirq(machine.hypervisor, guest.slot, abi.VIRQ_ARGO);
    assert.deepEqual([upcallPending(guest, 0), upcallPending(guest, 1)], [false, true]);
    assert.equal(close(guest, port), 0);
    machine.check();
    assert.equal(bindVirq(guest, abi.VIRQ_ARGO), port);
  });
});

describe("bind_ipi and bind_vcpu", () => {
  it("an ipi interrupts the vCPU that it was bound for, sent by any vCPU", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const port = bindIpi(guest, 1);
    assert.equal(bindIpi(guest, 2), -ENOENT);
    assert.equal(send(guest, port), 0);
    assert.deepEqual([upcallPending(guest, 0), upcallPending(guest, 1)], [false, true]);
    assert.deepEqual([status(guest, port).status, status(guest, port).vcpu], [abi.EVTCHNSTAT_ipi, 1]);
  });

  it("a channel notifies the vCPU that it is bound to; closing sets that back to 0", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine, { vcpus: 2 })];
    const { a, b } = connected(machine, first, second);
    assert.equal(bindVcpu(second, b, 1), 0);
    assert.equal(send(first, a), 0);
    assert.deepEqual([upcallPending(second, 0), upcallPending(second, 1)], [false, true]);
    assert.equal(close(second, b), 0);
    assert.equal(status(second, allocUnbound(second, 0)).vcpu, 0);
  });

  it("refuses a vCPU that is not there with -ENOENT, before it looks at the port", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    assert.equal(bindVcpu(guest, 77, 2), -ENOENT);
    assert.equal(bindVcpu(guest, allocUnbound(guest, 0), 1), 0);
  });

  it("refuses ports that are invalid or closed, ipis and virqs of one vCPU with -EINVAL", () => {
    const machine = new Machine();
    const guest = runningGuest(machine, { vcpus: 2 });
    const ports = [0, 500, 1024, 0xffff_ffff, bindIpi(guest, 0), bindVirq(guest, abi.VIRQ_TIMER, 0)];
    for (const port of ports) assert.equal(bindVcpu(guest, port, 1), -EINVAL, `port ${port}`);
  });
});

describe("close", () => {
  it("refuses ports that are invalid or closed with -EINVAL", () => {
    const machine = new Machine();
    const guest = runningGuest(machine);
    const port = allocUnbound(guest, 0);
    for (const other of [0, port + 1, 1023, 1024, 0xffff_ffff]) assert.equal(close(guest, other), -EINVAL);
    assert.equal(close(guest, port), 0);
    assert.equal(close(guest, port), -EINVAL);
  });

  it("the peer becomes unbound again, waits for the closer, gets no event, and may be bound anew", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    assert.equal(close(second, b), 0);
    const peer = status(first, a);
    assert.deepEqual([peer.status, peer.dom], [abi.EVTCHNSTAT_unbound, second.domid]);
    assert.equal(pending(first, a), false);
    assert.equal(send(first, a), 0);
    assert.equal(bindInterdomain(second, first.domid, a), b);
    assert.equal(status(first, a).status, abi.EVTCHNSTAT_interdomain);
    machine.check();
  });

  it("clears the pending bit and leaves the mask bit alone", () => {
    const machine = new Machine();
    const [first, second] = [runningGuest(machine), runningGuest(machine)];
    const { a, b } = connected(machine, first, second);
    setMask(second, b, true);
    assert.equal(send(first, a), 0);
    assert.equal(pending(second, b), true);
    assert.equal(close(second, b), 0);
    assert.equal(pending(second, b), false);
    const again = bindInterdomain(second, first.domid, a);
    assert.equal(again, b);
    assert.equal(upcallPending(second), false, "still masked, so binding tells nobody");
    assert.equal(pending(second, b), true);
  });
});
