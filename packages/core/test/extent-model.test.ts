import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EEXIST, EINVAL, ENOENT } from "@xenolith/abi";
import fc from "fast-check";
import {
  closeExtent,
  createExtent,
  extentMappingState,
  restoreMapping,
  revokeExtent,
  revokeMapping,
  unmapExtent,
} from "../src/index.ts";
import { depopulateRun } from "../src/memory-populate.ts";
import { assertSettled, fill, look, map, poke } from "./extent-kit.ts";
import { addGuest, createWorld, ownedPages } from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";

/** Pages of one area, and areas that each domain has from gfn 0 on. */
const PAGES = 4;
const AREAS = 3;
/** Where mappings go: `PLACES` places from this gfn on. */
const PLACE_GFN = 100;
const PLACES = 5;

/** A run of pages that a domain owns and may share; what is in it outlives its owner's gfns. */
interface Area {
  readonly owner: number;
  readonly gfn: number;
  readonly cells: number[];
  readonly isThere: boolean[];
  extent: number;
  isClosed: boolean;
}

interface Mapping {
  readonly guest: number;
  readonly place: number;
  readonly name: number;
  readonly area: Area;
  readonly isWritable: boolean;
  /** Whether the extent that it was mapped from is open. */
  readonly isOfOpen: () => boolean;
  cells: number[];
  isSevered: boolean;
}

const kinds = [
  "share",
  "map",
  "map",
  "mapRw",
  "unmap",
  "revoke",
  "restore",
  "revokeAll",
  "close",
  "poke",
  "ownerPoke",
  "drop",
] as const;

interface Step {
  readonly kind: (typeof kinds)[number];
  readonly who: number;
  readonly area: number;
  readonly place: number;
  readonly page: number;
  readonly value: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(...kinds),
  who: fc.nat(3),
  area: fc.nat(4 * AREAS - 1),
  place: fc.nat(PLACES - 1),
  page: fc.nat(PAGES - 1),
  value: fc.integer({ min: 1, max: 255 }),
});

/** The world and what it should be like. */
class Simulation {
  readonly world: World = createWorld();
  readonly guests: readonly Guest[];
  readonly areas: readonly Area[];
  mappings: Mapping[] = [];

  constructor() {
    const others = [0, 1, 2].map(() => addGuest(this.world, 64));
    this.guests = [this.world.dom0, ...others];
    this.areas = this.guests.flatMap((guest, owner) =>
      Array.from({ length: AREAS }, (_, index) => {
        const gfn = index * 8;
        fill(this.world, guest, gfn, PAGES, 1 + owner * 16 + index);
        const cells = Array<number>(PAGES).fill(1 + owner * 16 + index);
        return { owner, gfn, cells, isThere: Array<boolean>(PAGES).fill(true), extent: -1, isClosed: true };
      }),
    );
  }

  run(one: Step): void {
    const area = this.areas[one.area]!;
    const mapping = this.mappings.find(({ guest, place }) => guest === one.who && place === one.place);
    if (one.kind === "share") this.share(area);
    else if (one.kind === "map" || one.kind === "mapRw") this.map(one, area, mapping);
    else if (one.kind === "close") this.close(area);
    else if (one.kind === "revokeAll") this.revokeAll(area);
    else if (one.kind === "ownerPoke") this.ownerPoke(area, one);
    else if (one.kind === "drop") this.drop(area, one.page);
    else if (mapping !== undefined) this.use(mapping, one);
  }

  share(area: Area): void {
    if (!area.isClosed) return;
    const extent = createExtent(this.world.hypervisor, this.guests[area.owner]!.slot, area.gfn, PAGES);
    if (area.isThere.includes(false)) {
      assert.equal(extent, -EINVAL);
      return;
    }
    assert.ok(extent > 0);
    area.extent = extent;
    area.isClosed = false;
  }

  map(one: Step, area: Area, there: Mapping | undefined): void {
    const isWritable = one.kind === "mapRw";
    const name = map(this.world, area.extent, this.guests[one.who]!, PLACE_GFN + one.place * 8, isWritable);
    if (area.isClosed) assert.equal(name, -ENOENT);
    else if (area.owner === one.who) assert.equal(name, -EINVAL);
    else if (there !== undefined) assert.equal(name, -EEXIST);
    else {
      assert.ok(name > 0, `map: ${name}`);
      const { cells, extent } = area;
      const isOfOpen = (): boolean => area.extent === extent && !area.isClosed;
      const { who: guest, place } = one;
      this.mappings.push({ guest, place, name, area, isWritable, isOfOpen, cells, isSevered: false });
    }
  }

  use(mapping: Mapping, one: Step): void {
    const { hypervisor } = this.world;
    if (one.kind === "unmap") {
      assert.equal(unmapExtent(hypervisor, mapping.name), 0);
      this.mappings = this.mappings.filter((other) => other !== mapping);
      assert.equal(extentMappingState(hypervisor, mapping.name), "gone");
    } else if (one.kind === "revoke") {
      assert.equal(revokeMapping(hypervisor, mapping.name), 0);
      this.sever(mapping);
    } else if (one.kind === "restore") {
      const result = restoreMapping(hypervisor, mapping.area.extent, mapping.name);
      // It belongs to an extent that was closed since, or it shows the extent again.
      assert.equal(result, mapping.isOfOpen() ? 0 : -ENOENT);
      if (result === 0) {
        mapping.isSevered = false;
        mapping.cells = mapping.area.cells;
      }
    } else {
      const gfn = PLACE_GFN + mapping.place * 8 + one.page;
      assert.equal(poke(this.world, this.guests[mapping.guest]!, gfn, one.value), mapping.isWritable);
      if (mapping.isWritable) mapping.cells[one.page] = one.value;
    }
  }

  close(area: Area): void {
    assert.equal(closeExtent(this.world.hypervisor, area.extent), area.isClosed ? -ENOENT : 0);
    area.isClosed = true;
  }

  revokeAll(area: Area): void {
    if (area.isClosed) return;
    const live = this.mappings.filter((mapping) => mapping.area === area && !mapping.isSevered);
    // Mappings of an earlier extent of the same pages, closed since, are not this one's.
    const found = revokeExtent(this.world.hypervisor, area.extent);
    const severed = live.filter(({ name }) => extentMappingState(this.world.hypervisor, name) === "severed");
    assert.equal(found, severed.length);
    for (const mapping of severed) this.sever(mapping);
  }

  sever(mapping: Mapping): void {
    if (mapping.isSevered) return;
    mapping.isSevered = true;
    mapping.cells = Array<number>(PAGES).fill(0);
  }

  ownerPoke(area: Area, { page, value }: Step): void {
    const isThere = area.isThere[page]!;
    assert.equal(poke(this.world, this.guests[area.owner]!, area.gfn + page, value), isThere);
    if (isThere) area.cells[page] = value;
  }

  drop(area: Area, page: number): void {
    const { slot } = this.guests[area.owner]!;
    assert.equal(depopulateRun(this.world.hypervisor, slot, area.gfn + page, 1), area.isThere[page] ? 1 : 0);
    area.isThere[page] = false;
  }

  check(): void {
    assertSettled(this.world);
    for (const { guest, place, cells } of this.mappings) {
      assert.deepEqual(look(this.world, this.guests[guest]!, PLACE_GFN + place * 8, PAGES), cells);
    }
    for (const area of this.areas) {
      const shown = area.cells.map((cell, page) => (area.isThere[page] === true ? cell : -1));
      assert.deepEqual(look(this.world, this.guests[area.owner]!, area.gfn, PAGES), shown);
    }
  }
}

describe("extents against a plain model", () => {
  it("random sharing, mapping, writing, revoking, closing and giving up agrees with it, and comes to nothing", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const simulation = new Simulation();
        for (const one of steps) {
          simulation.run(one);
          simulation.check();
        }
        const { hypervisor } = simulation.world;
        for (const area of simulation.areas) closeExtent(hypervisor, area.extent);
        for (const { name } of simulation.mappings) assert.equal(unmapExtent(hypervisor, name), 0);
        assertSettled(simulation.world);
        for (const [index, guest] of simulation.guests.entries()) {
          const there = simulation.areas.filter(({ owner }) => owner === index).flatMap(({ isThere }) => isThere);
          assert.equal(ownedPages(simulation.world, guest), there.filter(Boolean).length);
        }
      }),
      { numRuns: 60 },
    );
  });
});
