import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { randomFrom } from "./advisories-kit.ts";
import { copies, copy, fill, flagsOf, grant, makeReadOnly, mapEntry, PAGE, pair } from "./grant-op-kit.ts";
import type { Copy, Entry } from "./grant-op-kit.ts";
import { peek } from "./machine.ts";

/** References, up to the last of the table's only frame; and requests, some of which go beyond it. */
const ENTRIES = 20;
const FIRST = 512 - ENTRIES;
const COUNT = 30;
/** Frames that are copied from and to: the others hold the operations. */
const FRAMES = 6;

type Random = (bound: number) => number;

const givenEntries = (random: Random, to: number): Entry[] =>
  Array.from({ length: ENTRIES }, (_, index) => {
    const flags = [abi.GTF_readonly, abi.GTF_sub_page, abi.GTF_revokable][random(30)] ?? 0;
    const gfn = [8, 5000, 0xffff_ffff][random(30)] ?? index % FRAMES;
    return { to: random(30) === 0 ? to + 1 : to, gfn, flags: abi.GTF_permit_access | flags };
  });

/** Copies of which most are of whole pages, between frames in a row. */
const wishedCopies = (random: Random, domid: number): Copy[] => {
  const start = random(ENTRIES);
  let isRead = random(2) === 0;
  return Array.from({ length: COUNT }, (_, index) => {
    if (random(12) === 0) isRead = !isRead;
    const ref = random(12) === 0 ? FIRST + random(COUNT) : FIRST + start + index;
    const theirs = { ref, domid, offset: random(30) === 0 ? 1 : 0 };
    const own = { gfn: [8, 0x8000_0000][random(30)] ?? (random(8) === 0 ? random(FRAMES) : index % FRAMES) };
    const length = [0, 100][random(24)] ?? PAGE;
    return isRead ? { from: theirs, to: own, length } : { from: own, to: theirs, length };
  });
};

/** A machine where these entries are given; one of them may be mapped. */
const play = (entries: readonly Entry[], mapped: number) => {
  const world = pair();
  const { machine, granter, caller } = world;
  for (let gfn = 0; gfn < FRAMES; gfn += 1) {
    fill(granter, gfn * PAGE, gfn);
    fill(caller, gfn * PAGE, 100 + gfn);
  }
  if (mapped >= 0) {
    grant(machine, granter, FIRST + mapped, { to: caller.domid, gfn: 2 });
    mapEntry(machine, caller, { granter, ref: FIRST + mapped, gfn: 20, flags: abi.GNTMAP_host_map });
  }
  for (const [index, entry] of entries.entries()) {
    if (index !== mapped) grant(machine, granter, FIRST + index, entry);
  }
  makeReadOnly(machine, granter, 3);
  makeReadOnly(machine, caller, 4);
  return world;
};

const outcome = ({ machine, granter, caller }: ReturnType<typeof play>) => ({
  flags: Array.from({ length: ENTRIES }, (_, index) => flagsOf(machine, granter, FIRST + index)),
  theirs: peek(granter, 0, FRAMES * PAGE),
  own: peek(caller, 0, FRAMES * PAGE),
});

describe("copies in a row", () => {
  it("come to the same as one by one, whatever stands in the entries", (t) => {
    const seed = Number(process.env["GRANT_ROW_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
    t.diagnostic(`seed ${seed}`);
    const random = randomFrom(seed);
    for (let round = 0; round < 60; round += 1) {
      const entries = givenEntries(random, pair().caller.domid);
      const mapped = random(2) === 0 ? random(ENTRIES) : -1;
      const [together, apart] = [play(entries, mapped), play(entries, mapped)];
      const wishes = wishedCopies(random, together.granter.domid);
      const statuses = copies(together.machine, together.caller, wishes);
      apart.machine.check = () => {};
      assert.deepEqual(
        statuses,
        wishes.map((wish) => copy(apart.machine, apart.caller, wish)),
        `round ${round}`,
      );
      const [left, right] = [outcome(together), outcome(apart)];
      assert.deepEqual(left.flags, right.flags, `round ${round}`);
      assert.ok(Buffer.compare(left.theirs, right.theirs) === 0, `round ${round}: the granter's bytes`);
      assert.ok(Buffer.compare(left.own, right.own) === 0, `round ${round}: the caller's bytes`);
    }
  });

  it("C8: between holes are refused each by itself, also at the head of the row", () => {
    const { machine, granter, caller } = pair();
    const hole = 50;
    const gfns = [hole, hole, 1, hole, 2, 3];
    const list = gfns.map((gfn, index): Copy => {
      grant(machine, granter, FIRST + index, { to: caller.domid, gfn });
      return { from: { ref: FIRST + index, domid: granter.domid }, to: { gfn }, length: PAGE };
    });
    const theirs = gfns.filter((gfn) => gfn !== hole).map((gfn) => fill(granter, gfn * PAGE, gfn));
    const { GNTST_bad_page: refused, GNTST_okay: okay } = abi;
    assert.deepEqual(copies(machine, caller, list), [refused, refused, okay, refused, okay, okay]);
    assert.deepEqual(peek(caller, PAGE, 3 * PAGE), new Uint8Array(Buffer.concat(theirs)));
    for (const index of gfns.keys()) assert.equal(flagsOf(machine, granter, FIRST + index), abi.GTF_permit_access);
  });
});
