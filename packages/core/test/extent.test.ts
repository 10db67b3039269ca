import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { E2BIG, EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, ESRCH } from "@xenolith/abi";
import { setMaxPages } from "../src/memory-limits.ts";
import { freeFrameCount } from "../src/buddy.ts";
import {
  beginDestroy,
  closeExtent,
  createExtent,
  depopulateRun,
  extentMappingState,
  extentRunLength,
  ParkedError,
  restoreMapping,
  revokeExtent,
  revokeMapping,
  unmapExtent,
} from "../src/index.ts";
import { assertSettled, fill, look, map, poke, share } from "./extent-kit.ts";
import { addGuest, createWorld, decrease, ownedPages, PAGE, populate } from "./memory-fixture.ts";

describe("extents", () => {
  it("a mapping shows the granter's frames, in one change of the page table, and both see what either writes", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const extent = share(world, world.dom0, 10, 8, 7);
    assert.deepEqual(look(world, guest, 100, 8), Array(8).fill(-1));
    world.mmu.calls.length = 0;
    assert.ok(map(world, extent, guest, 100, true) > 0);
    assert.deepEqual(world.mmu.calls, [{ kind: "map", first: 100, count: 8 }]);
    assert.deepEqual(look(world, guest, 100, 8), Array(8).fill(7));
    assert.ok(poke(world, guest, 103, 9));
    assert.deepEqual(look(world, world.dom0, 13, 1), [9]);
    assertSettled(world);
  });

  it("a read-only mapping cannot be written by the guest nor for it, and costs it no page", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    const before = ownedPages(world, guest);
    map(world, share(world, world.dom0, 10, 8, 7), guest, 100);
    assert.equal(poke(world, guest, 100, 1), false);
    assert.ok(guest.cpu.memory.copyToGuest(100 * PAGE, Uint8Array.of(1)) < 0);
    const bytes = new Uint8Array(1);
    assert.equal(guest.cpu.memory.copyFromGuest(107 * PAGE, bytes), 0);
    assert.deepEqual([...bytes], [7]);
    assert.equal(ownedPages(world, guest), before);
    assertSettled(world);
  });

  it("an extent is RAM in consecutive frames of one bank, and nothing else", () => {
    const world = createWorld();
    const guest = addGuest(world, 30);
    fill(world, guest, 0, 4, 1);
    fill(world, guest, 8, 4, 1);
    const { hypervisor } = world;
    assert.equal(createExtent(hypervisor, guest.slot, 2, 4), -EINVAL);
    assert.equal(createExtent(hypervisor, guest.slot, 20, 1), -EINVAL);
    assert.equal(createExtent(hypervisor, guest.slot, 1023, 2), -EINVAL);
    assert.equal(createExtent(hypervisor, guest.slot, 0, 0), -EINVAL);
    assert.ok(createExtent(hypervisor, guest.slot, 0, 4) > 0);
    assert.equal(extentRunLength(hypervisor, guest.slot, 1, 100), 3);
    assert.equal(extentRunLength(hypervisor, guest.slot, 20, 100), 0);
    assert.equal(extentRunLength(hypervisor, guest.slot, 5000, 100), 0);
    // What is mapped of others cannot be shared on.
    map(world, share(world, world.dom0, 10, 2, 7), guest, 100);
    assert.equal(createExtent(hypervisor, guest.slot, 100, 2), -EINVAL);
    assertSettled(world);
  });

  it("runs that cross a bank are two extents", () => {
    const world = createWorld();
    const { hypervisor } = world;
    fill(world, world.dom0, 10, 400, 1);
    const lengths: number[] = [];
    for (let gfn = 10; gfn < 410; gfn += lengths.at(-1)!) {
      lengths.push(extentRunLength(hypervisor, 0, gfn, 410 - gfn));
      assert.ok(createExtent(hypervisor, 0, gfn, lengths.at(-1)!) > 0);
    }
    assert.ok(lengths.length > 1);
    assert.equal(
      lengths.reduce((sum, length) => sum + length),
      400,
    );
    assertSettled(world);
  });

  it("a mapping goes where nothing stands: not over RAM, another mapping, or the end of the address space", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const extent = share(world, world.dom0, 10, 4, 7);
    fill(world, guest, 50, 1, 3);
    for (const gfn of [47, 50]) assert.equal(map(world, extent, guest, gfn), -EEXIST);
    for (const gfn of [1021, -1, 0.5, 2 ** 32, Number.NaN]) assert.equal(map(world, extent, guest, gfn), -EINVAL);
    assert.ok(map(world, extent, guest, 51) > 0);
    assert.equal(map(world, extent, guest, 54), -EEXIST);
    assert.equal(map(world, extent, guest, 54, true), -EEXIST);
    assert.ok(map(world, extent, guest, 55, true) > 0);
    assert.deepEqual(look(world, guest, 50, 1), [3]);
    assertSettled(world);
  });

  it("who is mapped to is another domain, and alive", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const extent = share(world, guest, 10, 4, 7);
    assert.equal(map(world, extent, guest, 100), -EINVAL);
    assert.ok(map(world, extent, world.dom0, 100) > 0);
    const other = addGuest(world, 20);
    beginDestroy(world.hypervisor, other.slot);
    assert.equal(map(world, extent, other, 100), -ESRCH);
    assert.equal(createExtent(world.hypervisor, other.slot, 0, 1), -ESRCH);
  });

  it("a writable mapping is refused when the mapper has no room for its replacement", () => {
    const world = createWorld();
    const guest = addGuest(world, 5);
    const extent = share(world, world.dom0, 10, 6, 7);
    const { hypervisor } = world;
    const free = freeFrameCount(hypervisor);
    assert.equal(map(world, extent, guest, 100, true), -ENOMEM);
    fill(world, guest, 0, 5, 1);
    assert.equal(map(world, extent, guest, 100, true), -E2BIG);
    assert.equal(freeFrameCount(hypervisor), free - 5);
    assertSettled(world);
    assert.ok(map(world, extent, guest, 100) > 0, "reading needs none");
    setMaxPages(hypervisor, guest.slot, 40);
    assert.ok(map(world, extent, guest, 110, true) > 0);
    assert.equal(ownedPages(world, guest), 11);
    assertSettled(world);
  });

  it("a mapping is refused when the mapper's budget of mappings is spent", () => {
    const world = createWorld();
    const guest = addGuest(world, 20, { vmaBudget: 3 });
    const extent = share(world, world.dom0, 10, 4, 7);
    assert.ok(map(world, extent, guest, 100) > 0);
    assert.equal(map(world, extent, guest, 200), -ENOSPC);
    assert.equal(map(world, extent, guest, 200, true), -ENOSPC);
    assertSettled(world);
  });

  it("a page table that refuses leaves nothing behind", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const extent = share(world, world.dom0, 10, 4, 7);
    world.mmu.failAt(1);
    assert.equal(map(world, extent, guest, 100, true), -ENOMEM);
    assertSettled(world);
    assert.ok(map(world, extent, guest, 100, true) > 0);
    assertSettled(world);
  });
});

describe("revoking extents", () => {
  it("a reader sees zeros at once, in one change, and nobody else is touched", () => {
    const world = createWorld();
    const [one, two] = [addGuest(world, 20), addGuest(world, 20)];
    const extent = share(world, world.dom0, 10, 8, 7);
    const first = map(world, extent, one, 100);
    const second = map(world, extent, two, 200);
    world.mmu.calls.length = 0;
    assert.equal(revokeMapping(world.hypervisor, first), 0);
    assert.deepEqual(world.mmu.calls, [{ kind: "zero", first: 100, count: 8 }]);
    assert.deepEqual(look(world, one, 100, 8), Array(8).fill(0));
    assert.equal(poke(world, one, 100, 1), false);
    assert.deepEqual(look(world, two, 200, 8), Array(8).fill(7));
    assert.equal(extentMappingState(world.hypervisor, first), "severed");
    assert.equal(extentMappingState(world.hypervisor, second), "live");
    assertSettled(world);
    assert.equal(revokeMapping(world.hypervisor, first), 0, "once more is harmless");
    const bytes = new Uint8Array(2).fill(5);
    assert.equal(one.cpu.memory.copyFromGuest(101 * PAGE, bytes), 0);
    assert.deepEqual([...bytes], [0, 0]);
    assert.ok(one.cpu.memory.copyToGuest(101 * PAGE, bytes) < 0);
  });

  it("a writer gets pages of its own: zeroed, private, and there until it is unmapped", () => {
    const world = createWorld();
    const [one, two] = [addGuest(world, 20), addGuest(world, 20)];
    const extent = share(world, world.dom0, 10, 4, 7);
    const mappings = [map(world, extent, one, 100, true), map(world, extent, two, 100, true)];
    assert.equal(revokeExtent(world.hypervisor, extent), 2);
    for (const guest of [one, two]) assert.deepEqual(look(world, guest, 100, 4), [0, 0, 0, 0]);
    assert.ok(poke(world, one, 101, 5));
    assert.deepEqual(look(world, one, 100, 4), [0, 5, 0, 0]);
    assert.deepEqual(look(world, two, 100, 4), [0, 0, 0, 0]);
    assert.deepEqual(look(world, world.dom0, 10, 4), [7, 7, 7, 7]);
    assertSettled(world);
    assert.equal(unmapExtent(world.hypervisor, mappings[0]!), 0);
    assert.deepEqual(look(world, one, 100, 4), [-1, -1, -1, -1]);
    assert.equal(ownedPages(world, one), 0);
    assertSettled(world);
  });

  it("the granter's frames are free of everybody afterwards", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const { hypervisor } = world;
    const free = freeFrameCount(hypervisor);
    const extent = share(world, world.dom0, 10, 4, 7);
    map(world, extent, guest, 100);
    revokeExtent(hypervisor, extent);
    assert.equal(closeExtent(hypervisor, extent), 0);
    assert.equal(depopulateRun(hypervisor, 0, 10, 4), 4);
    assert.equal(freeFrameCount(hypervisor), free);
    assert.deepEqual(look(world, guest, 100, 4), [0, 0, 0, 0]);
    assertSettled(world);
  });

  it("frames that the granter gives up stay its own until the last mapping goes", () => {
    const world = createWorld();
    const [granter, guest] = [addGuest(world, 20), addGuest(world, 20)];
    const { hypervisor } = world;
    const extent = share(world, granter, 0, 4, 7);
    const mapping = map(world, extent, guest, 100);
    assert.equal(decrease(granter, [1, 2]), 2);
    assert.deepEqual(look(world, granter, 0, 4), [7, -1, -1, 7]);
    assert.deepEqual(look(world, guest, 100, 4), [7, 7, 7, 7]);
    assert.equal(ownedPages(world, granter), 4);
    assertSettled(world);
    assert.equal(closeExtent(hypervisor, extent), 0);
    assert.equal(closeExtent(hypervisor, extent), -ENOENT);
    assert.equal(map(world, extent, guest, 200), -ENOENT, "closed: no further mapping");
    assert.deepEqual(look(world, guest, 100, 4), [7, 7, 7, 7]);
    assertSettled(world);
    assert.equal(unmapExtent(hypervisor, mapping), 0);
    assert.equal(ownedPages(world, granter), 2);
    assertSettled(world);
  });

  it("names of what is gone name nothing, also when the rows have new uses", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const { hypervisor } = world;
    const extent = share(world, world.dom0, 10, 4, 7);
    const mapping = map(world, extent, guest, 100);
    unmapExtent(hypervisor, mapping);
    closeExtent(hypervisor, extent);
    const next = createExtent(hypervisor, 0, 10, 4);
    const again = map(world, next, guest, 100);
    assert.notEqual(next, extent);
    assert.notEqual(again, mapping);
    for (const name of [mapping, -1, Number.NaN, 2 ** 51]) {
      assert.equal(unmapExtent(hypervisor, name), -ENOENT);
      assert.equal(revokeMapping(hypervisor, name), -ENOENT);
      assert.equal(extentMappingState(hypervisor, name), "gone");
    }
    for (const name of [extent, -1, Number.NaN, 2 ** 51]) {
      assert.equal(revokeExtent(hypervisor, name), -ENOENT);
      assert.equal(closeExtent(hypervisor, name), -ENOENT);
    }
    assert.deepEqual(look(world, guest, 100, 4), [7, 7, 7, 7]);
    assertSettled(world);
  });

  it("what was revoked can be shown again where it stands, in one change, and revoked again to zeros", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const guest = addGuest(world, 20);
    const extent = share(world, world.dom0, 10, 4, 7);
    const mappings = [map(world, extent, guest, 100), map(world, extent, guest, 200, true)];
    assert.equal(restoreMapping(hypervisor, extent, mappings[0]!), 0, "not revoked: nothing to do");
    revokeExtent(hypervisor, extent);
    poke(world, guest, 201, 5);
    for (const mapping of mappings) {
      world.mmu.calls.length = 0;
      assert.equal(restoreMapping(hypervisor, extent, mapping), 0);
      assert.equal(world.mmu.calls.filter(({ kind }) => kind === "map").length, 1);
      assertSettled(world);
    }
    for (const gfn of [100, 200]) assert.deepEqual(look(world, guest, gfn, 4), [7, 7, 7, 7]);
    assert.equal(revokeExtent(hypervisor, extent), 2);
    for (const gfn of [100, 200]) assert.deepEqual(look(world, guest, gfn, 4), [0, 0, 0, 0]);
    closeExtent(hypervisor, extent);
    const next = share(world, world.dom0, 20, 4, 8);
    for (const name of [extent, next]) assert.equal(restoreMapping(hypervisor, name, mappings[0]!), -ENOENT);
    assertSettled(world);
  });

  it("what is mapped cannot be given up by the guest; who populates over it is crashed, and changes nothing", () => {
    const world = createWorld();
    const [one, two] = [addGuest(world, 20), addGuest(world, 20)];
    const extent = share(world, world.dom0, 10, 4, 7);
    for (const guest of [one, two]) map(world, extent, guest, 100);
    assert.equal(decrease(one, [101]), 0);
    assert.throws(() => populate(two, [101]), ParkedError);
    for (const guest of [one, two]) assert.deepEqual(look(world, guest, 100, 4), [7, 7, 7, 7]);
    assertSettled(world);
  });

  it("revoking needs no mapping more, also when all are spent", () => {
    const world = createWorld();
    const guest = addGuest(world, 20, { vmaBudget: 4 });
    const extent = share(world, world.dom0, 10, 4, 7);
    const writable = map(world, extent, guest, 100, true);
    const readable = map(world, extent, guest, 104);
    world.mmu.vmaLimit = [...world.guests].reduce((sum, { base }) => sum + world.mmu.vmaCount(base), 0);
    for (const mapping of [writable, readable]) assert.equal(revokeMapping(world.hypervisor, mapping), 0);
    assertSettled(world);
    for (const mapping of [writable, readable]) assert.equal(unmapExtent(world.hypervisor, mapping), 0);
    assertSettled(world);
  });

  it("a mapper whose page table cannot be changed is crashed and sees nothing any more", () => {
    const world = createWorld();
    const guest = addGuest(world, 20);
    const extent = share(world, world.dom0, 10, 4, 7);
    map(world, extent, guest, 100);
    world.mmu.failAt(1);
    assert.equal(revokeExtent(world.hypervisor, extent), 1);
    assert.equal(world.hypervisor.domains.stateOf(guest.slot), "shutdown");
    assert.deepEqual(look(world, guest, 100, 4), [-1, -1, -1, -1]);
    assertSettled(world);
  });
});
