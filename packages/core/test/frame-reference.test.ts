import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { freeFrameCount } from "../src/buddy.ts";
import { addReference, getFrame, putFrame } from "../src/frame-reference.ts";
import { FRAME_REFS_MAX } from "../src/frame-table.ts";
import { beginDestroy, continueDestroy, reapDomains } from "../src/index.ts";
import { relinquishMemory } from "../src/memory-populate.ts";
import {
  addGuest,
  createWorld,
  decrease,
  ownedPages,
  PAGE,
  populate,
  range,
  reserve,
  settle,
} from "./memory-fixture.ts";
import * as abi from "@xenolith/abi";

describe("a reference to a frame", () => {
  it("is had only where the domain's own RAM stands", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    assert.equal(populate(guest, [1]), 1);
    for (const gfn of [0, 2, -1, 1024, 2 ** 32, 2 ** 53, Number.NaN])
      assert.equal(getFrame(world.hypervisor, guest.slot, gfn), -1);
    const frame = getFrame(world.hypervisor, guest.slot, 1);
    assert.equal(frame, world.mmu.frameAt(guest.base, 1));
    putFrame(world.hypervisor, frame);
    settle(world);
  });
  it("keeps the frame through decrease, and the last of several frees it once (M19)", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    assert.equal(populate(guest, [1]), 1);
    const free = freeFrameCount(world.hypervisor);
    const frame = getFrame(world.hypervisor, guest.slot, 1);
    assert.ok(addReference(world.hypervisor, frame));
    assert.equal(decrease(guest, [1]), 1);
    putFrame(world.hypervisor, frame);
    assert.equal(freeFrameCount(world.hypervisor), free);
    putFrame(world.hypervisor, frame);
    assert.equal(freeFrameCount(world.hypervisor), free + 1);
    settle(world);
  });
  it("keeps the frame through the domain's death; the row stays until it goes", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    assert.equal(populate(guest, [1, 2]), 2);
    assert.ok(world.mmu.write(guest.base, PAGE, 0xc3));
    const frame = getFrame(world.hypervisor, guest.slot, 1);
    assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
    for (let slice = 0; slice < 20; slice += 1) continueDestroy(world.hypervisor, guest.slot);
    assert.equal(world.hypervisor.domains.totPages[guest.slot], 1);
    assert.equal(world.hypervisor.directMap.bytes(frame * PAGE, 1)[0], 0xc3);
    putFrame(world.hypervisor, frame);
    for (let slice = 0; slice < 20; slice += 1) reapDomains(world.hypervisor);
    assert.equal(world.hypervisor.domains.slotOf(guest.domid), -1);
    settle(world);
  });
  it("is refused when the frame has as many as it can have (M30)", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    assert.equal(populate(guest, [1]), 1);
    const frame = world.mmu.frameAt(guest.base, 1);
    world.hypervisor.frames.refs[frame] = FRAME_REFS_MAX;
    assert.equal(getFrame(world.hypervisor, guest.slot, 1), -1);
    assert.equal(addReference(world.hypervisor, frame), false);
    world.hypervisor.frames.refs[frame] = FRAME_REFS_MAX - 1;
    assert.equal(getFrame(world.hypervisor, guest.slot, 1), frame);
    world.hypervisor.frames.refs[frame] = 1;
    settle(world);
  });
});

describe("tear-down of a domain's memory", () => {
  it("is sliced, and gives back hooked and unhooked frames alike (M11)", () => {
    const world = createWorld();
    const before = freeFrameCount(world.hypervisor);
    const guest = addGuest(world, 100);
    assert.equal(populate(guest, [...range(0, 40), 100, 102, 104, 106]), 44);
    assert.equal(populate(guest, range(0, 10)), 10);
    assert.equal(reserve(guest, abi.XENMEM_increase_reservation, [], { list: 0, count: 5 }), 5);
    assert.equal(ownedPages(world, guest), 59);
    assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
    let slices = 0;
    while (!continueDestroy(world.hypervisor, guest.slot, 16)) {
      slices += 1;
      assert.ok(slices < 1000);
    }
    assert.ok(slices >= 3);
    for (let slice = 0; slice < 10; slice += 1) reapDomains(world.hypervisor);
    assert.equal(freeFrameCount(world.hypervisor), before);
    settle(world);
  });
  it("done again does nothing", () => {
    const world = createWorld();
    const guest = addGuest(world, 10);
    assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
    while (!continueDestroy(world.hypervisor, guest.slot));
    assert.equal(relinquishMemory(world.hypervisor, guest.slot, 10), true);
    settle(world);
  });
});
