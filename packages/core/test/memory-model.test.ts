import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import fc from "fast-check";
import { continueDestroy, beginDestroy } from "../src/index.ts";
import { freeFrameCount } from "../src/buddy.ts";
import { outstandingClaims, setClaim } from "../src/accounting.ts";
import {
  PAGE,
  SYSTEM_PAGES,
  addGuest,
  addPage,
  createWorld,
  decrease,
  fillReservation,
  memoryOp,
  ownedPages,
  populate,
  removePage,
  settle,
  writeArgument,
  writeList,
} from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

const GFNS = 48;
const PAGES_MAX = 40;

/** The plain model of one guest: what stands at each gfn (a tag written into the page), and pages without a gfn. */
interface Model {
  readonly pages: Map<number, number>;
  unhooked: number;
}

interface Step {
  readonly kind: "populate" | "decrease" | "move" | "remove" | "exchange" | "write";
  readonly who: number;
  readonly gfn: number;
  readonly to: number;
  readonly count: number;
  readonly order: number;
  /** Distance between the extents of a list; 0: the same gfn again and again. */
  readonly stride: number;
}

const owned = (model: Model): number => model.pages.size + model.unhooked;

/** Populates as the specification says, page by page. */
const modelPopulate = (model: Model, gfns: readonly number[], size: number): number => {
  let done = 0;
  for (const gfn of gfns) {
    if (owned(model) + size > PAGES_MAX) return done;
    for (let index = 0; index < size; index += 1) {
      if (model.pages.has(gfn + index)) model.unhooked += 1;
      model.pages.set(gfn + index, 0);
    }
    done += 1;
  }
  return done;
};

const modelDecrease = (model: Model, gfns: readonly number[], size: number): number => {
  let done = 0;
  for (const gfn of gfns) {
    for (let index = 0; index < size; index += 1) if (!model.pages.delete(gfn + index)) return done;
    done += 1;
  }
  return done;
};

const modelMove = (model: Model, from: number, to: number): boolean => {
  const tag = model.pages.get(from);
  if (tag === undefined) return false;
  model.pages.delete(from);
  model.pages.set(to, tag);
  return true;
};

const modelExchange = (model: Model, given: readonly number[], taken: readonly number[]): number => {
  let done = 0;
  for (const [index, gfn] of given.entries()) {
    const to = taken[index]!;
    if (!model.pages.has(gfn) || (to !== gfn && model.pages.has(to))) return done;
    model.pages.delete(gfn);
    model.pages.set(to, 0);
    done += 1;
  }
  return done;
};

const exchange = (guest: Guest, given: readonly number[], taken: readonly number[]): number => {
  const lists = [writeList(guest, given), writeList(guest, taken, 4096)] as const;
  writeArgument(guest, abi.xen_memory_exchange.sizeBytes, (view) => {
    const { in: inSide, out } = abi.xen_memory_exchange;
    fillReservation(view, inSide.offsetBytes, { list: lists[0], count: given.length }, {});
    fillReservation(view, out.offsetBytes, { list: lists[1], count: taken.length }, {});
  });
  memoryOp(guest, abi.XENMEM_exchange);
  return guest.cpu.memory.readU32(guest.argument + abi.xen_memory_exchange.nr_exchanged.offset);
};

/** Does one step in both; fails where the results differ. */
const apply = (world: World, guest: Guest, model: Model, step: Step): void => {
  const size = 2 ** step.order;
  const gfns = Array.from({ length: step.count }, (_, index) => step.gfn + index * step.stride * size);
  const inside = gfns.filter((gfn) => gfn + size <= GFNS);
  if (step.kind === "populate") {
    assert.equal(populate(guest, inside, { order: step.order }), modelPopulate(model, inside, size));
  } else if (step.kind === "decrease") {
    assert.equal(decrease(guest, inside, { order: step.order }), modelDecrease(model, inside, size));
  } else if (step.kind === "move") {
    assert.equal(addPage(guest, abi.XENMAPSPACE_gmfn, step.gfn, step.to) === 0, modelMove(model, step.gfn, step.to));
  } else if (step.kind === "remove") {
    const isThere = model.pages.delete(step.gfn);
    if (isThere) model.unhooked += 1;
    assert.equal(removePage(guest, step.gfn), isThere ? 0 : -abi.ENOENT);
  } else if (step.kind === "exchange") {
    const taken = inside.map((_, index) => (step.to + index) % GFNS);
    assert.equal(exchange(guest, inside, taken), modelExchange(model, inside, taken));
  } else if (model.pages.has(step.gfn)) {
    assert.ok(world.mmu.write(guest.base, step.gfn * PAGE, step.to + 1));
    model.pages.set(step.gfn, step.to + 1);
  }
};

const compare = (world: World, guest: Guest, model: Model): void => {
  for (let gfn = 0; gfn < GFNS; gfn += 1) {
    assert.equal(world.mmu.read(guest.base, gfn * PAGE), model.pages.get(gfn) ?? -1, `gfn ${gfn}`);
  }
  assert.equal(ownedPages(world, guest), owned(model));
};

const steps = fc.array(
  fc.record<Step>({
    kind: fc.constantFrom(
      "populate",
      "populate",
      "decrease",
      "decrease",
      "move",
      "remove",
      "exchange",
      "write",
      "write",
    ),
    who: fc.nat(1),
    gfn: fc.nat(GFNS - 1),
    to: fc.nat(GFNS - 1),
    count: fc.integer({ min: 1, max: 9 }),
    order: fc.constantFrom(0, 0, 0, 1, 2),
    stride: fc.constantFrom(0, 1, 1, 1, 2),
  }),
  { maxLength: 40 },
);

describe("random memory operations of two guests", () => {
  it("have the results, contents and accounts of a plain model", () => {
    fc.assert(
      fc.property(steps, (list) => {
        const world = createWorld({ machineFrames: 250, framesPerBank: 128, gfnCount: 128 });
        const free = freeFrameCount(world.hypervisor);
        const pairs = [0, 1].map(() => ({
          guest: addGuest(world, PAGES_MAX),
          model: { pages: new Map<number, number>(), unhooked: 0 },
        }));
        for (const step of list) {
          const { guest, model } = pairs[step.who]!;
          apply(world, guest, model, step);
          settle(world);
        }
        for (const { guest, model } of pairs) compare(world, guest, model);
        for (const { guest } of pairs) destroy(world, guest);
        assert.equal(freeFrameCount(world.hypervisor), free);
        settle(world);
      }),
      { numRuns: 150 },
    );
  });
  it("with claims never let one domain take what is set aside for another", () => {
    const step = fc.record({
      who: fc.nat(1),
      count: fc.integer({ min: 1, max: 30 }),
      claim: fc.boolean(),
      give: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (list) => {
        const world = createWorld({ machineFrames: 80, framesPerBank: 128, bankCount: 1, gfnCount: 128 });
        const guests = [addGuest(world, 60), addGuest(world, 60)];
        for (const { who, count, claim, give } of list) {
          const guest = guests[who]!;
          const total = world.hypervisor.domains.totPages[guest.slot]!;
          if (claim) setClaim(world.hypervisor, guest.slot, give ? 0 : total + count);
          else if (give)
            decrease(
              guest,
              Array.from({ length: count }, (_, index) => index),
            );
          else
            populate(
              guest,
              Array.from({ length: count }, (_, index) => 60 - index),
            );
          assert.ok(outstandingClaims(world.hypervisor) <= freeFrameCount(world.hypervisor));
          settle(world);
        }
      }),
      { numRuns: 100 },
    );
  });
});

const destroy = (world: World, guest: Guest): void => {
  assert.equal(beginDestroy(world.hypervisor, guest.slot), 0);
  for (let slice = 0; slice < 100; slice += 1) continueDestroy(world.hypervisor, guest.slot, SYSTEM_PAGES);
  world.guests.splice(world.guests.indexOf(guest), 1);
};
