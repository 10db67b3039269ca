/**
 * A search notes where it has been, since keyrings can lead to each other on very many ways. It must answer what a walk
 * answers that forgets everything and goes every way.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Key, KEY_ALL, KEY_SEARCH, permissionMask } from "../src/index.ts";
import { KEY_REVOKED } from "../src/key.ts";
import { isKeyring, linksOf } from "../src/link-table.ts";
import { permits } from "../src/permission.ts";
import type { Process } from "../src/process.ts";
import { type Bench, bytes, errorOf, ok, onBench, SESSION } from "./kit.ts";
import { Random } from "./random.ts";

const DEPTH_MAX = 6;
const HIDDEN = permissionMask({ possessor: KEY_ALL & ~KEY_SEARCH });

/** Every way, depth first, without a memory: the key, or the last error that it met. */
class PlainWalk {
  error = "ENOKEY";
  readonly #process: Process;
  readonly #now: number;
  steps = 0;

  constructor(process: Process, now: number) {
    this.#process = process;
    this.#now = now;
  }

  descend(ring: Key, depth: number): Key | undefined {
    this.steps += 1;
    if ((ring.flags & KEY_REVOKED) !== 0) return undefined;
    const links = linksOf(ring).list();
    const here = links.find((key) => key.type.name === "user" && key.description === "k");
    if (here !== undefined && this.#isGood(here)) return here;
    if (depth === DEPTH_MAX) return undefined;
    for (const child of links.filter(isKeyring)) {
      if (!permits(child, KEY_SEARCH, this.#process, true)) continue;
      const found = this.descend(child, depth + 1);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #isGood(key: Key): boolean {
    let error: string | undefined;
    if ((key.flags & KEY_REVOKED) !== 0) error = "EKEYREVOKED";
    else if (key.expiry >= 0 && this.#now >= key.expiry) error = "EKEYEXPIRED";
    else if (!permits(key, KEY_SEARCH, this.#process, true)) error = "EACCES";
    if (error !== undefined) this.error = error;
    return error === undefined;
  }
}

/** Six levels of keyrings that lead to most of those below, here and there with a key that can or cannot be used. */
const grow = (bench: Bench, process: Process, random: Random): void => {
  const { service } = bench;
  let above = [ok(service.getKeyringId(process, SESSION, false))];
  for (let level = 0; level < 7; level += 1) {
    const rings: number[] = [];
    for (let index = 0; index < 3; index += 1) {
      const ring = ok(service.addKey(process, "keyring", `${level}.${index}`, null, above[0]!));
      rings.push(ring);
      for (const each of above.slice(1)) if (random.chance(0.8)) ok(service.link(process, ring, each));
      if (random.chance(0.3)) spoil(bench, process, random, ring);
      if (random.chance(0.08)) ok(service.setPermissions(process, ring, HIDDEN));
    }
    above = rings.filter((ring) => service.getKeyringId(process, ring, false) === ring);
    if (above.length === 0) return;
  }
};

const spoil = ({ service }: Bench, process: Process, random: Random, ring: number): void => {
  const added = service.addKey(process, "user", "k", bytes("v"), ring);
  // A keyring below the last level is not possessed.
  if (errorOf(added) === "EACCES") return;
  const key = ok(added);
  const kind = random.below(40);
  if (kind < 13) service.revoke(process, key);
  else if (kind < 26) service.setTimeout(process, key, 1);
  else if (kind < 39) service.setPermissions(process, key, HIDDEN);
};

describe("a search that notes where it has been", () => {
  it("answers as one that goes every way", async () => {
    const first = Date.now() % 1_000_000;
    console.log(`seed ${first}`);
    const answers = new Map<string, number>();
    let longest = 0;
    for (let seed = first; seed < first + 150; seed += 1) {
      const random = new Random(seed);
      await onBench(
        (bench) => {
          const process = bench.process(0);
          grow(bench, process, random);
          bench.clock.advance(1);
          const walk = new PlainWalk(process, bench.clock.seconds());
          const expected = walk.descend(process.session!, 0)?.serial ?? walk.error;
          const answer = errorOf(bench.service.search(process, SESSION, "user", "k", 0));
          assert.equal(answer, expected, `seed ${seed}`);
          const name = typeof answer === "number" ? "found" : answer;
          answers.set(name, (answers.get(name) ?? 0) + 1);
          longest = Math.max(longest, walk.steps);
        },
        { errorPriority: "linux-6" },
      )();
    }
    assert.ok(longest > 500, "no way was long enough for anything to be noted");
    for (const name of ["found", "EKEYREVOKED", "EKEYEXPIRED", "EACCES"]) assert.ok(answers.has(name), `never ${name}`);
  });
});
