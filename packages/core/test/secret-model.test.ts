import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { EEXIST, ENOENT, EPERM } from "@xenolith/abi";
import fc from "fast-check";
import {
  beginDestroy,
  closeExtent,
  continueDestroy,
  extentMappingState,
  revokeExtent,
  revokeMapping,
  sealExtent,
  unmapExtent,
  unmapOwn,
} from "../src/index.ts";
import { assertSettled, look, poke } from "./extent-kit.ts";
import { addGuest, createWorld, ownedPages } from "./memory-fixture.ts";
import type { Guest, World } from "./memory-fixture.ts";
import { makeSecret, mapPages } from "./secret-kit.ts";
import type { TestSecret } from "./secret-kit.ts";

const PAGES = 4;
const GUESTS = 3;
/** Places of one page each, side by side, so that mappings touch. */
const PLACE_GFN = 100;
const PLACES = 10;

/** A secret as it should be. */
interface Secret {
  readonly owner: number;
  readonly cells: number[];
  readonly secret: TestSecret;
  isOpen: boolean;
  isSealed: boolean;
}

/** A mapping as it should be. */
interface Mapping {
  readonly guest: number;
  readonly name: number;
  readonly place: number;
  readonly page: number;
  readonly count: number;
  readonly of: Secret;
  readonly isWritable: boolean;
  /** What it shows since it was revoked. */
  own: number[] | undefined;
}

const kinds = [
  "make",
  "map",
  "map",
  "map",
  "unmap",
  "revoke",
  "revokeAll",
  "seal",
  "close",
  "poke",
  "poke",
  "die",
] as const;

interface Step {
  readonly kind: (typeof kinds)[number];
  readonly who: number;
  readonly which: number;
  readonly place: number;
  readonly page: number;
  readonly count: number;
  readonly isWritable: boolean;
  readonly value: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(...kinds),
  who: fc.nat(GUESTS - 1),
  which: fc.nat(5),
  place: fc.nat(PLACES - 1),
  page: fc.nat(PAGES - 1),
  count: fc.integer({ min: 1, max: PAGES }),
  isWritable: fc.boolean(),
  value: fc.integer({ min: 1, max: 255 }),
});

/** The world and what it should be like. */
class Simulation {
  readonly world: World = createWorld();
  readonly guests: readonly Guest[] = Array.from({ length: GUESTS }, () => addGuest(this.world, 64));
  readonly alive: boolean[] = this.guests.map(() => true);
  readonly before: readonly number[] = this.guests.map((guest) => ownedPages(this.world, guest));
  secrets: Secret[] = [];
  mappings: Mapping[] = [];

  run(one: Step): void {
    if (this.alive[one.who] !== true) return;
    const secret = this.secrets[one.which % Math.max(1, this.secrets.length)];
    const mapping = this.at(one.who, one.place);
    if (one.kind === "make") this.make(one.who);
    else if (one.kind === "die") this.die(one);
    else if (one.kind === "poke") this.poke(one, mapping);
    else if (one.kind === "unmap" || one.kind === "revoke") this.end(one.kind, mapping);
    else if (secret === undefined) return;
    else if (one.kind === "map") this.map(one, secret);
    else if (one.kind === "seal") this.seal(secret);
    else if (one.kind === "close") this.close(secret);
    else this.revokeAll(secret);
  }

  at(guest: number, place: number): Mapping | undefined {
    const covers = (one: Mapping): boolean => place >= one.place && place < one.place + one.count;
    return this.mappings.find((one) => one.guest === guest && covers(one));
  }

  make(owner: number): void {
    if (this.secrets.length >= 6) return;
    const tag = this.secrets.length + 1;
    const secret = makeSecret(this.world, this.guests[owner]!, PAGES, tag);
    this.secrets.push({ owner, cells: Array<number>(PAGES).fill(tag), secret, isOpen: true, isSealed: false });
  }

  map({ who, place, page, count: wanted, isWritable }: Step, of: Secret): void {
    const count = Math.min(wanted, PAGES - page);
    const name = mapPages(this.world, of.secret, this.guests[who]!, PLACE_GFN + place, [page, count], isWritable);
    const isTaken = Array.from({ length: count }, (_, index) => this.at(who, place + index)).some(Boolean);
    if (!of.isOpen) assert.equal(name, -ENOENT);
    else if (isWritable && of.isSealed) assert.equal(name, -EPERM);
    else if (isTaken) assert.equal(name, -EEXIST);
    else {
      assert.ok(name > 0, `map: ${name}`);
      this.mappings.push({ guest: who, name, place, page, count, of, isWritable, own: undefined });
    }
  }

  end(kind: "unmap" | "revoke", mapping: Mapping | undefined): void {
    if (mapping === undefined) return;
    const { hypervisor } = this.world;
    if (kind === "revoke" && mapping.of.owner !== mapping.guest) {
      assert.equal(revokeMapping(hypervisor, mapping.name), 0);
      this.sever(mapping);
      return;
    }
    assert.equal(unmapOwn(hypervisor, mapping.name), 0);
    assert.equal(extentMappingState(hypervisor, mapping.name), "gone");
    this.mappings = this.mappings.filter((one) => one !== mapping);
  }

  seal(secret: Secret): void {
    assert.equal(sealExtent(this.world.hypervisor, secret.secret.extent), secret.isOpen ? 0 : -ENOENT);
    if (secret.isOpen) secret.isSealed = true;
  }

  close(secret: Secret): void {
    assert.equal(closeExtent(this.world.hypervisor, secret.secret.extent), secret.isOpen ? 0 : -ENOENT);
    secret.isOpen = false;
  }

  /** As the control domain does when a secret is given up: the owner's mappings end, the others' are taken back. */
  revokeAll(secret: Secret): void {
    const { hypervisor } = this.world;
    if (!secret.isOpen) return;
    for (const mapping of this.mappings.filter(({ of, guest }) => of === secret && guest === secret.owner)) {
      assert.equal(unmapExtent(hypervisor, mapping.name), 0);
      this.mappings = this.mappings.filter((one) => one !== mapping);
    }
    const live = this.mappings.filter(({ of, own }) => of === secret && own === undefined);
    assert.equal(revokeExtent(hypervisor, secret.secret.extent), live.length);
    for (const mapping of live) this.sever(mapping);
    assert.equal(this.world.mmu.secretMappings(secret.secret.handle), 0);
  }

  sever(mapping: Mapping): void {
    mapping.own ??= Array<number>(mapping.count).fill(0);
  }

  die({ who, value }: Step): void {
    // Seldom: the others are to have something to do with it.
    if (value > 40) return;
    const { hypervisor } = this.world;
    const { slot } = this.guests[who]!;
    assert.equal(beginDestroy(hypervisor, slot), 0);
    for (let turn = 0; turn < 20; turn += 1) continueDestroy(hypervisor, slot);
    assert.equal(hypervisor.domains.stateOf(slot), "free");
    this.alive[who] = false;
    this.mappings = this.mappings.filter(({ guest }) => guest !== who);
    for (const mapping of this.mappings) if (mapping.of.owner === who) this.sever(mapping);
    for (const secret of this.secrets) if (secret.owner === who) secret.isOpen = false;
  }

  poke({ who, place, value }: Step, mapping: Mapping | undefined): void {
    const isDone = poke(this.world, this.guests[who]!, PLACE_GFN + place, value);
    if (mapping === undefined) {
      assert.equal(isDone, false);
      return;
    }
    const { own, of, page, isWritable } = mapping;
    assert.equal(isDone, own === undefined ? isWritable && !of.isSealed : isWritable);
    if (!isDone) return;
    if (own === undefined) of.cells[page + place - mapping.place] = value;
    else own[place - mapping.place] = value;
  }

  check(): void {
    assertSettled(this.world);
    for (const [who, guest] of this.guests.entries()) {
      if (this.alive[who] !== true) continue;
      const shown = Array.from({ length: PLACES + PAGES }, (_, place) => {
        const mapping = this.at(who, place);
        if (mapping === undefined) return -1;
        const index = place - mapping.place;
        return mapping.own === undefined ? mapping.of.cells[mapping.page + index] : mapping.own[index];
      });
      assert.deepEqual(look(this.world, guest, PLACE_GFN, PLACES + PAGES), shown);
    }
  }

  /** Everything ends; nobody has a page more than at first. */
  finish(): void {
    for (const secret of this.secrets) {
      this.revokeAll(secret);
      if (secret.isOpen) this.close(secret);
    }
    for (const { name } of this.mappings) assert.equal(unmapExtent(this.world.hypervisor, name), 0);
    assertSettled(this.world);
    for (const [who, guest] of this.guests.entries()) {
      if (this.alive[who] === true) assert.equal(ownedPages(this.world, guest), this.before[who]);
    }
    for (const { secret } of this.secrets) assert.equal(this.world.mmu.secretMappings(secret.handle), 0);
  }
}

describe("secret memory against a plain model", () => {
  it("random making, mapping, writing, sealing, revoking, closing and dying agrees with it, and comes to nothing", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const simulation = new Simulation();
        for (const one of steps) {
          simulation.run(one);
          simulation.check();
        }
        simulation.finish();
      }),
      { numRuns: 60 },
    );
  });
});
