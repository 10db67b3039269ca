import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ENOENT } from "@xenolith/abi";
import { freeFrameCount } from "../src/buddy.ts";
import {
  auditExtents,
  beginDestroy,
  closeExtent,
  continueDestroy,
  extentMappingState,
  findHoles,
  reapDomains,
  reapExtents,
  revokeExtent,
  revokeMapping,
  unmapExtent,
} from "../src/index.ts";
import { assertSettled, fill, look, map, share } from "./extent-kit.ts";
import { addGuest, createWorld } from "./memory-fixture.ts";

describe("deaths and extents", () => {
  const destroy = (world: ReturnType<typeof createWorld>, slot: number): void => {
    beginDestroy(world.hypervisor, slot);
    for (let turn = 0; turn < 100 && !continueDestroy(world.hypervisor, slot); turn += 1);
    reapDomains(world.hypervisor);
  };

  it("a mapper's end takes its mappings and replacements with it", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const extent = share(world, world.dom0, 10, 4, 7);
    const free = freeFrameCount(hypervisor);
    const guest = addGuest(world, 20);
    const mappings = [map(world, extent, guest, 100), map(world, extent, guest, 110, true)];
    revokeMapping(hypervisor, map(world, extent, guest, 120, true));
    destroy(world, guest.slot);
    for (const mapping of mappings) assert.equal(extentMappingState(hypervisor, mapping), "gone");
    assert.equal(hypervisor.domains.stateOf(guest.slot), "free");
    assert.equal(freeFrameCount(hypervisor), free);
    assertSettled(world);
    assert.equal(closeExtent(hypervisor, extent), 0);
    assertSettled(world);
  });

  it("a granter's end takes its extents back from everybody", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const guest = addGuest(world, 20);
    const free = freeFrameCount(hypervisor);
    const granter = addGuest(world, 20);
    const extent = share(world, granter, 0, 4, 7);
    const mapping = map(world, extent, guest, 100);
    const closed = share(world, granter, 10, 4, 8);
    map(world, closed, guest, 200);
    closeExtent(hypervisor, closed);
    destroy(world, granter.slot);
    assert.equal(hypervisor.domains.stateOf(granter.slot), "free");
    assert.deepEqual(look(world, guest, 100, 4), [0, 0, 0, 0]);
    assert.deepEqual(look(world, guest, 200, 4), [0, 0, 0, 0]);
    assert.equal(freeFrameCount(hypervisor), free);
    assert.equal(revokeExtent(hypervisor, extent), -ENOENT);
    assert.equal(unmapExtent(hypervisor, mapping), 0);
    assertSettled(world);
  });

  it("nothing to reap: nothing happens", () => {
    const world = createWorld();
    assert.equal(reapExtents(world.hypervisor, addGuest(world, 1).slot), true);
    assertSettled(world);
  });
});

describe("the auditor of extents", () => {
  it("finds a frame of zeros that is none, and a mapping that shows something else", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const extent = share(world, world.dom0, 10, 4, 7);
    map(world, extent, guest, 100);
    assert.deepEqual(auditExtents(world.hypervisor), []);
    const { directMap, p2m } = world.hypervisor;
    directMap.u32[0]![5] = 1;
    assert.match(auditExtents(world.hypervisor).join(), /frame of zeros is not zero/);
    directMap.u32[0]![5] = 0;
    const at = p2m.at(guest.slot, 101);
    p2m.entries[at]! += 16;
    assert.match(auditExtents(world.hypervisor).join(), /gfn 101 shows something else/);
    p2m.entries[at]! -= 16;
    assert.deepEqual(auditExtents(world.hypervisor), []);
  });
});

describe("looking for holes", () => {
  it("the highest run below the end is found, wherever it is", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const { hypervisor } = world;
    const { gfnCount } = hypervisor.p2m;
    const top = gfnCount - 8;
    assert.equal(findHoles(hypervisor, guest.slot, 4, gfnCount), top - 4);
    assert.equal(findHoles(hypervisor, guest.slot, 4, 200), 196);
    fill(world, guest, 190, 8, 1);
    assert.equal(findHoles(hypervisor, guest.slot, 2, 200), 198);
    assert.equal(findHoles(hypervisor, guest.slot, 3, 200), 187);
    assert.equal(findHoles(hypervisor, guest.slot, 190, 200), 0);
    assert.equal(findHoles(hypervisor, guest.slot, 191, 200), -1);
    assert.equal(findHoles(hypervisor, guest.slot, gfnCount, gfnCount), -1);
  });
});
