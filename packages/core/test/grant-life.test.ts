import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { beginDestroy, continueDestroy, reapStage } from "../src/domain-reap.ts";
import { isPending } from "../src/event-delivery.ts";
import { allocateUnbound, bindInterdomain } from "../src/event-ports.ts";
import { fireRefNotify } from "../src/grant-notify.ts";
import { addToPhysmap } from "../src/memory-physmap.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { P2M_HOLE } from "../src/p2m.ts";
import { GrantMachine, HOLE, HOST, pair, READ_ONLY, REVOKABLE } from "./grant-kit.ts";
import type { Guest } from "./machine.ts";

const { GNTST_okay, GNTST_general_error, GNTST_bad_domain } = abi;
const { UNMAP_NOTIFY_CLEAR_BYTE: CLEAR_BYTE, UNMAP_NOTIFY_SEND_EVENT: SEND_EVENT, UNMAP_NOTIFY_REF: REF } = abi;
const AT = HOLE * 4096;

describe("the end of a domain (3.10)", () => {
  it("2: the mapper's end drops pins, references and bits: the granter can end access", () => {
    for (const budget of [undefined, 1, 7]) {
      const { machine, granter, mapper } = pair();
      for (let index = 0; index < 6; index += 1) {
        machine.grant(granter, 8 + index, mapper, index, index % 2 === 0 ? REVOKABLE : abi.GTF_permit_access);
        const wish = { ref: 8 + index, gfn: index === 4 ? 4 : 70 + index * 2, lgfn: 4 };
        const mapped =
          index % 2 === 0 ? machine.mapRevokable(mapper, granter, wish) : machine.map(mapper, granter, wish);
        assert.equal(mapped.status, GNTST_okay);
      }
      machine.denyAccess(granter, 8);
      machine.revoke(granter, 8);
      machine.destroy(mapper, budget);
      for (let index = 0; index < 6; index += 1)
        assert.equal(machine.use(granter, 8 + index), "", `budget ${budget}, reference ${8 + index}`);
      assert.equal(machine.endAccess(granter, 9), true);
      assert.equal(machine.hypervisor.domains.slotOf(mapper.domid), -1, "and the mapper is gone");
    }
  });

  it("3: the granter's end leaves what others mapped as it is: a zombie, until the last mapping ends", () => {
    const { machine, granter, mapper } = pair();
    const { domains, frames } = machine.hypervisor;
    machine.grant(granter, 8, mapper, 1);
    const mfn = machine.frame(granter, 1);
    const { handle } = machine.map(mapper, granter);
    machine.destroy(granter);
    assert.equal(reapStage(machine.hypervisor, granter.slot), "zombie");
    assert.equal(domains.totPages[granter.slot], 1);
    assert.equal(machine.load(mapper, AT), 0xa1);
    assert.ok(machine.store(mapper, AT, 0x44));
    assert.equal(frames.owner[mfn], granter.slot + 1);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(frames.owner[mfn], 0);
    assert.equal(machine.hypervisor.directMap.loadU32(mfn * 4096), 0, "scrubbed");
    continueDestroy(machine.hypervisor, granter.slot);
    continueDestroy(machine.hypervisor, granter.slot);
    assert.equal(domains.slotOf(granter.domid), -1);
  });

  it("4: maps of a dying granter: general_error; when its number is gone: bad_domain", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.grant(granter, 9, mapper, 2);
    const { handle } = machine.map(mapper, granter);
    assert.equal(beginDestroy(machine.hypervisor, granter.slot), 0);
    for (const ref of [8, 9]) assert.equal(machine.map(mapper, granter, { ref, gfn: 70 }).status, GNTST_general_error);
    for (let round = 0; round < 50; round += 1) continueDestroy(machine.hypervisor, granter.slot);
    for (const ref of [8, 9]) assert.equal(machine.map(mapper, granter, { ref, gfn: 70 }).status, GNTST_general_error);
    machine.unmap(mapper, handle, HOLE);
    for (let round = 0; round < 50; round += 1) continueDestroy(machine.hypervisor, granter.slot);
    assert.equal(machine.map(mapper, granter, { gfn: 70 }).status, GNTST_bad_domain);
  });

  it("5: the granter balloons a mapped page out: a hole at once, but still in its accounts until the mapping ends", () => {
    const { machine, granter, mapper } = pair();
    const { domains, p2m } = machine.hypervisor;
    machine.grant(granter, 8, mapper, 1);
    const { handle } = machine.map(mapper, granter);
    assert.equal(depopulateRun(machine.hypervisor, granter.slot, 1, 1), 1);
    assert.equal(p2m.get(granter.slot, 1), P2M_HOLE);
    assert.equal(domains.totPages[granter.slot], 8);
    assert.equal(machine.load(mapper, AT), 0xa1);
    assert.equal(
      machine.map(mapper, granter, { gfn: 70 }).status,
      GNTST_okay,
      "the entry is pinned: its frame is known",
    );
    assert.equal(machine.unmap(mapper, 1, 70), GNTST_okay);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
    assert.equal(domains.totPages[granter.slot], 7);
    assert.equal(machine.map(mapper, granter).status, abi.GNTST_bad_page);
  });

  it("6: decrease_reservation stops at somebody else's page", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.map(mapper, granter, { gfn: 3 });
    assert.equal(depopulateRun(machine.hypervisor, mapper.slot, 2, 3), 1);
  });

  it("7: what was mapped cannot be granted on", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1);
    machine.map(mapper, granter);
    machine.grant(mapper, 8, granter, HOLE);
    assert.equal(machine.map(granter, mapper).status, abi.GNTST_bad_page);
  });

  it("8: what a domain's end does not touch goes on: a third domain's mappings of both", () => {
    const { machine, granter, mapper } = pair();
    const third = machine.guest();
    machine.grant(granter, 8, third, 1);
    machine.grant(mapper, 8, third, 2);
    assert.equal(machine.map(third, granter).status, GNTST_okay);
    assert.equal(machine.map(third, mapper, { gfn: 70 }).status, GNTST_okay);
    machine.destroy(granter);
    assert.equal(machine.load(third, AT), 0xa1);
    assert.equal(machine.load(third, 70 * 4096), 0xb2);
  });

  it("the granter's end revokes what is revokable: no zombie is left", () => {
    const { machine, granter, mapper } = pair();
    machine.grant(granter, 8, mapper, 1, REVOKABLE);
    const { handle } = machine.mapRevokable(mapper, granter, { lgfn: 3 });
    machine.destroy(granter);
    assert.equal(machine.hypervisor.domains.slotOf(granter.domid), -1);
    assert.equal(machine.load(mapper, AT), 0xb3);
    assert.equal(machine.unmap(mapper, handle, HOLE), GNTST_okay);
  });

  it("a mapper with many mappings ends in slices, few mappings in each: the control domain has its turn between", () => {
    const { machine, granter, mapper } = pair();
    const { hypervisor } = machine;
    const { maptrack } = hypervisor;
    machine.grant(granter, 8, mapper, 1);
    machine.mapAll(
      mapper,
      granter,
      Array.from({ length: 60 }, (_, index) => ({ gfn: HOLE + index })),
    );
    assert.equal(beginDestroy(hypervisor, mapper.slot), 0);
    let most = 0;
    for (let live = 60; live > 0; live = maptrack.liveCount[mapper.slot]!) {
      continueDestroy(hypervisor, mapper.slot, 64);
      most = Math.max(most, live - maptrack.liveCount[mapper.slot]!);
    }
    assert.equal(most, 4);
    machine.destroy(mapper);
    assert.equal(machine.use(granter, 8), "");
  });

  it("both ends of a mapping die, in either order and at once", () => {
    for (const order of [0, 1, 2]) {
      const { machine, granter, mapper } = pair();
      for (let index = 0; index < 4; index += 1) {
        machine.grant(granter, 8 + index, mapper, index, index % 2 === 0 ? REVOKABLE : abi.GTF_permit_access);
        machine.grant(mapper, 8 + index, granter, index, index % 2 === 0 ? REVOKABLE : abi.GTF_permit_access);
        for (const [one, other] of [
          [mapper, granter],
          [granter, mapper],
        ] as const) {
          const wish = { ref: 8 + index, gfn: 80 + index };
          assert.equal(
            (index % 2 === 0 ? machine.mapRevokable(one, other, wish) : machine.map(one, other, wish)).status,
            GNTST_okay,
          );
        }
      }
      if (order === 2) {
        for (const guest of [granter, mapper]) assert.equal(beginDestroy(machine.hypervisor, guest.slot), 0);
        for (let round = 0; round < 400; round += 1) {
          for (const guest of [granter, mapper]) continueDestroy(machine.hypervisor, guest.slot, 3);
          machine.check();
        }
      } else {
        machine.destroy(order === 0 ? granter : mapper, 5);
        machine.destroy(order === 0 ? mapper : granter, 5);
        for (let round = 0; round < 9; round += 1)
          continueDestroy(machine.hypervisor, (order === 0 ? granter : mapper).slot);
      }
      for (const guest of [granter, mapper])
        assert.equal(machine.hypervisor.domains.slotOf(guest.domid), -1, `order ${order}`);
    }
  });

  it("creating and ending domains that share costs nothing in the end", () => {
    const machine = new GrantMachine();
    const { frames, maptrack } = machine.hypervisor;
    const free = (): number => frames.owner.reduce((sum, owner) => sum + Number(owner === 0), 0);
    let before = -1;
    for (let round = 0; round < 6; round += 1) {
      const granter = machine.guest();
      const mapper = machine.guest();
      machine.grant(granter, 8, mapper, 1);
      machine.grant(mapper, 8, granter, 1, REVOKABLE);
      machine.map(mapper, granter);
      machine.mapRevokable(granter, mapper);
      machine.destroy(granter);
      machine.destroy(mapper);
      for (let more = 0; more < 9; more += 1) continueDestroy(machine.hypervisor, granter.slot);
      if (before < 0) before = free();
      assert.equal(free(), before);
      assert.ok(maptrack.poolHead[1]! <= 2);
    }
  });
});

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

it("the table frames of a guest stand where it hooks them and are the ones that are read", () => {
  const { machine, granter, mapper } = pair();
  assert.equal(addToPhysmap(machine.hypervisor, granter.slot, abi.XENMAPSPACE_grant_table, 0, 50), 0);
  const entry = 50 * 4096 + 8 * 8;
  granter.cpu.memory.writeU32(entry + 4, 1);
  granter.cpu.memory.writeU32(entry, (mapper.domid << 16) | abi.GTF_permit_access);
  assert.equal(machine.map(mapper, granter).status, GNTST_okay);
  assert.equal(machine.load(granter, entry), abi.GTF_permit_access | abi.GTF_reading | abi.GTF_writing);
});
