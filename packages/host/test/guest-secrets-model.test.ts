// Secret objects of guests against a plain model: what each operation answers, and what everybody has afterwards.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { describe, it } from "node:test";
import { DOMID_INVALID, EDQUOT, EEXIST, EINVAL, ENOENT, EPERM } from "@xenolith/abi";
import { isSecret } from "@xenolith/core";
import type { Domain, Host } from "../src/index.ts";
import { openSecretHost, PAGE, puppetImage } from "./secret-guest.ts";

const DOMAINS = 3;
const PAGES_MAX = 24;
const PLACES = 40;
const GFN = 0x8_0000;
const STEPS = 1500;
const KINDS = "make map map map map unmap unmap seal release share share accept accept revoke".split(" ");

interface Item {
  readonly maker: number;
  readonly pages: number;
  /** By domain: whether for reading only. */
  readonly offers: Map<number, boolean>;
  isSealed: boolean;
}

interface Use {
  readonly item: Item;
  readonly isReadOnly: boolean;
  isRevoked: boolean;
}

interface Mapped {
  readonly use: Use;
  readonly count: number;
  isSevered: boolean;
}

/** What a domain should have. */
class Expected {
  readonly uses = new Map<number, Use>();
  readonly maps = new Map<number, Mapped>();

  get pages(): number {
    return this.#sum(
      [...this.uses.values()].filter(({ item }) => item.maker === this.index).map(({ item }) => item.pages),
    );
  }

  get mapped(): number {
    return this.#sum([...this.maps.values()].filter(({ isSevered }) => !isSevered).map(({ count }) => count));
  }

  readonly index: number;

  constructor(index: number) {
    this.index = index;
  }

  add(use: Use): number {
    let id = 0;
    while (this.uses.has(id)) id += 1;
    this.uses.set(id, use);
    return id;
  }

  isTaken(place: number, count: number): boolean {
    return [...this.maps].some(([at, mapping]) => place < at + mapping.count && at < place + count);
  }

  #sum(values: readonly number[]): number {
    return values.reduce((sum, value) => sum + value, 0);
  }
}

/** A host with domains that do not run, and what they should have. */
class Simulation {
  readonly host: Host;
  readonly slots: readonly number[];
  readonly domids: readonly number[];
  readonly expected = Array.from({ length: DOMAINS }, (_, index) => new Expected(index));
  readonly #random: (bound: number) => number;

  constructor(host: Host, domains: readonly Domain[], seed: number) {
    this.host = host;
    this.domids = domains.map(({ domid }) => domid);
    this.slots = this.domids.map((domid) => host.hypervisor.domains.slotOf(domid));
    let state = seed;
    this.#random = (bound) => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return (state >>> 0) % bound;
    };
  }

  async step(): Promise<void> {
    const [kind, who] = [KINDS[this.#random(KINDS.length)]!, this.#random(DOMAINS)];
    const known = [...this.expected[who]!.uses.keys()];
    const id = this.#random(4) === 0 ? this.#random(4) : (known[this.#random(Math.max(1, known.length))] ?? 0);
    const other = this.#random(DOMAINS);
    if (kind === "make") await this.#make(who);
    else if (kind === "map") this.#map(who, id);
    else if (kind === "unmap") this.#unmap(who);
    else if (kind === "seal") this.#seal(who, id);
    else if (kind === "release") this.#release(who, id);
    else if (kind === "share") this.#share(who, id, other);
    else if (kind === "accept") this.#accept(who, ...(this.#offerTo(who) ?? [other, id]));
    else this.#revoke(who, id, this.#random(3) === 0 ? undefined : other);
  }

  check(): void {
    const { guestSecrets, hypervisor } = this.host;
    assert.deepEqual(this.host.audit(), []);
    for (const [who, { pages, mapped, uses }] of this.expected.entries()) {
      const figures = guestSecrets.query(this.slots[who]!);
      assert.deepEqual(
        [figures?.bytesUsed, figures?.bytesMapped, figures?.objects],
        [pages * PAGE, mapped * PAGE, uses.size],
      );
      assert.equal(hypervisor.p2m.rowsOf(this.slots[who]!).filter(isSecret).length, mapped);
    }
  }

  get #secrets(): Host["guestSecrets"] {
    return this.host.guestSecrets;
  }

  /** The object that the domain made and calls so. */
  #own(who: number, id: number): Item | undefined {
    const item = this.expected[who]!.uses.get(id)?.item;
    return item?.maker === who ? item : undefined;
  }

  async #make(who: number): Promise<void> {
    const pages = 1 + this.#random(4);
    const domain = this.expected[who]!;
    const isAllowed = domain.pages + pages <= PAGES_MAX;
    const id = await this.#secrets.allocate(this.slots[who]!, pages);
    if (!isAllowed) assert.equal(id, -EDQUOT);
    else {
      const item = { maker: who, pages, offers: new Map<number, boolean>(), isSealed: false };
      assert.equal(id, domain.add({ item, isReadOnly: false, isRevoked: false }));
    }
  }

  #map(who: number, id: number): void {
    const domain = this.expected[who]!;
    const use = domain.uses.get(id);
    const [place, page, count] = [this.#random(PLACES), this.#random(3), 1 + this.#random(4)];
    const isWritable = this.#random(2) === 0;
    const answer = this.#secrets.map(this.slots[who]!, id, { gfn: GFN + place, page, count, isWritable });
    const expected = ((): number => {
      if (use === undefined || use.isRevoked) return -ENOENT;
      if (isWritable && use.isReadOnly) return -EPERM;
      if (count > use.item.pages) return -EINVAL;
      if (domain.mapped + count > PAGES_MAX) return -EDQUOT;
      if (page + count > use.item.pages) return -EINVAL;
      if (isWritable && use.item.isSealed) return -EPERM;
      return domain.isTaken(place, count) ? -EEXIST : 0;
    })();
    assert.equal(answer, expected);
    if (answer === 0) domain.maps.set(place, { use: use!, count, isSevered: false });
  }

  #unmap(who: number): void {
    const { maps } = this.expected[who]!;
    const places = [...maps.keys()];
    const place = places[this.#random(Math.max(1, places.length))] ?? this.#random(PLACES);
    const count = this.#random(6) === 0 ? 1 + this.#random(4) : (maps.get(place)?.count ?? 1);
    const answer = this.#secrets.unmap(this.slots[who]!, GFN + place, count);
    assert.equal(answer, maps.get(place)?.count === count ? 0 : -EINVAL);
    if (answer === 0) maps.delete(place);
  }

  #seal(who: number, id: number): void {
    const item = this.#own(who, id);
    // Seldom: what is sealed is sealed for good.
    if (this.#random(8) !== 0) return;
    assert.equal(this.#secrets.seal(this.slots[who]!, id), item === undefined ? -ENOENT : 0);
    if (item !== undefined) item.isSealed = true;
  }

  #release(who: number, id: number): void {
    const domain = this.expected[who]!;
    const use = domain.uses.get(id);
    assert.equal(this.#secrets.release(this.slots[who]!, id), use === undefined ? -ENOENT : 0);
    if (use === undefined) return;
    domain.uses.delete(id);
    for (const [place, mapping] of domain.maps)
      if (mapping.use === use && !mapping.isSevered) domain.maps.delete(place);
    if (use.item.maker === who) for (const other of this.expected) this.#sever(use.item, other);
  }

  #share(who: number, id: number, other: number): void {
    const item = this.#own(who, id);
    const isReadOnly = this.#random(2) === 0;
    const answer = this.#secrets.share(this.slots[who]!, id, this.domids[other]!, isReadOnly);
    if (item === undefined) assert.equal(answer, -ENOENT);
    else if (other === who) assert.equal(answer, -EINVAL);
    else if (item.offers.has(other) || this.#has(item, other)) assert.equal(answer, -EEXIST);
    else {
      assert.equal(answer, 0);
      item.offers.set(other, isReadOnly);
    }
  }

  #has(item: Item, who: number): boolean {
    return [...this.expected[who]!.uses.values()].some((use) => use.item === item && !use.isRevoked);
  }

  /** One of the offers to a domain, mostly. */
  #offerTo(who: number): readonly [from: number, id: number] | undefined {
    const offers = this.expected.flatMap(({ index, uses }) =>
      [...uses]
        .filter(([, { item }]) => item.maker === index && item.offers.has(who))
        .map(([id]) => [index, id] as const),
    );
    return this.#random(4) === 0 ? undefined : offers[this.#random(Math.max(1, offers.length))];
  }

  #accept(who: number, from: number, ownerId: number): void {
    const item = this.#own(from, ownerId);
    const isReadOnly = item?.offers.get(who);
    const answer = this.#secrets.accept(this.slots[who]!, this.domids[from]!, ownerId);
    if (item === undefined || isReadOnly === undefined) assert.equal(answer, -ENOENT);
    else {
      item.offers.delete(who);
      assert.equal(answer, this.expected[who]!.add({ item, isReadOnly, isRevoked: false }));
    }
  }

  #revoke(who: number, id: number, from: number | undefined): void {
    const item = this.#own(who, id);
    const answer = this.#secrets.revoke(this.slots[who]!, id, from === undefined ? DOMID_INVALID : this.domids[from]!);
    if (item === undefined) {
      assert.equal(answer, -ENOENT);
      return;
    }
    const targets = from === undefined ? this.expected : [this.expected[from]!];
    const others = targets.filter(({ index }) => index !== who);
    // A use that was revoked, and not given up, is there to be revoked again, to no effect.
    const isKnown = others.some(({ index, uses }) => {
      return item.offers.has(index) || [...uses.values()].some((use) => use.item === item);
    });
    assert.equal(answer, from === undefined || isKnown ? 0 : -ENOENT);
    for (const other of others) {
      item.offers.delete(other.index);
      this.#sever(item, other);
    }
  }

  /** What a domain has of another's object shows what replaces it. */
  #sever(item: Item, { index, uses, maps }: Expected): void {
    if (index === item.maker) return;
    for (const use of uses.values()) if (use.item === item) use.isRevoked = true;
    for (const mapping of maps.values()) if (mapping.use.item === item) mapping.isSevered = true;
  }
}

describe("secret objects of guests against a plain model", () => {
  for (let round = 0; round < 3; round += 1) {
    it(`random operations answer as it says, and leave what it has (${round})`, async (t) => {
      const seed = randomInt(1, 2 ** 31);
      t.diagnostic(`seed ${seed}`);
      const host = await openSecretHost({ warmVcpuCount: 0 });
      try {
        const domains: Domain[] = [];
        for (let index = 0; index < DOMAINS; index += 1) {
          const options = { memoryBytesMax: 2 ** 22, secretBytesMax: PAGES_MAX * PAGE };
          domains.push(await host.createDomain({ image: puppetImage, ...options }));
        }
        const simulation = new Simulation(host, domains, seed);
        await host.secrets();
        for (let step = 0; step < STEPS; step += 1) {
          await simulation.step();
          if (step % 50 === 0) simulation.check();
        }
        simulation.check();
        for (const domain of domains) await domain.destroy();
        const { slots, mappedBytes, regionBytes } = (await host.secrets()).statistics();
        assert.deepEqual([slots, mappedBytes, regionBytes, host.audit()], [0, 0, 0, []]);
      } finally {
        await host.close();
      }
    });
  }
});
