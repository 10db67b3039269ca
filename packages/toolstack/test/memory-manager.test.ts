/**
 * The memory manager's policies: by property, and in a simulation of 200 domains under seeded load.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { admit } from "../src/memory-manager/admission.ts";
import { type ManagedGuest, planMemory } from "../src/memory-manager/manager.ts";
import { guestBudget, type HostReadings, type PressureLevel, pressureLevel } from "../src/memory-manager/pressure.ts";
import { type Claimant, sharePages } from "../src/memory-manager/share.ts";
import { nextTargets } from "../src/memory-manager/steps.ts";

const GIB = 2 ** 30;
const calm: HostReadings = {
  someAverage10s: 0,
  fullAverage10s: 0,
  availableBytes: 8 * GIB,
  groupLeftBytes: Number.POSITIVE_INFINITY,
  groupLimitHit: false,
};
const total = (values: Iterable<number>): number => [...values].reduce((sum, value) => sum + value, 0);

const claimants = fc
  .array(
    fc.record({
      minPages: fc.integer({ min: 0, max: 1000 }),
      extra: fc.integer({ min: 0, max: 5000 }),
      weight: fc.integer({ min: 1, max: 1024 }),
      demandPages: fc.option(fc.integer({ min: 0, max: 8000 }), { nil: undefined }),
    }),
    { maxLength: 40 },
  )
  .map((guests) =>
    guests.map(({ minPages, extra, weight, demandPages }, domid): Claimant => ({
      domid,
      minPages,
      maxPages: minPages + extra,
      weight,
      ...(demandPages === undefined ? {} : { demandPages }),
    })),
  );

describe("sharing", () => {
  it("gives each between its least and its most, and together what there is, if they can take it", () => {
    fc.assert(
      fc.property(claimants, fc.integer({ min: 0, max: 100_000 }), (guests, budget) => {
        const shares = sharePages(guests, budget);
        for (const { domid, minPages, maxPages } of guests) {
          const pages = shares.get(domid)!;
          assert.ok(Number.isInteger(pages) && pages >= minPages && pages <= maxPages);
        }
        const least = total(guests.map(({ minPages }) => minPages));
        const most = total(guests.map(({ maxPages }) => maxPages));
        assert.equal(total(shares.values()), Math.max(least, Math.min(most, budget)));
      }),
    );
  });

  it("goes by weight between equals, and to those who use it first", () => {
    const guest = (domid: number, weight: number, demandPages?: number): Claimant => ({
      domid,
      minPages: 100,
      maxPages: 10_000,
      weight,
      ...(demandPages === undefined ? {} : { demandPages }),
    });
    assert.deepEqual([...sharePages([guest(1, 1), guest(2, 3)], 1000).values()], [300, 700]);
    assert.deepEqual([...sharePages([guest(1, 1, 150), guest(2, 1, 850)], 1000).values()], [150, 850]);
    assert.deepEqual([...sharePages([guest(1, 1, 0), guest(2, 1, 500)], 1000).values()], [300, 700]);
  });
});

describe("pressure", () => {
  it("rises at once, and falls only when readings are far below what raised it", () => {
    const levels: PressureLevel[] = [];
    let level: PressureLevel = "calm";
    for (const someAverage10s of [9, 10, 6, 9, 41, 30, 21, 19, 11, 5, 4]) {
      level = pressureLevel(level, { ...calm, someAverage10s });
      levels.push(level);
    }
    const expected = "calm pressed pressed pressed critical critical critical pressed pressed pressed calm";
    assert.equal(levels.join(" "), expected);
  });

  it("also comes from the control group's limits and events, and from the machine's memory", () => {
    assert.equal(pressureLevel("calm", { ...calm, groupLimitHit: true }), "pressed");
    assert.equal(pressureLevel("calm", { ...calm, groupLeftBytes: 2 ** 20 }), "critical");
    assert.equal(pressureLevel("calm", { ...calm, availableBytes: 200 * 2 ** 20 }), "pressed");
    assert.equal(pressureLevel("calm", calm), "calm");
  });

  it("takes memory from guests, and claims do", () => {
    assert.equal(guestBudget(1000, 0, "calm"), 1000);
    assert.equal(guestBudget(1000, 300, "calm"), 700);
    assert.equal(guestBudget(1000, 50, "critical"), 750);
    assert.equal(guestBudget(1000, 2000, "calm"), 0);
  });
});

describe("steps", () => {
  it("never promise more than what is free, and never lead past where a guest should be", () => {
    const movers = fc.array(fc.tuple(fc.nat(5000), fc.nat(5000)), { maxLength: 40 });
    fc.assert(
      fc.property(movers, fc.nat(20_000), (sizes, free) => {
        const guests = sizes.map(([currentPages, wantedPages], domid) => ({ domid, currentPages, wantedPages }));
        const targets = nextTargets(guests, free);
        let growth = 0;
        for (const { domid, currentPages, wantedPages } of guests) {
          const target = targets.get(domid)!;
          assert.ok(target >= Math.min(currentPages, wantedPages) && target <= Math.max(currentPages, wantedPages));
          growth += Math.max(0, target - currentPages);
        }
        assert.ok(growth <= free);
      }),
    );
  });
});

describe("steps of guests that are slow", () => {
  it("leave what was promised with those who are still taking it, and give others the rest", () => {
    const slow = { domid: 1, currentPages: 10, targetPages: 60, wantedPages: 100 };
    const fast = { domid: 2, currentPages: 50, targetPages: 50, wantedPages: 100 };
    assert.deepEqual([...nextTargets([slow, fast], 50).values()], [60, 50]);
    // Who misses least comes first.
    assert.deepEqual([...nextTargets([slow, fast], 59).values()], [69, 50]);
    assert.deepEqual([...nextTargets([fast, slow], 100).values()], [60, 100]);
    // What is wanted less is not promised any more.
    assert.deepEqual([...nextTargets([{ ...slow, wantedPages: 30 }, fast], 50).values()], [30, 80]);
    assert.deepEqual([...nextTargets([{ ...slow, wantedPages: 5 }, fast], 50).values()], [5, 100]);
  });
});

describe("admission", () => {
  const state = { freePages: 25_600, claimedPages: 5120, reclaimablePages: 2560 };
  it("claims what is free, and asks others for the rest", () => {
    const small = admit(state, { name: "small", minPages: 1000, maxPages: 2000 });
    assert.deepEqual(small, { isAdmitted: true, claimPages: 2000, reclaimPages: 0 });
    const large = admit(state, { name: "large", minPages: 22_000, maxPages: 30_000 });
    assert.deepEqual(large, { isAdmitted: true, claimPages: 22_000, reclaimPages: 1520 });
  });

  it("refuses what cannot fit, with the numbers", () => {
    const refused = admit(state, { name: "huge", minPages: 25_600, maxPages: 25_600 });
    assert.ok(!refused.isAdmitted);
    assert.equal(refused.missingPages, 2560);
    assert.equal(refused.error.code, "MEMORY_EXHAUSTED");
    for (const number of ["100", "20", "10", '"huge"'])
      assert.ok(refused.error.message.includes(number), refused.error.message);
  });
});

/** Small, fast and seeded. */
const randomOf = (seed: number): (() => number) => {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
};

interface SimulatedGuest extends ManagedGuest {
  currentPages: number;
  demandPages: number;
  targetPages: number;
  /** Pages that its balloon moves in a tick; 0: it ignores its target. */
  readonly speed: number;
  turns: number;
  direction: number;
}

const MACHINE_PAGES = 2_000_000;
const GUEST_COUNT = 200;

const populate = (random: () => number): SimulatedGuest[] =>
  Array.from({ length: GUEST_COUNT }, (_, domid) => {
    const minPages = 256 + Math.floor(random() * 4000);
    const maxPages = minPages + Math.floor(random() * 30_000);
    return {
      domid,
      minPages,
      maxPages,
      weight: 1 + Math.floor(random() * 8),
      demandPages: maxPages,
      currentPages: minPages,
      targetPages: minPages,
      speed: random() < 0.03 ? 0 : 50 + Math.floor(random() * 5000),
      turns: 0,
      direction: 0,
    };
  });

/** Moves balloons in a random order, as far as there is memory. */
const moveBalloons = (guests: readonly SimulatedGuest[], claimed: number, random: () => number): void => {
  let free = MACHINE_PAGES - claimed - total(guests.map(({ currentPages }) => currentPages));
  for (const guest of guests.toSorted(() => random() - 0.5)) {
    const { targetPages, currentPages, speed } = guest;
    const change = Math.max(-speed, Math.min(speed, targetPages - currentPages, Math.max(0, free)));
    if (change === 0) continue;
    guest.currentPages += change;
    free -= change;
    if (guest.direction !== 0 && Math.sign(change) !== guest.direction) guest.turns += 1;
    guest.direction = Math.sign(change);
  }
};

describe("two hundred domains under load", () => {
  it("stay within the machine and their own bounds, and settle without going to and fro", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 31 }), (seed) => {
        const random = randomOf(seed);
        const guests = populate(random);
        let level: PressureLevel = "calm";
        let readings = calm;
        let claimed = 0;
        let wanted: ReadonlyMap<number, number> = new Map();
        const loadTicks = 60;
        for (let tick = 0; tick < 1500; tick += 1) {
          if (tick < loadTicks) {
            for (const guest of guests) if (random() < 0.1) guest.demandPages = Math.floor(random() * guest.maxPages);
            readings = { ...calm, someAverage10s: random() * 50, groupLimitHit: random() < 0.1 };
            claimed = random() < 0.5 ? 0 : Math.floor(random() * 5000);
          } else if (tick === loadTicks) {
            for (const guest of guests) guest.turns = 0;
          }
          const owned = total(guests.map(({ currentPages }) => currentPages));
          // A claim is only granted out of what is free.
          claimed = Math.min(claimed, MACHINE_PAGES - owned);
          const input = {
            machinePages: MACHINE_PAGES,
            freePages: MACHINE_PAGES - owned,
            claimedPages: claimed,
            readings,
            guests,
          };
          const plan = planMemory(level, input);
          ({ level, wanted } = plan);
          for (const guest of guests) guest.targetPages = plan.targets.get(guest.domid)!;
          moveBalloons(guests, claimed, random);
          assert.ok(total(guests.map(({ currentPages }) => currentPages)) + claimed <= MACHINE_PAGES);
          for (const { currentPages, minPages, maxPages } of guests)
            assert.ok(currentPages >= minPages && currentPages <= maxPages);
        }
        for (const guest of guests) {
          if (guest.speed === 0) continue;
          assert.ok(guest.turns <= 1, `domain ${guest.domid} turned ${guest.turns} times`);
          assert.ok(
            Math.abs(guest.currentPages - wanted.get(guest.domid)!) <= GUEST_COUNT,
            `domain ${guest.domid} did not settle`,
          );
        }
      }),
      { numRuns: 10 },
    );
  });
});
