import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { beginDestroy, continueDestroy, reapStage } from "../src/domain-reap.ts";
import { addToPhysmap } from "../src/memory-physmap.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { P2M_HOLE } from "../src/p2m.ts";
import { GrantMachine, HOLE, pair, REVOKABLE } from "./grant-kit.ts";

const { GNTST_okay, GNTST_general_error, GNTST_bad_domain } = abi;
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

it("the table frames of a guest stand where it hooks them and are the ones that are read", () => {
  const { machine, granter, mapper } = pair();
  assert.equal(addToPhysmap(machine.hypervisor, granter.slot, abi.XENMAPSPACE_grant_table, 0, 50), 0);
  const entry = 50 * 4096 + 8 * 8;
  granter.cpu.memory.writeU32(entry + 4, 1);
  granter.cpu.memory.writeU32(entry, (mapper.domid << 16) | abi.GTF_permit_access);
  assert.equal(machine.map(mapper, granter).status, GNTST_okay);
  assert.equal(machine.load(granter, entry), abi.GTF_permit_access | abi.GTF_reading | abi.GTF_writing);
});
