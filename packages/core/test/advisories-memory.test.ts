/**
 * Advisories about what a guest may ask of its memory: orders, counts, frame numbers, flags, limits
 * (docs/advisories.md, section 3).
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { assignPages, outstandingClaims, setClaim } from "../src/accounting.ts";
import { allocateFrames, freeFrameCount, freeFrames } from "../src/buddy.ts";
import { setMaxPages } from "../src/memory-limits.ts";
import { depopulateRun, populateRun } from "../src/memory-populate.ts";
import { P2M_HOLE } from "../src/p2m.ts";
import { vmaTotal } from "../src/vma.ts";
import { randomFrom } from "./advisories-kit.ts";
import * as kit from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

const { EFAULT, EINVAL, EPERM } = abi;
const { range } = kit;

/** Everything that a refused call must leave as it was: accounts, p2m, free frames. */
const state = (world: World): string => {
  const { domains, p2m } = world.hypervisor;
  return JSON.stringify([
    [...domains.totPages],
    [...p2m.entries],
    freeFrameCount(world.hypervisor),
    [...domains.state],
  ]);
};

const addPage = (
  guest: Guest,
  about: { space: number; index: number; gfn: number; size?: number; domid?: number },
): number => {
  kit.writeArgument(guest, abi.xen_add_to_physmap.sizeBytes, (view) => {
    abi.xen_add_to_physmap.domid.set(view, 0, about.domid ?? abi.DOMID_SELF);
    abi.xen_add_to_physmap.size.set(view, 0, about.size ?? 0);
    abi.xen_add_to_physmap.space.set(view, 0, about.space);
    abi.xen_add_to_physmap.idx.set(view, 0, about.index);
    abi.xen_add_to_physmap.gpfn.set(view, 0, about.gfn);
  });
  return kit.memoryOp(guest, abi.XENMEM_add_to_physmap);
};

const removePage = (guest: Guest, gfn: number): number => {
  kit.writeArgument(guest, abi.xen_remove_from_physmap.sizeBytes, (view) => {
    abi.xen_remove_from_physmap.domid.set(view, 0, abi.DOMID_SELF);
    abi.xen_remove_from_physmap.gpfn.set(view, 0, gfn);
  });
  return kit.memoryOp(guest, abi.XENMEM_remove_from_physmap);
};

interface Exchange {
  readonly given: { list: number; count: number };
  readonly taken: { list: number; count: number };
  readonly start?: number;
  readonly order?: number;
}

const exchange = (guest: Guest, about: Exchange): number => {
  kit.writeArgument(guest, abi.xen_memory_exchange.sizeBytes, (view) => {
    const { in: inSide, out, nr_exchanged } = abi.xen_memory_exchange;
    kit.fillReservation(view, inSide.offsetBytes, about.given, {});
    kit.fillReservation(view, out.offsetBytes, about.taken, { order: about.order ?? 0 });
    nr_exchanged.set(view, 0, about.start ?? 0);
  });
  return kit.memoryOp(guest, abi.XENMEM_exchange);
};

/** A guest with RAM at 0-15. */
const setUp = (): { world: World; guest: Guest } => {
  const world = kit.createWorld();
  const guest = kit.addGuest(world, 64);
  assert.equal(kit.populate(guest, range(0, 16)), 16);
  return { world, guest };
};

/** Numbers that are no guest frame of a small domain, or only by losing bits. */
const NO_GFN = [1024, 1025, 2 ** 16, 2 ** 20, 2 ** 20 + 3, 2 ** 28 + 3, 2 ** 31, 2 ** 31 + 3, 2 ** 32 - 2, 2 ** 32 - 1];

describe("memory: what a guest names", () => {
  it("M02: exchange looks at start, counts and both lists as a whole before it touches anything (XSA-29, XSA-212)", () => {
    const { world, guest } = setUp();
    const list = kit.writeList(guest, range(0, 8));
    const out = kit.writeList(guest, range(0, 8), kit.PAGE);
    const both = { given: { list, count: 8 }, taken: { list: out, count: 8 } };
    const before = state(world);
    for (const start of [9, 2 ** 29, 2 ** 30, 2 ** 31, 2 ** 32 - 8, 2 ** 32 - 1]) {
      assert.equal(exchange(guest, { ...both, start }), -EINVAL, `start ${start}`);
      assert.equal(state(world), before);
    }
    // Were the sum to wrap, the list of the given side would begin at a small address.
    for (const address of [2 ** 32 - 4, 2 ** 32 - 8, 2 ** 32 - 28]) {
      for (const start of [0, 4]) {
        const side = { list: address, count: 8 };
        for (const about of [
          { ...both, start, given: side },
          { ...both, start, taken: side },
        ]) {
          const result = exchange(guest, about);
          assert.ok(result === -EFAULT || result === -EINVAL, `list at ${address} from ${start}: ${result}`);
          assert.equal(state(world), before);
        }
      }
    }
    for (const count of [2 ** 29, 2 ** 30, 2 ** 31, 2 ** 32 - 1]) {
      const result = exchange(guest, { given: { list, count }, taken: { list: out, count } });
      assert.ok(result === -EFAULT || (result === -EINVAL && count === 2 ** 29), `count ${count}: ${result}`);
    }
    kit.settle(world);
    assert.equal(exchange(guest, { ...both, start: 8 }), 0);
    assert.equal(exchange(guest, { ...both, start: 7 }), 0);
    assert.equal(exchange(guest, both), 0);
    kit.settle(world);
  });

  it("M05, M08: memory on demand is refused to everybody, without an assertion (XSA-30, XSA-14)", () => {
    const { world, guest } = setUp();
    const before = state(world);
    for (const flags of [abi.XENMEMF_populate_on_demand, abi.XENMEMF_populate_on_demand | 0xff00]) {
      for (const gfns of [range(20, 4), range(0, 4), [1023], [2 ** 32 - 1]]) {
        assert.equal(kit.populate(guest, gfns, { flags }), 0);
        assert.equal(kit.populate(world.dom0, gfns, { flags, domid: guest.domid }), 0);
      }
    }
    for (const command of [abi.XENMEM_set_pod_target, abi.XENMEM_get_pod_target]) {
      kit.writeArgument(guest, abi.xen_pod_target.sizeBytes, (view) =>
        abi.xen_pod_target.domid.set(view, 0, abi.DOMID_SELF),
      );
      assert.equal(kit.memoryOp(guest, command), -EPERM);
    }
    assert.equal(state(world), before);
    kit.writeArgument(world.dom0, abi.xen_pod_target.sizeBytes, (view) => {
      abi.xen_pod_target.domid.set(view, 0, guest.domid);
      abi.xen_pod_target.target_pages.set(view, 0, 2 ** 52);
    });
    assert.equal(kit.memoryOp(world.dom0, abi.XENMEM_set_pod_target), -EINVAL);
    assert.equal(kit.populate(guest, range(20, 4)), 4);
    kit.settle(world);
  });

  it("M06: orders and counts beyond what a caller may ask for do nothing, and their product wraps nowhere (XSA-31, XSA-158)", () => {
    const { world, guest } = setUp();
    const before = state(world);
    const commands = [abi.XENMEM_populate_physmap, abi.XENMEM_decrease_reservation, abi.XENMEM_increase_reservation];
    for (const command of commands) {
      for (const order of [10, 11, 18, 19, 20, 31, 32, 33, 52, 63, 64, 255, 2 ** 31, 2 ** 32 - 1]) {
        assert.equal(kit.reserve(guest, command, [0], { order }), 0, `command ${command} order ${order}`);
        if (order <= 18) continue;
        const outcome = kit.reserve(world.dom0, command, [0], { order, domid: guest.domid });
        assert.equal(outcome, 0, `dom0: command ${command} order ${order}`);
      }
      for (const count of [2 ** 26 + 1, 2 ** 27, 2 ** 31, 2 ** 32 - 1]) {
        assert.equal(kit.reserve(guest, command, [0], { order: 9, count }), 0, `command ${command} count ${count}`);
      }
    }
    for (const order of [10, 31, 32, 64, 2 ** 32 - 1]) {
      const side = { list: kit.writeList(guest, [0]), count: 1 };
      assert.equal(exchange(guest, { given: side, taken: side, order }), -EPERM);
    }
    assert.equal(state(world), before);
    assert.equal(kit.decrease(guest, [0], { order: 4 }), 1);
    assert.equal(kit.populate(guest, [0], { order: 4 }), 1);
    kit.settle(world);
  });

  it("M07, M21: a number that is no frame of the domain is refused and never taken for another (XSA-32, XSA-301)", () => {
    const { world, guest } = setUp();
    assert.ok(world.mmu.write(guest.base, 3 * kit.PAGE, 0x77));
    const before = state(world);
    for (const gfn of NO_GFN) {
      assert.equal(kit.decrease(guest, [gfn]), 0, `decrease ${gfn}`);
      assert.equal(kit.populate(guest, [gfn]), 0, `populate ${gfn}`);
      assert.equal(removePage(guest, gfn), -abi.ENOENT, `remove ${gfn}`);
      assert.equal(addPage(guest, { space: abi.XENMAPSPACE_gmfn, index: 3, gfn }), -EINVAL, `move to ${gfn}`);
      assert.equal(addPage(guest, { space: abi.XENMAPSPACE_gmfn, index: gfn, gfn: 3 }), -EINVAL, `move from ${gfn}`);
      assert.equal(addPage(guest, { space: abi.XENMAPSPACE_shared_info, index: 0, gfn }), -EINVAL);
      const side = { list: kit.writeList(guest, [gfn]), count: 1 };
      const good = { list: kit.writeList(guest, [3], kit.PAGE), count: 1 };
      assert.equal(exchange(guest, { given: side, taken: good }), -EINVAL, `give ${gfn}`);
      assert.equal(exchange(guest, { given: good, taken: side }), -EINVAL, `take ${gfn}`);
      assert.equal(state(world), before, `gfn ${gfn}`);
    }
    for (const gfn of [...NO_GFN, 2 ** 52, 2 ** 53, 2 ** 53 + 2, 2 ** 60, -1]) {
      assert.equal(world.hypervisor.p2m.get(guest.slot, gfn), P2M_HOLE);
      assert.equal(world.hypervisor.p2m.contains(gfn), false);
      assert.equal(guest.cpu.memory.translate(gfn * kit.PAGE, false), -1, `translate ${gfn}`);
    }
    assert.equal(world.mmu.read(guest.base, 3 * kit.PAGE), 0x77);
    // The highest frame of all is one like any other.
    assert.equal(kit.decrease(guest, [1023]), 1);
    assert.equal(kit.populate(guest, [1023]), 1);
    kit.settle(world);
  });

  it("M16: every value of node and address bits is possible or refused, and indexes nothing (XSA-231)", () => {
    const { world, guest } = setUp();
    let gfn = 20;
    for (let node = 0; node < 256; node += 1) {
      for (const exact of [0, abi.XENMEMF_exact_node_request]) {
        const placed = kit.populate(guest, [gfn], { flags: (node << 8) | exact });
        assert.equal(placed, node <= 1 ? 1 : 0, `node ${node}`);
        gfn += placed;
      }
    }
    for (let bits = 0; bits < 256; bits += 1) {
      const isReachable = bits === 0 || 2 ** bits >= 500 * kit.PAGE;
      const placed = kit.populate(guest, [gfn], { flags: bits });
      assert.equal(placed, isReachable && kit.ownedPages(world, guest) <= 64 && placed === 1 ? 1 : 0, `bits ${bits}`);
      if (placed === 1) assert.equal(kit.decrease(guest, [gfn]), 1);
      assert.equal(placed === 1, isReachable, `bits ${bits}`);
    }
    for (const flags of [abi.XENMEMF_vnode, 2 ** 19, 2 ** 30, 2 ** 31])
      assert.equal(kit.populate(guest, [gfn], { flags }), 0);
    kit.settle(world);
  });

  it("M34, M17: any gfn and order end as the same pages one by one would, and no count goes below zero (XSA-388, XSA-247)", () => {
    const seed = 20260301;
    const random = randomFrom(seed);
    for (let round = 0; round < 25; round += 1) {
      const [whole, single] = [kit.createWorld(), kit.createWorld()];
      const guests = [kit.addGuest(whole, 200), kit.addGuest(single, 200)] as const;
      for (let step = 0; step < 12; step += 1) {
        const order = random(6);
        const size = 2 ** order;
        const gfn = random(120);
        const isPopulate = random(2) === 0;
        const operate = isPopulate ? kit.populate : kit.decrease;
        const done = operate(guests[0], [gfn], { order });
        const pages = range(gfn, size);
        let count = 0;
        for (const page of pages) {
          if (operate(guests[1], [page]) === 0) break;
          count += 1;
        }
        assert.equal(done, count === size ? 1 : 0, `seed ${seed}, round ${round}, step ${step}`);
        // An extent that is not completed is given back when it was being populated, and stays taken when decreased.
        if (isPopulate && count < size) kit.decrease(guests[1], pages.slice(0, count));
        const holes = (world: World, guest: Guest): boolean[] =>
          range(0, 160).map((page) => world.hypervisor.p2m.get(guest.slot, page) === P2M_HOLE);
        assert.deepEqual(
          holes(whole, guests[0]),
          holes(single, guests[1]),
          `seed ${seed}, round ${round}, step ${step}`,
        );
        kit.settle(whole);
      }
    }
  });
});

describe("memory: limits", () => {
  it("M33: the limit cannot be wrapped around, whatever it and the request are (XSA-385)", () => {
    const { world, guest } = setUp();
    const { hypervisor } = world;
    const { totPages } = hypervisor.domains;
    assert.equal(setMaxPages(hypervisor, guest.slot, 2 ** 32 - 1), 0);
    const owned = totPages[guest.slot]!;
    for (const count of [
      2 ** 32 - owned,
      2 ** 32,
      2 ** 32 + 1,
      2 ** 53 - 1,
      2 ** 53,
      2 ** 60,
      Infinity,
      Number.NaN,
      1.5,
      0,
      -1,
      -owned,
    ]) {
      const result = assignPages(hypervisor, guest.slot, count);
      assert.ok(result < 0, `${count} pages more: ${result}`);
      assert.equal(totPages[guest.slot], owned);
    }
    for (const pages of [owned + 1, owned + 2]) {
      assert.equal(setMaxPages(hypervisor, guest.slot, pages), 0);
      assert.equal(kit.populate(guest, range(40, 8)), 1);
      assert.equal(totPages[guest.slot], pages);
      assert.equal(kit.populate(guest, [60], { order: 9 }), 0);
    }
    for (const pages of [Number.NaN, -1, -0.5]) assert.equal(setMaxPages(hypervisor, guest.slot, pages), -EINVAL);
    kit.settle(world);
    assert.equal(hypervisor.domains.maxPages[guest.slot], owned + 2);
  });

  it("M13: a domain that goes exactly where its limit is moved keeps every page it may have (XSA-153)", () => {
    const { world, guest } = setUp();
    const { hypervisor } = world;
    const random = randomFrom(7);
    let present = 16;
    for (let round = 0; round < 100; round += 1) {
      const target = 1 + random(60);
      assert.equal(setMaxPages(hypervisor, guest.slot, target + kit.SYSTEM_PAGES), 0);
      if (target < present) assert.equal(kit.decrease(guest, range(target, present - target)), present - target);
      else if (target > present) assert.equal(kit.populate(guest, range(present, target - present)), target - present);
      assert.equal(kit.populate(guest, [target]), 0, "not one page more");
      present = target;
      assert.equal(kit.ownedPages(world, guest), target);
      for (const gfn of range(0, target)) assert.ok(world.mmu.write(guest.base, gfn * kit.PAGE, 1));
    }
    kit.settle(world);
  });

  it("M38: a guest that maps sparsely stops at its own budget of mappings, and others go on (XSA-409)", () => {
    const world = kit.createWorld();
    const sparse = kit.addGuest(world, 400, { vmaBudget: 60 });
    const other = kit.addGuest(world, 100);
    const placed = kit.populate(
      sparse,
      range(0, 200).map((index) => index * 4),
    );
    assert.ok(placed > 10 && placed < 40, `${placed} pages`);
    assert.ok(world.hypervisor.domains.vmaCount[sparse.slot]! <= 60);
    assert.equal(kit.populate(sparse, [801, 805]), 0);
    assert.ok(vmaTotal(world.hypervisor) < world.hypervisor.geometry.vmaLimit / 2);
    assert.equal(
      kit.populate(
        other,
        range(0, 40).map((index) => index * 2),
      ),
      40,
    );
    assert.equal(kit.decrease(sparse, [0]), 1);
    kit.settle(world);
  });

  it("M22: runs and blocks of every length are found or not, also at the ends of words (XSA-307)", () => {
    const world = kit.createWorld({ framesPerBank: 128, bankCount: 1, machineFrames: 128 });
    const { hypervisor } = world;
    const free = freeFrameCount(hypervisor);
    for (let order = 0; order < 40; order += 1) {
      const mfn = allocateFrames(hypervisor, order);
      assert.equal(mfn >= 0, 2 ** order <= 64 && mfn % 2 ** order === 0, `order ${order}: ${mfn}`);
      if (mfn >= 0) freeFrames(hypervisor, mfn, order);
      assert.equal(freeFrameCount(hypervisor), free);
    }
    const guest = kit.addGuest(world, 100);
    for (const count of [0, 1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 100]) {
      const outcome = { count: 0, blockedGfn: -1, error: 0 };
      populateRun(hypervisor, guest.slot, 0, count, outcome);
      assert.equal(outcome.count, count);
      assert.equal(depopulateRun(hypervisor, guest.slot, 0, count), count);
      kit.settle(world);
    }
    const sizes = [31, 32, 33, 63, 64, 65];
    for (const size of sizes) assert.equal(hypervisor.events.lowestClosed(guest.slot, size), 1);
    for (const size of [0, 1]) assert.equal(hypervisor.events.lowestClosed(guest.slot, size), -1);
  });

  it("M30: a claim cannot exceed what is free, nor be made of something that is no number (XSA-249)", () => {
    const { world, guest } = setUp();
    const { hypervisor } = world;
    assert.equal(setMaxPages(hypervisor, guest.slot, 2 ** 32 - 2), 0);
    for (const pages of [2 ** 31, 2 ** 32 - 2]) assert.equal(setClaim(hypervisor, guest.slot, pages), -abi.ENOMEM);
    for (const pages of [-1, Number.NaN, 2 ** 32 - 1, 2 ** 53, Infinity]) {
      assert.equal(setClaim(hypervisor, guest.slot, pages), -EINVAL, `${pages}`);
    }
    assert.equal(outstandingClaims(hypervisor), 0);
    assert.equal(setClaim(hypervisor, guest.slot, hypervisor.domains.totPages[guest.slot]! + 5), 0);
    assert.equal(outstandingClaims(hypervisor), 5);
    kit.settle(world);
  });
});
