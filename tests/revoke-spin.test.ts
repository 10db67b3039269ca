/**
 * Pages that are taken back under the hands of a vCPU that uses them all the time, with every kind of access: it sees
 * the granted page or its own, never a third one, and never faults.
 *
 * `XENOLITH_REVOKE_CYCLES` says how many pages each variant maps and revokes: 3,200 by default, 100,000 for a long run.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { type Domain, Host } from "@xenolith/host";

const root = path.join(import.meta.dirname, "../..");
// From the compiled test's place the module is one folder further away than the compiler thinks.
const { compileGuest } = (await import(path.join(root, "guest/xencc.mjs"))) as typeof import("../guest/xencc.mjs");

const CYCLES = Number(process.env["XENOLITH_REVOKE_CYCLES"] ?? 3200);
/** As in revoke-spin.c. */
const PAGES = 16;
const REF_FIRST = 8;
const READ_ONLY = 1;
const LAID_OVER = 2;
const WITHOUT_HOLES = 4;
const HALF_WORDS = 512;
const PAGE_WORDS = 1024;
const GRANTED = 0xa000_0000;
const FRESH = 0xd000_0000;
const TAKEN = 0xe000_0000;

let host: Host;
let image: Awaited<ReturnType<Host["loadImage"]>>;
before(async () => {
  const source = readFileSync(path.join(root, "tests/revoke-spin.c"));
  const flags = ["-msimd128", "-mbulk-memory", "-Wno-unused-parameter", "-Wl,--export-memory"];
  const module = await compileGuest({ "revoke-spin.c": source }, { library: false, flags });
  host = await Host.open({ memoryBytes: 256 * 2 ** 20 });
  image = await host.loadImage(module);
});
after(async () => {
  assert.deepEqual(host.audit(), []);
  await host.close();
});

const FIELDS = [
  "wrong",
  "kind",
  "mapping",
  "page",
  "value",
  "granted",
  "replaced",
  "sweeps",
  "lostMarks",
  "maps",
  "refusals",
  "badStatuses",
  "lastStatus",
] as const;

/** What a guest has counted. */
type Findings = Readonly<Record<(typeof FIELDS)[number], number>>;

/** One of the two guests. */
class Player {
  readonly domain: Domain;
  readonly #found: number;

  private constructor(domain: Domain, found: number) {
    this.domain = domain;
    this.#found = found;
  }

  static async start(mode: number, mappings: number, extents = 0): Promise<Player> {
    const domain = await host.createDomain({ image, memoryBytesMax: 8 * 2 ** 20, vcpus: 2 });
    await domain.start();
    assert.equal(await domain.call("set_up", mode, mappings, extents), 0);
    return new Player(domain, Number(await domain.call("findings")));
  }

  async call(name: string, ...values: number[]): Promise<void> {
    await this.domain.call(name, ...values);
  }

  /** Waits until its vCPU 1 has seen pages of that kind. */
  async sees(kind: "granted" | "replaced"): Promise<void> {
    while (this.findings()[kind] === 0) await pause(1);
  }

  findings(): Findings {
    const words = new Uint32Array(this.domain.read(this.#found, FIELDS.length * 4).buffer);
    return Object.fromEntries(FIELDS.map((name, index) => [name, words[index]!])) as Findings;
  }
}

/** Nobody saw what it must not see, and both pages were seen in turn. */
const assertSound = ({ wrong, kind, mapping, page, value, ...found }: Findings): void => {
  assert.deepEqual(
    { wrong, kind, mapping, page, value: value.toString(16) },
    { wrong: 0, kind: 0, mapping: 0, page: 0, value: "0" },
  );
  assert.ok(found.granted > 0 && found.replaced > 0 && found.sweeps > 0, JSON.stringify(found));
  assert.deepEqual([found.lostMarks, found.badStatuses, found.lastStatus | 0], [0, 0, 0]);
};

/** Fills the control domain's pages as a granter does, or marks those that it has taken back. */
const fill = (words: Uint32Array, upper: number): void => {
  for (let page = 0; page < PAGES; page += 1) {
    words.fill((GRANTED | page) >>> 0, page * PAGE_WORDS, page * PAGE_WORDS + HALF_WORDS);
    words.fill((upper | page) >>> 0, page * PAGE_WORDS + HALF_WORDS, (page + 1) * PAGE_WORDS);
  }
};
const wordsOf = (bytes: Uint8Array<SharedArrayBuffer>): Uint32Array =>
  new Uint32Array(bytes.buffer, bytes.byteOffset, PAGES * PAGE_WORDS);
const marked = new Uint32Array(PAGES * PAGE_WORDS);
fill(marked, TAKEN);
const assertMarked = (words: Uint32Array): void => {
  const at = words.findIndex((word, index) => word !== marked[index]);
  assert.equal(at, -1, `word ${at} is ${words[at]?.toString(16)}: somebody wrote to a page that was taken back`);
};

describe(`while a vCPU spins on them, pages are mapped and revoked ${CYCLES} times`, () => {
  for (const [name, mode, mappings] of [
    ["read-only: it sees the page or zeros", READ_ONLY, 1],
    ["writable: it sees the page or a private one", 0, 1],
    ["mapped twice: neither mapping ever shows what is private to the other", 0, 2],
    [
      "laid over its own pages, while they are mapped and unmapped at the same time: it sees the page or its own",
      LAID_OVER,
      1,
    ],
    ["laid over its own pages, twice and read-only", LAID_OVER | READ_ONLY, 2],
  ] as const) {
    it(`a guest grants, ${name}`, async (t) => {
      const granter = await Player.start(mode, mappings);
      const mapper = await Player.start(mode, mappings);
      let isFirst = 1;
      const give = async (): Promise<void> => {
        await granter.call("give", mapper.domain.domid, isFirst);
        isFirst = 0;
      };
      await give();
      await mapper.call("map", granter.domain.domid, REF_FIRST);
      assert.equal(await mapper.domain.call("begin"), 1);
      await mapper.call("go");
      await mapper.sees("granted");
      await granter.call("take");
      await mapper.sees("replaced");
      for (let cycles = 0; cycles < CYCLES; cycles += PAGES * mappings) {
        const isRace = (mode & LAID_OVER) !== 0 && cycles % (4 * PAGES) === 0;
        if (isRace) await Promise.all([mapper.call("unmap"), give()]);
        else await mapper.call("unmap").then(give);
        const map = mapper.call("map", granter.domain.domid, REF_FIRST);
        if (!isRace) await map;
        await mapper.call("go");
        await Promise.all([map, granter.call("take")]);
      }
      await mapper.call("unmap");
      const seen = mapper.findings();
      t.diagnostic(JSON.stringify(seen));
      assertSound(seen);
      const { badStatuses, lostMarks } = granter.findings();
      assert.deepEqual([badStatuses, lostMarks], [0, 0]);
      await Promise.all([granter.domain.destroy(), mapper.domain.destroy()]);
      assert.deepEqual(host.audit(), []);
    });
  }

  it("the control domain grants, laid over its own pages", async (t) => {
    const mapper = await Player.start(LAID_OVER, 1);
    let isSpinning = false;
    for (let cycles = 0; cycles < CYCLES; cycles += PAGES) {
      const pages = host.grants.share(mapper.domain.domid, { pages: PAGES, revokable: true });
      const words = wordsOf(pages.bytes);
      fill(words, FRESH);
      assert.ok(pages.refs.every((ref, index) => ref === pages.refs[0]! + index));
      await mapper.call("map", 0, pages.refs[0]!);
      if (!isSpinning) assert.equal(await mapper.domain.call("begin"), 1);
      if (!isSpinning) await mapper.call("go");
      if (!isSpinning) await mapper.sees("granted");
      isSpinning = true;
      pages.revoke();
      fill(words, TAKEN);
      await mapper.call("unmap");
      assertMarked(words);
      await pages.end();
    }
    await mapper.sees("replaced");
    const seen = mapper.findings();
    t.diagnostic(JSON.stringify(seen));
    assertSound(seen);
    assert.equal(seen.refusals, 0);
    await mapper.domain.destroy();
    assert.deepEqual(host.audit(), []);
  });

  for (const access of ["read-only", "read-write"] as const) {
    it(`a share is given and taken back, ${access}`, async (t) => {
      const address = 0x6000_0000;
      const mapper = await Player.start(WITHOUT_HOLES | (access === "read-only" ? READ_ONLY : 0), 1, address);
      const share = host.share(PAGES * 4096);
      const words = wordsOf(share.bytes);
      fill(words, FRESH);
      share.mapInto(mapper.domain, { access, address });
      assert.equal(await mapper.domain.call("begin"), 1);
      await mapper.call("go");
      await mapper.sees("granted");
      for (let cycles = 0; cycles < CYCLES; cycles += PAGES) {
        // The other thread gets its turn in both states.
        await mapper.call("go");
        share.revoke(mapper.domain);
        fill(words, TAKEN);
        await mapper.call("go");
        assertMarked(words);
        fill(words, FRESH);
        share.mapInto(mapper.domain, { access });
      }
      share.revoke();
      await mapper.sees("replaced");
      const seen = mapper.findings();
      t.diagnostic(JSON.stringify(seen));
      assertSound(seen);
      await mapper.domain.destroy();
      share.close();
      assert.deepEqual(host.audit(), []);
    });
  }
});
