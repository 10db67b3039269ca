/**
 * Many processes that request, wait, are interrupted and die, and helpers that build, refuse, ask for more, hang, instantiate
 * twice or somebody else's key, or just end: in every order that a seed gives. Everybody gets an answer, and nothing is left.
 */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Answer, Pending, Process, Upcall } from "../src/index.ts";
import { Bench, bytes, SESSION } from "./kit.ts";
import { Random } from "./random.ts";

const STEPS = 4000;
const NAMES = ["a", "b", "c", "d", "e:f"];

/** Lets everything happen that can. */
const turn = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));

class Simulation {
  readonly #random: Random;
  readonly #bench: Bench;
  readonly #processes: Process[] = [];
  /** Helpers that stand at a point where the simulation decides when they go on. */
  readonly #standing: (() => void)[] = [];
  readonly #answers: Pending[] = [];
  #answered = 0;
  #asked = 0;
  #upcalls = 0;
  #foreign = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.#bench = new Bench({
      random: this.#random.bits,
      upcallTimeoutMs: this.#random.chance(0.5) ? 20_000 : 0,
      detectSelfWait: true,
      limits: { gcDelaySeconds: 5 },
    });
    this.#bench.helper = async (upcall) => await this.#help(upcall);
  }

  async run(): Promise<void> {
    for (let step = 0; step < STEPS; step += 1) {
      this.#step();
      if (this.#random.chance(0.4)) await turn();
      if (step % 50 === 0) assert.deepEqual(this.#bench.service.audit(), []);
    }
    while (this.#standing.length > 0 || this.#bench.service.statistics().waits > 0) {
      for (const goOn of this.#standing.splice(0)) goOn();
      this.#bench.clock.advance(30);
      await turn();
    }
    await Promise.all(this.#answers.map(async ({ settled }) => await settled));
    await turn();
    assert.equal(this.#answered, this.#asked, "somebody was forgotten");
    assert.ok(this.#upcalls > 50 && this.#foreign > 0, "the simulation did too little");
    this.#bench.finish();
  }

  /** Waits until the simulation lets it go on. */
  async #stand(): Promise<void> {
    await new Promise<void>((resolve) => this.#standing.push(resolve));
  }

  #note(answer: Answer): void {
    this.#asked += 1;
    if (typeof answer === "number") {
      this.#answered += 1;
      return;
    }
    this.#answers.push(answer);
    void answer.settled.then(() => (this.#answered += 1));
  }

  async #help(upcall: Upcall): Promise<number> {
    this.#upcalls += 1;
    const { service } = this.#bench;
    const { helper, target } = upcall;
    const random = this.#random;
    for (let acts = random.below(4); acts > 0; acts -= 1) {
      if (random.chance(0.5)) await this.#stand();
      // Given up meanwhile, it is a process no more.
      if (helper.session === undefined) return 0;
      service.assumeAuthority(helper, target);
      this.#act(helper, target);
    }
    if (random.chance(0.1)) throw new Error("the helper could not be started");
    return random.pick([0, 1, 256, -2]);
  }

  #act(helper: Process, target: number): void {
    const { service } = this.#bench;
    const random = this.#random;
    const ring = random.pick([0, 0, -3, -8, -7, SESSION, 12_345]);
    const other = random.pick(
      [...service.procKeys(helper).matchAll(/^\w{8}/gm)].map(([hex]) => Number.parseInt(hex, 16)),
    );
    switch (random.below(8)) {
      case 0:
        this.#note(service.negate(helper, target, random.pick([0, 3, 60]), ring));
        break;
      case 1:
        this.#note(service.reject(helper, target, { seconds: 5, error: random.pick([11, 126, 129, 5]), ring }));
        break;
      case 2:
        this.#note(service.requestKey(helper, "user", random.pick(NAMES), "nested", random.pick([0, -8])));
        break;
      case 3:
        this.#foreign += 1;
        this.#note(service.instantiate(helper, other, bytes("forged"), 0));
        break;
      case 4:
        this.#note(service.setTimeout(helper, target, random.pick([1, 10])));
        break;
      default:
        this.#note(service.instantiate(helper, target, bytes("built"), ring));
    }
  }

  #step(): void {
    const random = this.#random;
    const { service, clock } = this.#bench;
    if (this.#processes.length < 3 || random.chance(0.02))
      this.#processes.push(this.#bench.process(1000 + random.below(2)));
    const process = random.pick(this.#processes);
    switch (random.below(16)) {
      case 0:
        this.#processes.push(service.fork(process, { pid: 5000 }));
        break;
      case 1:
        if (this.#processes.length > 3) service.exit(this.#processes.splice(this.#processes.indexOf(process), 1)[0]!);
        break;
      case 2:
        this.#answers.at(-1 - random.below(5))?.interrupt();
        break;
      case 3:
        clock.advance(random.pick([0, 1, 1, 4]));
        break;
      case 4:
      case 5:
      case 6:
        this.#standing.splice(random.below(this.#standing.length), 1)[0]?.();
        break;
      case 7:
        this.#note(service.addKey(process, "user", random.pick(NAMES), bytes("added"), SESSION));
        break;
      case 8:
        this.#note(service.clear(process, SESSION));
        break;
      case 9:
        this.#note(service.joinSession(process, null));
        break;
      case 10:
        this.#touch(process);
        break;
      default:
        this.#note(
          service.requestKey(process, "user", random.pick(NAMES), "callout", random.pick([0, 0, SESSION, -1])),
        );
    }
  }

  /** Does something with a key of the process, which may be under construction. */
  #touch(process: Process): void {
    const { service } = this.#bench;
    const found = service.search(process, SESSION, "user", this.#random.pick(NAMES), 0);
    const key = Number(found);
    const act = this.#random.pick([
      () => service.read(process, key),
      () => service.update(process, key, bytes("new")),
      () => service.revoke(process, key),
      () => service.invalidate(process, key),
      () => service.unlink(process, key, SESSION),
      () => service.link(process, key, -1),
    ]);
    this.#note(act());
  }
}

describe("requests in every order", () => {
  it("are all answered, and leave sound books and nothing else", async () => {
    const first = Date.now() % 1_000_000;
    for (let seed = first; seed < first + 5; seed += 1) {
      console.log(`seed ${seed}`);
      await new Simulation(seed).run();
    }
  });
});
