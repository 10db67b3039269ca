import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { outstandingClaims, setClaim } from "../src/accounting.ts";
import {
  PAGE,
  addGuest,
  addPage,
  createWorld,
  decrease,
  fillReservation,
  memoryOp,
  ownedPages,
  populate,
  range,
  removePage,
  settle,
  writeArgument,
  writeList,
} from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

/** What the guest sees: frame and first byte of each of its first pages. */
const sight = (world: World, guest: Guest): string =>
  range(0, 64)
    .map((gfn) => `${world.mmu.frameAt(guest.base, gfn)}:${world.mmu.read(guest.base, gfn * PAGE)}`)
    .join(" ");

const exchange = (guest: Guest, given: number[], taken: number[], order: number, givenOrder = 0): number => {
  const lists = [writeList(guest, given), writeList(guest, taken, 4096)] as const;
  writeArgument(guest, abi.xen_memory_exchange.sizeBytes, (view) => {
    const { in: inSide, out } = abi.xen_memory_exchange;
    fillReservation(view, inSide.offsetBytes, { list: lists[0], count: given.length }, { order: givenOrder });
    fillReservation(view, out.offsetBytes, { list: lists[1], count: taken.length }, { order });
  });
  return memoryOp(guest, abi.XENMEM_exchange);
};

/** A guest with contiguous pages 0-15, single pages 20, 22, 24 and shared_info at 30. */
const setUp = (): { world: World; guest: Guest } => {
  const world = createWorld();
  const guest = addGuest(world, 64);
  assert.equal(populate(guest, [...range(0, 16), 20, 22, 24]), 19);
  assert.equal(addPage(guest, abi.XENMAPSPACE_shared_info, 0, 30), 0);
  for (const gfn of [...range(0, 16), 20, 22, 24]) assert.ok(world.mmu.write(guest.base, gfn * PAGE, gfn + 1));
  return { world, guest };
};

interface Operation {
  readonly name: string;
  /** True when it did all that it was asked for. */
  readonly run: (guest: Guest) => boolean;
  /** Whether a failure leaves the guest's sight as it was; else only what was completed and counted has changed. */
  readonly allOrNothing: boolean;
}

const operations: readonly Operation[] = [
  { name: "populate of one run", run: (guest) => populate(guest, range(40, 8)) === 8, allOrNothing: true },
  { name: "populate of scattered pages", run: (guest) => populate(guest, [40, 42, 44]) === 3, allOrNothing: false },
  { name: "populate over RAM", run: (guest) => populate(guest, [3, 4]) === 2, allOrNothing: true },
  { name: "decrease of one run", run: (guest) => decrease(guest, range(4, 6)) === 6, allOrNothing: true },
  { name: "decrease of scattered pages", run: (guest) => decrease(guest, [20, 22, 24]) === 3, allOrNothing: false },
  {
    name: "decrease of an extent of order 2",
    run: (guest) => decrease(guest, [4], { order: 2 }) === 1,
    allOrNothing: true,
  },
  { name: "move of a page", run: (guest) => addPage(guest, abi.XENMAPSPACE_gmfn, 3, 22) === 0, allOrNothing: true },
  {
    name: "move of shared_info",
    run: (guest) => addPage(guest, abi.XENMAPSPACE_shared_info, 0, 5) === 0,
    allOrNothing: true,
  },
  { name: "remove of a page", run: (guest) => removePage(guest, 7) === 0, allOrNothing: true },
  { name: "exchange of two pages", run: (guest) => exchange(guest, [20, 22], [50], 1) === 0, allOrNothing: true },
  {
    name: "exchange of one extent for scattered pages",
    run: (guest) => exchange(guest, [0], [50, 52, 54, 56], 0, 2) === 0,
    allOrNothing: true,
  },
  { name: "exchange in place", run: (guest) => exchange(guest, range(0, 4), [0], 2) === 0, allOrNothing: true },
];

describe("FAULT: when a call of the page table fails", () => {
  for (const { name, run, allOrNothing } of operations) {
    it(`${name}: whichever it is, nothing is half done, and the operation works afterwards`, () => {
      let failures = 0;
      for (let n = 1; n < 20; n += 1) {
        const { world, guest } = setUp();
        const before = { sight: sight(world, guest), pages: ownedPages(world, guest), calls: world.mmu.calls.length };
        world.mmu.failAt(n);
        const isDone = run(guest);
        const calls = world.mmu.calls.length - before.calls;
        world.mmu.failAt(0);
        settle(world);
        if (!isDone) failures += 1;
        if (!isDone && allOrNothing) {
          assert.equal(sight(world, guest), before.sight, `call ${n}`);
          assert.equal(ownedPages(world, guest), before.pages);
          assert.ok(run(guest), `again after call ${n} failed`);
          settle(world);
        }
        if (calls < n) break;
      }
      assert.ok(failures > 0, "some failure must have been noticed");
    });
    it(`${name}: when every call from some point on fails, the books are still right`, () => {
      for (let n = 1; n < 12; n += 1) {
        const { world, guest } = setUp();
        world.mmu.failAt(n, 1000);
        run(guest);
        world.mmu.failAt(0);
        settle(world);
      }
    });
  }
});

describe("FAULT: when frames cannot be given back to the host", () => {
  it("they are zeroed by hand before anybody else gets them (M09)", () => {
    const { world, guest } = setUp();
    const frame = world.mmu.frameAt(guest.base, 20);
    world.mmu.failAt(2);
    assert.equal(decrease(guest, [20]), 1);
    assert.equal(world.mmu.calls.at(-1)?.kind, "discard");
    assert.ok(world.hypervisor.directMap.bytes(frame * PAGE, PAGE).every((byte) => byte === 0));
    settle(world);
  });
});

describe("FAULT: when pages of a claim cannot be placed", () => {
  it("the claim is what it was", () => {
    const { world, guest } = setUp();
    const { domains } = world.hypervisor;
    assert.equal(setClaim(world.hypervisor, guest.slot, domains.totPages[guest.slot]! + 10), 0);
    world.mmu.failAt(1);
    assert.equal(populate(guest, range(40, 4)), 0);
    assert.equal(outstandingClaims(world.hypervisor), 10);
    settle(world);
    assert.equal(populate(guest, range(40, 4)), 4);
    assert.equal(outstandingClaims(world.hypervisor), 6);
    settle(world);
  });
});
