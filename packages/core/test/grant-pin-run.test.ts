import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { FRAME_REFS_MAX } from "../src/frame-table.ts";
import { randomFrom } from "./advisories-kit.ts";
import { HOLE, HOST, pair, READ_ONLY, REVOKABLE, RO, RW } from "./grant-kit.ts";
import type { GrantMachine, Wish } from "./grant-kit.ts";
import { makeReadOnly } from "./grant-op-kit.ts";
import { RAM_FRAMES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const COUNT = 40;
/** Up to the last reference of the table's only frame, and beyond it. */
const FIRST = 512 - COUNT / 2;

/** An entry as its granter wrote it. */
interface Given {
  readonly ref: number;
  readonly gfn: number;
  readonly flags: number;
  readonly to: number;
}

/** Entries of which most permit a mapping, and requests of which most ask for what is there, in a row. */
const scene = (random: (bound: number) => number, mapper: number) => {
  const odd = (chance: number): boolean => random(chance) === 0;
  const given: Given[] = [];
  for (let index = 0; index < COUNT / 2; index += 1) {
    const flags = odd(8) ? [RO, REVOKABLE, 0, RW | abi.GTF_sub_page, RW | abi.GTF_reading][random(5)]! : RW;
    const gfn = odd(12) ? [RAM_FRAMES, 5000, 0xffff_ffff][random(3)]! : index % RAM_FRAMES;
    given.push({ ref: FIRST + index, gfn, flags, to: odd(16) ? mapper + 1 : mapper });
  }
  const start = random(COUNT / 2);
  const wishes: Wish[] = Array.from({ length: COUNT - start }, (_, index) => ({
    ref: odd(10) ? FIRST + random(COUNT) : FIRST + start + index,
    gfn: HOLE + index,
    flags: odd(10) ? HOST | READ_ONLY : HOST,
  }));
  return { given, wishes, pinned: odd(2) ? FIRST + random(COUNT / 2) : -1, isFull: odd(3) };
};

/** A machine with that scene, before anything is mapped by the list. */
const play = (about: ReturnType<typeof scene>): { machine: GrantMachine; granter: Guest; mapper: Guest } => {
  const world = pair();
  const { machine, granter, mapper } = world;
  for (const { ref, gfn, flags, to } of about.given) machine.grant(granter, ref, to, gfn, flags);
  makeReadOnly(machine, granter, 3);
  if (about.pinned >= 0) machine.map(mapper, granter, { ref: about.pinned, gfn: HOLE + 100 });
  return world;
};

/** Without audits, which take long; one frame of each granter has nearly all references that it can have, if `isFull`. */
const unchecked = <T>(worlds: readonly ReturnType<typeof play>[], isFull: boolean, body: () => T): T => {
  const spoil = (sign: number): void => {
    for (const { machine, granter } of worlds) {
      const missing = FRAME_REFS_MAX - 3;
      if (isFull) machine.hypervisor.frames.refs[machine.frame(granter, 5)]! += sign * missing;
    }
  };
  const checks = worlds.map(({ machine }) => machine.check.bind(machine));
  for (const { machine } of worlds) machine.check = () => {};
  spoil(1);
  const result = body();
  spoil(-1);
  for (const [index, { machine }] of worlds.entries()) machine.check = checks[index]!;
  return result;
};

/** All that mapping changes. */
const outcome = ({ machine, granter, mapper }: ReturnType<typeof play>) => {
  const { grants, p2m, frames, maptrack } = machine.hypervisor;
  const refs = Array.from({ length: COUNT / 2 }, (_, index) => FIRST + index);
  return {
    words: refs.map((ref) => machine.flags(granter, ref)),
    pins: refs.map((ref) => grants.pin[grants.row(granter.slot, ref)]),
    entries: Array.from({ length: COUNT }, (_, index) => p2m.get(mapper.slot, HOLE + index)),
    frames: Array.from({ length: RAM_FRAMES }, (_, gfn) => frames.refs[machine.frame(granter, gfn)]),
    live: maptrack.liveCount[mapper.slot],
  };
};

describe("mapping references in a row", () => {
  it("comes to the same as mapping them one by one, whatever stands in the entries", (t) => {
    const seed = Number(process.env["GRANT_RUN_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
    t.diagnostic(`seed ${seed}`);
    const random = randomFrom(seed);
    for (let round = 0; round < 60; round += 1) {
      const about = scene(random, pair().mapper.domid);
      const worlds = [play(about), play(about)] as const;
      const [together, apart] = worlds;
      const { list, single } = unchecked(worlds, about.isFull, () => ({
        list: together.machine.mapAll(together.mapper, together.granter, about.wishes),
        single: about.wishes.map((wish) => apart.machine.map(apart.mapper, apart.granter, wish)),
      }));
      assert.deepEqual(
        list.map(({ status }) => status),
        single.map(({ status }) => status),
        `round ${round}`,
      );
      assert.deepEqual(outcome(together), outcome(apart), `round ${round}`);
      for (const { machine } of worlds) machine.check();
    }
  });
});
