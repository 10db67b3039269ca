import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC, EPERM, ESRCH } from "@xenolith/abi";
import { attachSpace, detachSpace } from "../src/address-space.ts";
import {
  beginDestroy,
  closeExtent,
  continueDestroy,
  createSecretExtent,
  revokeMapping,
  sealExtent,
} from "../src/index.ts";
import { restoreMapping, SECRET_PAGES_MAX, unmapExtent, unmapOwn } from "../src/index.ts";
import { failEach } from "./advisories-kit.ts";
import { assertSettled, look, map, poke, share } from "./extent-kit.ts";
import { addGuest, createWorld, ownedPages, PAGE } from "./memory-fixture.ts";
import type { World } from "./memory-fixture.ts";
import { makeSecret, mapPages } from "./secret-kit.ts";

/** What the mappings of a guest cost it. */
const vmas = (world: World, slot: number): number => world.hypervisor.domains.vmaCount[slot]!;

describe("secret memory in a guest", () => {
  it("its owner maps it, writes it, and nobody has a frame of it", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    const before = ownedPages(world, guest);
    const secret = makeSecret(world, guest, 4, 5);
    world.mmu.calls.length = 0;
    assert.ok(mapPages(world, secret, guest, 100, [0, 4]) > 0);
    assert.deepEqual(world.mmu.calls, [{ kind: "mapSecret", first: 100, count: 4 }]);
    assert.deepEqual(look(world, guest, 100, 4), [5, 5, 5, 5]);
    assert.ok(poke(world, guest, 102, 9));
    assert.equal(secret.bytes[2 * PAGE], 9);
    assert.equal(ownedPages(world, guest), before);
    assertSettled(world);
  });

  it("a part of it appears at any gfn, for reading only if that is asked for", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    const secret = makeSecret(world, guest, 4);
    secret.bytes[3 * PAGE] = 7;
    assert.ok(mapPages(world, secret, guest, 50, [2, 2], false) > 0);
    assert.deepEqual(look(world, guest, 49, 4), [-1, 0, 7, -1]);
    assert.equal(poke(world, guest, 50, 1), false);
    assertSettled(world);
  });

  it("what is there already is not replaced, nor what is no page, no gfn, or no secret", () => {
    const world = createWorld();
    const guest = addGuest(world, 8);
    const other = addGuest(world, 8);
    const secret = makeSecret(world, guest, 4);
    const mapped = map(world, share(world, other, 10, 2, 1), guest, 60);
    const settled = vmas(world, guest.slot);
    // Its argument pages are RAM.
    const ram = guest.argument / PAGE;
    const refusals: readonly (readonly [number, readonly [number, number], number])[] = [
      [ram, [0, 1], -EEXIST],
      [ram - 3, [0, 4], -EEXIST],
      [60, [0, 1], -EEXIST],
      [58, [0, 3], -EEXIST],
      [100, [0, 0], -EINVAL],
      [100, [0, 5], -EINVAL],
      [100, [4, 1], -EINVAL],
      [100, [0xffff_ffff, 1], -EINVAL],
      [100, [1, 0xffff_ffff], -EINVAL],
      [world.hypervisor.geometry.gfnCount - 1, [0, 2], -EINVAL],
      [0xffff_ffff, [0, 1], -EINVAL],
    ];
    for (const [gfn, part, errno] of refusals) {
      assert.equal(mapPages(world, secret, guest, gfn, part), errno, `${part.join()} at ${gfn}`);
    }
    assert.equal(vmas(world, guest.slot), settled);
    assert.equal(mapPages(world, { ...secret, extent: secret.extent + 1 }, guest, 100, [0, 1]), -ENOENT);
    assert.equal(unmapExtent(world.hypervisor, mapped), 0);
    assertSettled(world);
  });

  it("has 1 to 4095 pages, and extents of frames keep half of the table", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const guest = addGuest(world, 4);
    for (const count of [0, -1, 1.5, SECRET_PAGES_MAX + 1, Number.NaN]) {
      assert.equal(createSecretExtent(hypervisor, guest.slot, count, 1), -EINVAL);
    }
    const secrets = Array.from({ length: 8 }, () => makeSecret(world, guest, 1));
    assert.equal(createSecretExtent(hypervisor, guest.slot, 1, 1), -ENOSPC);
    assert.ok(share(world, world.dom0, 10, 1, 1) > 0);
    for (const { extent } of secrets) assert.equal(closeExtent(hypervisor, extent), 0);
    assert.ok(createSecretExtent(hypervisor, guest.slot, 1, 1) > 0);
    assertSettled(world);
  });

  it("is no extent of frames, and extents of frames are no secrets", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const guest = addGuest(world, 8);
    const other = addGuest(world, 8);
    const secret = makeSecret(world, guest, 2);
    const frames = share(world, guest, 10, 2, 1);
    assert.equal(map(world, secret.extent, other, 100), -ENOENT);
    assert.equal(mapPages(world, { ...secret, extent: frames }, other, 100, [0, 1]), -ENOENT);
    assert.equal(sealExtent(hypervisor, frames), -ENOENT);
    const mapping = mapPages(world, secret, other, 100, [0, 2], false);
    assert.equal(revokeMapping(hypervisor, mapping), 0);
    assert.equal(restoreMapping(hypervisor, secret.extent, mapping), -ENOENT);
    assertSettled(world);
  });
});

describe("secret memory, charged", () => {
  it("two mappings side by side are charged as two, whatever the kernel makes of them, and end without another", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    const secret = makeSecret(world, guest, 8);
    const before = vmas(world, guest.slot);
    const mappings = Array.from({ length: 8 }, (_, page) => mapPages(world, secret, guest, 100 + page, [page, 1]));
    assert.ok(mappings.every((mapping) => mapping > 0));
    assert.equal(world.mmu.vmaCount(guest.base), before + 3);
    assert.equal(vmas(world, guest.slot), before + 9);
    assertSettled(world);
    world.hypervisor.domains.vmaBudget[guest.slot] = before + 9;
    for (const [page, mapping] of mappings.entries()) {
      if (page % 2 === 1) assert.equal(unmapOwn(world.hypervisor, mapping), 0);
      assertSettled(world);
    }
    for (const [page, mapping] of mappings.entries()) {
      if (page % 2 === 0) assert.equal(unmapOwn(world.hypervisor, mapping), 0);
    }
    assert.equal(vmas(world, guest.slot), before);
    assertSettled(world);
  });

  it("zeros in its place are one mapping, and a domain without mappings left cannot take some out of the middle", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    const owner = addGuest(world, 4);
    const secret = makeSecret(world, owner, 3);
    const before = vmas(world, guest.slot);
    const mappings = [0, 1, 2].map((page) => mapPages(world, secret, guest, 100 + page, [page, 1], false));
    for (const mapping of mappings) assert.equal(revokeMapping(world.hypervisor, mapping), 0);
    assert.equal(vmas(world, guest.slot), before + 2);
    world.hypervisor.domains.vmaBudget[guest.slot] = before + 2;
    assert.equal(unmapOwn(world.hypervisor, mappings[1]!), -ENOSPC);
    assertSettled(world);
    assert.equal(unmapOwn(world.hypervisor, mappings[0]!), 0);
    assert.equal(unmapOwn(world.hypervisor, mappings[1]!), 0);
    assertSettled(world);
  });

  it("a domain without a mapping left maps nothing", () => {
    const world = createWorld();
    const guest = addGuest(world, 4);
    const secret = makeSecret(world, guest, 1);
    world.hypervisor.domains.vmaBudget[guest.slot] = vmas(world, guest.slot);
    assert.equal(mapPages(world, secret, guest, 100, [0, 1]), -ENOSPC);
    assertSettled(world);
  });
});

describe("secret memory, shared", () => {
  it("another domain that may write is charged for what replaces it, one that reads is not", () => {
    const world = createWorld();
    const owner = addGuest(world, 4);
    const writer = addGuest(world, 2);
    const secret = makeSecret(world, owner, 4, 3);
    const before = ownedPages(world, writer);
    assert.ok(mapPages(world, secret, writer, 100, [0, 4], false) > 0);
    assert.equal(ownedPages(world, writer), before);
    assert.ok(mapPages(world, secret, writer, 110, [0, 2]) > 0);
    assert.equal(ownedPages(world, writer), before + 2);
    assert.ok(mapPages(world, secret, writer, 120, [0, 1]) < 0);
    assert.ok(poke(world, writer, 111, 8));
    assert.deepEqual(look(world, writer, 100, 4), [3, 8, 3, 3]);
    assertSettled(world);
  });

  it("taken back, a reader sees zeros and a writer pages of its own; the owner still sees it", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const owner = addGuest(world, 4);
    const other = addGuest(world, 8);
    const secret = makeSecret(world, owner, 2, 3);
    mapPages(world, secret, owner, 50, [0, 2]);
    const reader = mapPages(world, secret, other, 100, [0, 2], false);
    const writer = mapPages(world, secret, other, 110, [0, 2]);
    for (const mapping of [reader, writer]) assert.equal(revokeMapping(hypervisor, mapping), 0);
    assert.deepEqual(look(world, other, 100, 2), [0, 0]);
    assert.deepEqual(look(world, other, 110, 2), [0, 0]);
    assert.equal(poke(world, other, 100, 1), false);
    assert.ok(poke(world, other, 110, 1));
    assert.equal(secret.bytes[0], 3);
    assert.deepEqual(look(world, owner, 50, 2), [3, 3]);
    assert.equal(world.mmu.secretMappings(secret.handle), 2);
    assertSettled(world);
    const owned = ownedPages(world, other);
    for (const mapping of [reader, writer]) assert.equal(unmapOwn(hypervisor, mapping), 0);
    assert.equal(ownedPages(world, other), owned - 2);
    assert.deepEqual(look(world, other, 100, 12), Array(12).fill(-1));
    assertSettled(world);
  });
});

describe("secret memory, sealed", () => {
  it("nobody writes it from then on, what was mapped shows what it showed, and nothing writable is mapped", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const owner = addGuest(world, 4);
    const other = addGuest(world, 8);
    const secret = makeSecret(world, owner, 2, 3);
    mapPages(world, secret, owner, 50, [0, 2]);
    const foreign = mapPages(world, secret, other, 100, [1, 1]);
    mapPages(world, secret, other, 110, [0, 2], false);
    world.mmu.calls.length = 0;
    assert.equal(sealExtent(hypervisor, secret.extent), 0);
    assert.deepEqual(new Set(world.mmu.calls.map(({ kind }) => kind)), new Set(["protect"]));
    for (const [guest, gfn] of [
      [owner, 50],
      [owner, 51],
      [other, 100],
      [other, 110],
    ] as const) {
      assert.equal(poke(world, guest, gfn, 1), false);
      assert.deepEqual(look(world, guest, gfn, 1), [3]);
    }
    assertSettled(world);
    assert.equal(sealExtent(hypervisor, secret.extent), 0);
    assert.equal(mapPages(world, secret, owner, 60, [0, 1]), -EPERM);
    assert.ok(mapPages(world, secret, owner, 60, [0, 1], false) > 0);
    // Taken back, its place is the mapper's own again, and can be written.
    assert.equal(revokeMapping(hypervisor, foreign), 0);
    assert.ok(poke(world, other, 100, 1));
    assert.equal(secret.bytes[PAGE], 3);
    assertSettled(world);
  });

  it("FAULT: when the page table refuses, it is not sealed and everybody may do what they could", () => {
    const calls = failEach(() => {
      const world = createWorld();
      const owner = addGuest(world, 4);
      const other = addGuest(world, 8);
      const secret = makeSecret(world, owner, 2, 3);
      mapPages(world, secret, owner, 50, [0, 2]);
      mapPages(world, secret, other, 100, [1, 1]);
      mapPages(world, secret, owner, 60, [0, 1], false);
      let result = 0;
      return {
        hypervisor: world.hypervisor,
        mmu: world.mmu,
        operation: () => {
          result = sealExtent(world.hypervisor, secret.extent);
        },
        verify: () => {
          assert.equal(result, -ENOMEM);
          assert.ok(poke(world, owner, 50, 4));
          assert.ok(poke(world, other, 100, 4));
          assert.equal(poke(world, owner, 60, 4), false);
          assertSettled(world);
        },
      };
    });
    assert.equal(calls, 2);
  });
});

describe("secret memory, ended", () => {
  it("a domain that dies with secrets mapped leaves none, and those it shared are taken back", () => {
    const world = createWorld();
    const { hypervisor, mmu } = world;
    const owner = addGuest(world, 4);
    const other = addGuest(world, 8);
    const secret = makeSecret(world, owner, 2, 3);
    const theirs = makeSecret(world, other, 1, 4);
    mapPages(world, secret, owner, 50, [0, 2]);
    mapPages(world, secret, other, 100, [0, 2]);
    mapPages(world, theirs, owner, 60, [0, 1]);
    assert.equal(beginDestroy(hypervisor, owner.slot), 0);
    assert.equal(mapPages(world, secret, other, 120, [0, 1], false), -ESRCH);
    assert.equal(mapPages(world, theirs, owner, 70, [0, 1]), -ESRCH);
    assert.equal(createSecretExtent(hypervisor, owner.slot, 1, 1), -ESRCH);
    for (let turn = 0; turn < 20; turn += 1) continueDestroy(hypervisor, owner.slot);
    assert.equal(hypervisor.domains.stateOf(owner.slot), "free");
    assert.equal(mmu.secretMappings(secret.handle), 0);
    assert.equal(mmu.secretMappings(theirs.handle), 0);
    assert.deepEqual(look(world, other, 100, 2), [0, 0]);
    assert.equal(sealExtent(hypervisor, secret.extent), -ENOENT);
    assert.equal(sealExtent(hypervisor, theirs.extent), 0);
    assertSettled(world);
  });

  it("closed, it is there until its last mapping goes, and cannot be mapped meanwhile", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const guest = addGuest(world, 4);
    const secret = makeSecret(world, guest, 2, 3);
    const mapping = mapPages(world, secret, guest, 50, [0, 2]);
    assert.equal(closeExtent(hypervisor, secret.extent), 0);
    assert.equal(mapPages(world, secret, guest, 60, [0, 1]), -ENOENT);
    assert.deepEqual(look(world, guest, 50, 2), [3, 3]);
    assertSettled(world);
    assert.equal(unmapOwn(hypervisor, mapping), 0);
    assert.equal(unmapOwn(hypervisor, mapping), -ENOENT);
    assert.equal(closeExtent(hypervisor, secret.extent), -ENOENT);
    assertSettled(world);
  });

  it("an address space that is taken away and given back shows it again", () => {
    const world = createWorld();
    const { hypervisor } = world;
    const guest = addGuest(world, 4);
    const secret = makeSecret(world, guest, 3, 3);
    mapPages(world, secret, guest, 50, [1, 2]);
    mapPages(world, secret, guest, 52, [0, 1], false);
    assert.equal(detachSpace(hypervisor, guest.slot), 0);
    assert.equal(world.mmu.secretMappings(secret.handle), 0);
    assert.equal(attachSpace(hypervisor, guest.slot, guest.base), 0);
    assert.deepEqual(look(world, guest, 50, 3), [3, 3, 3]);
    assertSettled(world);
  });

  it("FAULT: a mapping that the page table refuses, or an unmapping, changes nothing", () => {
    for (const isWritable of [true, false]) {
      const calls = failEach(() => {
        const world = createWorld();
        const owner = addGuest(world, 4);
        const other = addGuest(world, 8);
        const secret = makeSecret(world, owner, 2, 3);
        const owned = ownedPages(world, other);
        let results: readonly number[] = [];
        return {
          hypervisor: world.hypervisor,
          mmu: world.mmu,
          operation: () => {
            const mapping = mapPages(world, secret, other, 100, [0, 2], isWritable);
            results = [mapping, mapping > 0 ? unmapOwn(world.hypervisor, mapping) : 0];
          },
          verify: (call) => {
            assert.ok(call > 2 || results[call - 1] === -ENOMEM);
            assert.deepEqual(look(world, other, 100, 2), call === 1 ? [-1, -1] : call === 2 ? [3, 3] : [-1, -1]);
            if (call === 1) assert.equal(ownedPages(world, other), owned);
            assertSettled(world);
          },
        };
      });
      assert.ok(calls >= 2);
    }
  });
});
