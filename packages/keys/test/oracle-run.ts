/** A run of random operations on both sides, which are compared after each of them. */
import { existsSync, readFileSync } from "node:fs";
import { keyErrno, keyErrorName } from "../src/index.ts";
import { linesBySerial, serials, usersIn } from "./oracle-lists.ts";
import { Difference, Pair, pause, type Twin } from "./oracle-pair.ts";
import { RUNNER, USERS } from "./oracle-choices.ts";
import { randomStep, type Step } from "./oracle-steps.ts";
import { Random } from "./random.ts";

/** Steps between two comparisons of everything. */
const COMPARE_EVERY = 20;
const LATER_TRIES = 500;
const { EDQUOT, ENOKEY } = keyErrno;

/** One run from an empty beginning. */
export class OracleRun {
  readonly #pair: Pair;
  readonly #random: Random;
  readonly #runName: string;
  readonly #gone: Twin[] = [];
  readonly #dying: Twin[] = [];
  readonly #spared = new Set<number>();
  readonly #trail: string[] = [];
  readonly #results: Map<string, number>;
  #uid = RUNNER;
  /** How long this process stood still, at most, between one side's operation and the other's. */
  #skewSeconds = 0;

  /** The results are counted by operation and error. */
  constructor(seed: number, results: Map<string, number>) {
    this.#results = results;
    this.#random = new Random(seed);
    this.#pair = new Pair(this.#random.bits);
    this.#pair.startsNoHelpers = !existsSync("/sbin/request-key");
    this.#runName = `xenolith-${process.pid}-${seed}`;
  }

  /** Brings both sides to the same beginning: nobody's keyrings have anything in them. */
  async prepare(): Promise<void> {
    const { kernel, service, caller, clock } = this.#pair;
    clock.follow();
    for (const uid of USERS) {
      this.#become(uid);
      if (uid === RUNNER) continue;
      for (const id of [-4, -5]) {
        const mine = await this.#pair.now(service.getKeyringId(caller, id, false));
        this.#pair.match(mine, kernel.keyctl(0, id, 0), `user keyring ${id}`);
        this.#spared.add(mine);
      }
    }
    this.#become(RUNNER);
    await this.#do({
      text: "join a session",
      mine: () => service.joinSession(caller, null),
      kernels: () => kernel.join(null),
      yieldsSerial: true,
    });
  }

  /** Does this many random operations. */
  async steps(count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) {
      if (this.#random.chance(0.03)) this.#become(this.#random.pick(USERS));
      await this.#do(randomStep(this.#context()));
      if (index % COMPARE_EVERY === COMPARE_EVERY - 1) await this.#compareAll();
    }
    await this.#compareAll();
  }

  /** The last operations, newest last. */
  get trail(): readonly string[] {
    return this.#trail;
  }

  #context() {
    return {
      pair: this.#pair,
      random: this.#random,
      uid: this.#uid,
      runName: this.#runName,
      gone: this.#gone,
      isSpared: (mine: number) => this.#spared.has(mine),
    };
  }

  #become(uid: number): void {
    this.#pair.become(uid);
    this.#uid = uid;
    this.#note(`become ${uid}`);
  }

  #note(text: string): void {
    this.#trail.push(text);
    if (this.#trail.length > 60) this.#trail.shift();
  }

  async #do(step: Step): Promise<void> {
    this.#pair.clock.follow();
    this.#note(step.text);
    if (step.findsByName === true) this.#settle();
    const began = Date.now();
    const mine = await this.#pair.now(step.mine());
    this.#skewSeconds = Math.max(this.#skewSeconds, (Date.now() - began) / 1000);
    let kernels = step.kernels();
    // What is gone on my side may still count on the other.
    for (let tries = 0; kernels === -EDQUOT && mine !== -EDQUOT && tries < LATER_TRIES; tries += 1) {
      pause(2);
      kernels = step.kernels();
    }
    this.#note(`  = ${mine} / ${kernels}`);
    const name = `${step.text.split(" ")[0]} ${mine < 0 ? (keyErrorName(mine) ?? mine) : "ok"}`;
    this.#results.set(name, (this.#results.get(name) ?? 0) + 1);
    if (step.yieldsSerial && mine > 0 && kernels > 0) this.#pair.match(mine, kernels, step.text);
    else this.#pair.same(step.text, mine, kernels);
    this.#bury(step.settlesLater === true);
    this.#pair.noteSizes();
    if (step.settlesLater === true && mine === 0) await this.#compareAll();
  }

  /** Keys that are gone on my side are as good as gone on the other, though that may still have them for a while. */
  #bury(wasInvalidated: boolean): void {
    const before = [...this.#pair.twins];
    this.#pair.forgetGone();
    // The remains of an invalidated key answer now like a key that is gone, now like one that is foreign.
    if (wasInvalidated) return;
    for (const twin of before) if (!this.#pair.twins.includes(twin)) this.#dying.push(twin);
  }

  /** Waits until the kernel has freed what is gone on my side. */
  #settle(): void {
    for (const twin of this.#dying) {
      for (let tries = 0; this.#isThere(twin.kernels); tries += 1) {
        if (tries === LATER_TRIES)
          throw new Difference(`the kernel still has key ${twin.kernels}, mine was ${twin.mine}`);
        pause(2);
      }
    }
    this.#gone.push(...this.#dying.splice(0));
    this.#gone.splice(0, this.#gone.length - 20);
  }

  /** An invalidated keyring that was somebody's session answers like one that is gone, and can still be joined for a moment. */
  #isThere(serial: number): boolean {
    if (this.#pair.kernel.keyctlBytes(6, serial, null, 0) !== -ENOKEY) return true;
    return linesBySerial(readFileSync("/proc/keys", "latin1")).has(serial);
  }

  /** Compares all lists; the kernel frees keys a little later, and so gets time. */
  async #compareAll(): Promise<void> {
    this.#settle();
    for (let tries = 0; ; tries += 1) {
      this.#pair.clock.follow();
      try {
        await this.#compareKeyrings();
        this.#compareLists();
        this.#compareUsers();
        break;
      } catch (error) {
        if (tries === LATER_TRIES) throw error;
        pause(2);
      }
    }
    const findings = this.#pair.service.audit();
    if (findings.length > 0) throw new Difference(`the auditor found: ${findings.join("; ")}`);
  }

  async #compareKeyrings(): Promise<void> {
    const { service, caller, kernel } = this.#pair;
    for (const { mine, kernels } of [...this.#pair.twins]) {
      if (!this.#pair.isRing(mine)) continue;
      const target = Buffer.alloc(4096);
      const mySize = await this.#pair.now(service.read(caller, mine, target));
      const other = Buffer.alloc(4096);
      const size = kernel.keyctlBytes(11, kernels, other, other.length);
      this.#pair.same(`size of keyring ${mine}/${kernels}`, mySize, size);
      if (size > 0) this.#compareSerials(mine, serials(target, size), serials(other, size));
    }
  }

  #compareSerials(ring: number, mine: readonly number[], kernels: readonly number[]): void {
    if (this.#pair.wasLarge(ring)) {
      const known = kernels.map((serial) => this.#pair.mineOf(serial)).filter((serial) => serial !== undefined);
      for (const serial of known)
        if (!mine.includes(serial)) throw new Difference(`keyring ${ring} should not have ${serial}`);
      return;
    }
    for (const [at, serial] of mine.entries()) this.#pair.match(serial, kernels[at]!, `link ${at} of keyring ${ring}`);
  }

  #compareLists(): void {
    const mine = linesBySerial(this.#pair.service.procKeys(this.#pair.caller));
    const kernels = linesBySerial(readFileSync("/proc/keys", "latin1"));
    for (const twin of this.#pair.twins) {
      const [own, other] = [mine.get(twin.mine), kernels.get(twin.kernels)];
      const what = `line of ${twin.mine}/${twin.kernels}`;
      this.#pair.same(what, own?.text, other?.text);
      // A second may have ended between the two sides' operations.
      if (own !== undefined && other !== undefined && Math.abs(own.seconds - other.seconds) > 2 + this.#skewSeconds) {
        throw new Difference(`${what}: ${own.seconds} and ${other.seconds} seconds left`);
      }
    }
  }

  #compareUsers(): void {
    const mine = usersIn(this.#pair.service.procKeyUsers());
    const kernels = usersIn(readFileSync("/proc/key-users", "latin1"));
    for (const uid of USERS) if (uid !== RUNNER) this.#pair.same(`user ${uid}`, mine.get(uid), kernels.get(uid));
  }

  /** Leaves nothing behind in the kernel: the keyrings of the users would stay for ever, or for days. */
  cleanUp(): void {
    const { kernel, twins } = this.#pair;
    for (const uid of USERS) {
      this.#become(uid);
      kernel.join(null);
      if (uid === RUNNER) continue;
      const rings = [-4, -5].map((id) => kernel.keyctl(0, id));
      for (const ring of rings) kernel.keyctl(8, ring, -3);
      for (const { kernels } of twins) kernel.keyctl(7, kernels);
      // By number: whoever names them by what they are makes them anew.
      for (const ring of [kernel.keyctl(22, -1, -3), ...rings]) if (ring > 0) kernel.keyctl(21, ring);
    }
  }
}
