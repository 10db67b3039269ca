import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { attachSpace, detachSpace, unhookRun } from "../src/address-space.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { vmaTotal } from "../src/vma.ts";
import { addGuest, createWorld, decrease, ownedPages, PAGE, populate, range, settle } from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

const budgetOf = (world: World, guest: Guest): number => world.hypervisor.domains.vmaBudget[guest.slot]!;
const used = (world: World, guest: Guest): number => world.hypervisor.domains.vmaCount[guest.slot]!;

describe("the budget of mappings", () => {
  it("ends a populate that needs more, with a short count", () => {
    const world = createWorld();
    const guest = addGuest(world, 100, { vmaBudget: 11 });
    const spread = range(0, 50).map((index) => index * 2 + 1);
    assert.equal(populate(guest, spread), (budgetOf(world, guest) - 1) / 2);
    assert.equal(used(world, guest), 11);
    settle(world);
  });
  it("ends a decrease that would split mappings beyond it, but not one that removes them", () => {
    const world = createWorld();
    const guest = addGuest(world, 100, { vmaBudget: 7 });
    assert.equal(populate(guest, range(0, 64)), 64);
    const holes = range(1, 20).map((index) => index * 3);
    const taken = decrease(guest, holes);
    assert.equal(taken, 2);
    settle(world);
    assert.equal(decrease(guest, [30]), 0);
    assert.equal(decrease(guest, [0, 1, 2]), 3);
    settle(world);
  });
  it("does not count against a neighbour that continues the same run of frames", () => {
    const world = createWorld();
    const guest = addGuest(world, 100, { vmaBudget: 10 });
    for (const gfn of range(0, 60)) assert.equal(populate(guest, [gfn]), 1);
    assert.ok(used(world, guest) <= 10);
    settle(world);
  });
  it("of all domains together is kept too", () => {
    const world = createWorld({ vmaLimit: 20, vmaReserve: 4 });
    const [one, two] = [addGuest(world, 50), addGuest(world, 50)];
    assert.ok(
      populate(
        one,
        range(0, 7).map((index) => index * 2),
      ) === 7,
    );
    const got = populate(
      two,
      range(0, 7).map((index) => index * 2),
    );
    assert.ok(got < 7);
    assert.ok(vmaTotal(world.hypervisor) <= 20);
    settle(world);
  });
  it("has a reserve from which pages can be taken away although the limit is reached", () => {
    const world = createWorld({ vmaLimit: 8, vmaReserve: 4 });
    const guest = addGuest(world, 50);
    assert.equal(populate(guest, range(0, 16)), 16);
    while (populate(guest, [100 + 2 * vmaTotal(world.hypervisor)]) === 1);
    assert.equal(decrease(guest, [5]), 0);
    const { hypervisor } = world;
    const lock = hypervisor.locks.id("p2m", guest.slot);
    const entry = hypervisor.p2m.get(guest.slot, 5);
    hypervisor.locks.acquire(lock);
    assert.equal(unhookRun(hypervisor, guest.slot, 5, 1), -abi.ENOSPC);
    assert.equal(hypervisor.p2m.get(guest.slot, 5), entry);
    assert.equal(unhookRun(hypervisor, guest.slot, 5, 1, true), 0);
    hypervisor.locks.release(lock);
    assert.equal(world.mmu.read(guest.base, 5 * PAGE), -1);
    assert.ok(vmaTotal(hypervisor) > 8 && vmaTotal(hypervisor) <= 12);
  });
});

describe("attaching and detaching", () => {
  it("replays the p2m into a new address space, one call per run", () => {
    const world = createWorld();
    const guest = addGuest(world, 100);
    assert.equal(populate(guest, [...range(0, 8), ...range(20, 8)]), 16);
    assert.ok(world.mmu.write(guest.base, 3 * PAGE, 5));
    assert.equal(detachSpace(world.hypervisor, guest.slot), 0);
    assert.equal(world.mmu.read(guest.base, 3 * PAGE), -1);
    assert.equal(guest.cpu.memory.readU8(3 * PAGE), 5);
    const before = world.mmu.calls.length;
    assert.equal(attachSpace(world.hypervisor, guest.slot, guest.base), 0);
    assert.equal(world.mmu.calls.length, before + 3);
    assert.equal(world.mmu.read(guest.base, 3 * PAGE), 5);
    settle(world);
  });
  it("makes no system call for a p2m without an address space", () => {
    const world = createWorld();
    const guest = addGuest(world, 100);
    assert.equal(detachSpace(world.hypervisor, guest.slot), 0);
    const before = world.mmu.calls.filter((call) => call.kind !== "discard").length;
    assert.equal(populate(guest, [1, 2, 3]), 3);
    assert.equal(depopulateRun(world.hypervisor, guest.slot, 2, 1), 1);
    assert.equal(world.mmu.calls.filter((call) => call.kind !== "discard").length, before);
    assert.equal(attachSpace(world.hypervisor, guest.slot, guest.base), 0);
    assert.equal(ownedPages(world, guest), 2);
    settle(world);
  });
  it("that fails half way leaves nothing attached", () => {
    const world = createWorld();
    const guest = addGuest(world, 100);
    assert.equal(populate(guest, [1, 3, 5]), 3);
    assert.equal(detachSpace(world.hypervisor, guest.slot), 0);
    world.mmu.failAt(3);
    assert.equal(attachSpace(world.hypervisor, guest.slot, guest.base), -abi.ENOMEM);
    assert.deepEqual(
      [1, 3, 5].map((gfn) => world.mmu.frameAt(guest.base, gfn)),
      [-1, -1, -1],
    );
    assert.equal(attachSpace(world.hypervisor, guest.slot, guest.base), 0);
    settle(world);
  });
});
