import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { isPending } from "../src/event-delivery.ts";
import { allocateUnbound, bindInterdomain } from "../src/event-ports.ts";
import { fireRefNotify } from "../src/grant-notify.ts";
import { type GrantMachine, HOLE, HOST, pair, READ_ONLY, REVOKABLE } from "./grant-kit.ts";
import type { Guest } from "./machine.ts";

const { GNTST_okay } = abi;
const { UNMAP_NOTIFY_CLEAR_BYTE: CLEAR_BYTE, UNMAP_NOTIFY_SEND_EVENT: SEND_EVENT, UNMAP_NOTIFY_REF: REF } = abi;
const AT = HOLE * 4096;

/** A channel between two domains; returns the port of each. */
const channel = (machine: GrantMachine, one: Guest, other: Guest): [number, number] => {
  const port = allocateUnbound(machine.hypervisor, one.slot, other.domid);
  const peer = bindInterdomain(machine.hypervisor, other.slot, one.slot, port);
  assert.ok(port > 0 && peer > 0);
  const { directMap, domains } = machine.hypervisor;
  // Binding makes the channel pending: both sides begin with nothing pending.
  for (const slot of [one.slot, other.slot]) {
    const frame = domains.sharedInfo[slot]! - 1;
    directMap.zero(frame * 4096 + abi.shared_info.evtchn_pending.offset, 128);
  }
  return [port, peer];
};

describe("unmap notification (7.1)", () => {
  const prepare = () => {
    const { machine, granter, mapper } = pair();
    const [theirs, ours] = channel(machine, granter, mapper);
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    const set = (action: number, more: { offset?: number; port?: number; target?: number } = {}): number =>
      machine.notify(mapper, { target: handle, action, offset: 9, port: ours, ...more });
    machine.store(mapper, AT + 9, 1);
    const seen = (): [number, boolean] => [
      machine.load(granter, 0x1000 + 9),
      isPending(machine.hypervisor, granter.slot, theirs),
    ];
    return { machine, granter, mapper, handle, set, seen, ours };
  };

  it("unknown actions, an offset outside the page: EINVAL", () => {
    const { set } = prepare();
    for (const action of [4, 8, 0x4000_0000, CLEAR_BYTE | 4]) assert.equal(set(action), -abi.EINVAL);
    assert.equal(set(CLEAR_BYTE, { offset: 4096 }), -abi.EINVAL);
    assert.equal(set(CLEAR_BYTE, { offset: 4095 }), 0);
  });

  it("SEND_EVENT with a port through which the caller sends to no other domain: EINVAL", () => {
    const { set, machine, mapper } = prepare();
    const argument = 0x6000;
    mapper.cpu.memory.writeU32(argument, 0);
    assert.equal(machine.call(mapper, abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_bind_ipi, argument), 0);
    const ipi = mapper.cpu.memory.readU32(argument + 4);
    for (const port of [0, ipi, 77, 1023, 1024, 0xffff_ffff]) assert.equal(set(SEND_EVENT, { port }), -abi.EINVAL);
    assert.equal(set(CLEAR_BYTE, { port: 77 }), 0, "without SEND_EVENT no port is looked at");
    assert.equal(set(SEND_EVENT), 0);
  });

  it("SEND_EVENT with a port that is not bound yet: sent to whoever has bound it by then, or to nobody", () => {
    for (const isBound of [true, false]) {
      const { set, machine, granter, mapper } = prepare();
      const unbound = allocateUnbound(machine.hypervisor, mapper.slot, granter.domid);
      assert.equal(set(SEND_EVENT, { port: unbound }), 0);
      const peer = isBound ? bindInterdomain(machine.hypervisor, granter.slot, mapper.domid, unbound) : 0;
      if (isBound) {
        const frame = machine.hypervisor.domains.sharedInfo[granter.slot]! - 1;
        machine.hypervisor.directMap.zero(frame * 4096 + abi.shared_info.evtchn_pending.offset, 128);
      }
      machine.destroy(mapper);
      const pending = Array.from({ length: 1024 }, (_, port) => port).filter((port) =>
        isPending(machine.hypervisor, granter.slot, port),
      );
      assert.deepEqual(pending, isBound ? [peer] : []);
    }
  });

  it("no such mapping, no such reference: ENOENT", () => {
    const { set, machine, mapper } = prepare();
    for (const target of [1, 255, 256, 0xffff_ffff]) assert.equal(set(CLEAR_BYTE, { target }), -abi.ENOENT);
    for (const target of [8, 511, 512, 0xffff_ffff]) assert.equal(set(CLEAR_BYTE | REF, { target }), -abi.ENOENT);
    machine.grant(mapper, 8, 0, 1);
    assert.equal(set(CLEAR_BYTE | REF, { target: 8 }), 0);
  });

  it("CLEAR_BYTE on a read-only mapping: EINVAL; SEND_EVENT is fine", () => {
    const { machine, granter, mapper, set } = prepare();
    const { handle } = machine.map(mapper, granter, { gfn: 70, flags: HOST | READ_ONLY });
    assert.equal(set(CLEAR_BYTE, { target: handle }), -abi.EINVAL);
    assert.equal(set(SEND_EVENT, { target: handle }), 0);
  });

  it("on a revokable grant either is EINVAL, severed or not, and for the granter too", () => {
    const { machine, granter, mapper, set } = prepare();
    machine.grant(granter, 9, mapper, 2, REVOKABLE);
    assert.equal(machine.notify(granter, { target: 9, action: CLEAR_BYTE | REF }), -abi.EINVAL);
    const { handle } = machine.mapRevokable(mapper, granter, { ref: 9, gfn: 70 });
    for (const action of [CLEAR_BYTE, SEND_EVENT]) assert.equal(set(action, { target: handle }), -abi.EINVAL);
    assert.equal(machine.notify(granter, { target: 9, action: CLEAR_BYTE | REF }), -abi.EINVAL);
    machine.denyAccess(granter, 9);
    machine.revoke(granter, 9);
    for (const action of [CLEAR_BYTE, SEND_EVENT]) assert.equal(set(action, { target: handle }), -abi.EINVAL);
  });

  it("at unmap: first the byte, then the mapping goes, then the event", () => {
    const { machine, granter, mapper, handle, set, seen } = prepare();
    assert.equal(set(CLEAR_BYTE | SEND_EVENT), 0);
    const order: (readonly [number, boolean])[] = [seen()];
    machine.parts.mmu.onCall = (call) => {
      if (call.kind === "unmap") order.push(seen());
    };
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    order.push(seen());
    assert.deepEqual(order, [
      [1, false],
      [0, false],
      [0, true],
    ]);
    assert.equal(machine.use(granter, 8), "");
  });

  it("a new request replaces the earlier one, and 0 removes it", () => {
    const { machine, mapper, handle, set, seen } = prepare();
    assert.equal(set(CLEAR_BYTE | SEND_EVENT), 0);
    assert.equal(set(SEND_EVENT), 0);
    assert.equal(set(0), 0);
    machine.unmap(mapper, handle, HOLE);
    assert.deepEqual(seen(), [1, false]);
  });

  it("it ends with the mapping: the next use of the handle has none", () => {
    const { machine, granter, mapper, handle, set, seen } = prepare();
    assert.equal(set(CLEAR_BYTE), 0);
    machine.unmap(mapper, handle, HOLE);
    assert.equal(machine.map(mapper, granter).handle, handle);
    machine.store(mapper, AT + 9, 1);
    machine.unmap(mapper, handle, HOLE);
    assert.deepEqual(seen(), [1, false]);
  });

  it("in a list of unmappings too, and by reset", () => {
    for (const way of ["list", "reset"]) {
      const { machine, granter, mapper, handle, set, seen } = prepare();
      const other = machine.map(mapper, granter, { gfn: 65 });
      assert.equal(set(CLEAR_BYTE | SEND_EVENT), 0);
      if (way === "reset") assert.equal(machine.op(mapper, abi.GNTTABOP_reset), 0);
      else
        machine.unmapAll(mapper, [
          { handle: other.handle, host: AT + 4096 },
          { handle, host: AT },
        ]);
      assert.deepEqual(seen(), [0, true], way);
    }
  });

  it("at the mapper's death: byte, then event, while its ports are still open", () => {
    const { machine, mapper, set, seen } = prepare();
    assert.equal(set(CLEAR_BYTE | SEND_EVENT), 0);
    machine.destroy(mapper);
    assert.deepEqual(seen(), [0, true]);
  });

  it("of a reference: when its owner dies; the mapper sees byte and event", () => {
    const { machine, granter, mapper, ours } = prepare();
    const port = machine.hypervisor.events.load(mapper.slot, ours);
    assert.ok(port !== 0);
    const theirs = 1;
    assert.equal(
      machine.notify(granter, { target: 8, action: CLEAR_BYTE | SEND_EVENT | REF, offset: 9, port: theirs }),
      0,
    );
    machine.destroy(granter);
    assert.equal(machine.load(mapper, AT + 9), 0);
    assert.equal(isPending(machine.hypervisor, mapper.slot, ours), true);
  });

  it("of a reference: when its owner ends it itself, in use or not", () => {
    for (const isUsed of [true, false]) {
      const { machine, granter, mapper, handle, ours } = prepare();
      if (!isUsed) machine.unmap(mapper, handle, HOLE);
      assert.equal(
        machine.notify(granter, { target: 8, action: CLEAR_BYTE | SEND_EVENT | REF, offset: 9, port: 1 }),
        0,
      );
      fireRefNotify(machine.hypervisor, granter.slot, 8);
      assert.equal(machine.load(granter, 0x1000 + 9), 0);
      assert.equal(isPending(machine.hypervisor, mapper.slot, ours), true);
      machine.store(granter, 0x1000 + 9, 5);
      fireRefNotify(machine.hypervisor, granter.slot, 8);
      assert.equal(machine.load(granter, 0x1000 + 9), 5, "once");
    }
  });

  it("a port that was closed meanwhile gets no event, and nothing fails", () => {
    const { machine, mapper, handle, set, seen, ours } = prepare();
    assert.equal(set(CLEAR_BYTE | SEND_EVENT), 0);
    const argument = 0x6000;
    mapper.cpu.memory.writeU32(argument, ours);
    assert.equal(machine.call(mapper, abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_close, argument), 0);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.deepEqual(seen(), [0, false]);
  });
});
