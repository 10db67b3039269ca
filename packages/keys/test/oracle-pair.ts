/** The library and the kernel side by side: each operation is done by both, with serial numbers translated, and compared. */
import { readFileSync } from "node:fs";
import { type Answer, KeyService, ManualClock, type Process } from "../src/index.ts";
import { RUNNER } from "./oracle-choices.ts";
import { KernelKeys } from "./kernel-keys.ts";

/** The same key on both sides. */
export interface Twin {
  readonly mine: number;
  readonly kernels: number;
}

/** A difference between the library and the kernel. */
export class Difference extends Error {
  override readonly name = "Difference";
}

const REAL_CLOCK_MS = 1000;

/** Sleeps without letting anything else run. */
export const pause = (milliseconds: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
};

/** A clock that follows the machine's when told to, so that both sides read the same second. */
export class FollowingClock extends ManualClock {
  #second = Math.floor(Date.now() / REAL_CLOCK_MS);

  constructor() {
    super(Math.floor(Date.now() / REAL_CLOCK_MS));
  }

  /** Moves on to the machine's second, and away from where one ends: the kernel's may be a tick behind. */
  follow(): void {
    while (Math.abs((Date.now() % REAL_CLOCK_MS) - REAL_CLOCK_MS / 2) > REAL_CLOCK_MS / 2 - 12) pause(3);
    const now = Math.floor(Date.now() / REAL_CLOCK_MS);
    this.advance(now - this.#second);
    this.#second = now;
  }

  /** Waits until this many seconds have begun. */
  pass(seconds: number): void {
    const end = Math.floor(Date.now() / REAL_CLOCK_MS) + seconds;
    while (Date.now() < end * REAL_CLOCK_MS) pause(10);
    this.follow();
  }
}

/** What is left of a user's quota in the kernel. */
const roomOf = (uid: number): { readonly maxKeys: number; readonly maxBytes: number } => {
  const line = readFileSync("/proc/key-users", "latin1")
    .split("\n")
    .find((each) => Number.parseInt(each, 10) === uid);
  const [, keys = 0, keysMax = 200, bytes = 0, bytesMax = 20_000] =
    / (\d+)\/(\d+) (\d+)\/(\d+)$/.exec(line ?? "")?.map(Number) ?? [];
  return { maxKeys: keysMax - keys, maxBytes: bytesMax - bytes };
};

/** One service, one kernel, one caller in each. */
export class Pair {
  readonly clock = new FollowingClock();
  readonly service: KeyService;
  readonly kernel = new KernelKeys();
  readonly caller: Process;
  readonly twins: Twin[] = [];
  readonly #byMine = new Map<number, number>();
  readonly #byKernels = new Map<number, number>();

  constructor(random: () => number) {
    const limits = RUNNER === 0 ? {} : roomOf(RUNNER);
    this.service = new KeyService({ clock: this.clock, random, errorPriority: "linux-6", limits });
    const groups = process.getgroups!();
    this.caller = this.service.attach({ pid: process.pid, uid: RUNNER, gid: process.getgid!(), groups });
    this.kernel.become(RUNNER, RUNNER);
  }

  /** Both become this user. */
  become(uid: number): void {
    if (RUNNER !== 0) return;
    this.kernel.become(uid, uid);
    const isRoot = uid === 0;
    this.service.setIds(this.caller, { uid, gid: uid, suid: 0, sgid: 0, sysAdmin: isRoot, setUid: isRoot });
  }

  /** Notes that two serial numbers are the same key's, or that they are not, as was thought. */
  match(mine: number, kernels: number, what: string): void {
    if (this.#byMine.get(mine) === kernels) return;
    if (this.#byMine.has(mine) || this.#byKernels.has(kernels)) {
      throw new Difference(
        `${what}: mine ${mine} (kernel's ${this.#byMine.get(mine)}), kernel's ${kernels} (mine ${this.#byKernels.get(kernels)})`,
      );
    }
    this.#byMine.set(mine, kernels);
    this.#byKernels.set(kernels, mine);
    this.twins.push({ mine, kernels });
  }

  /** My serial of a kernel's key. */
  mineOf(kernels: number): number | undefined {
    return this.#byKernels.get(kernels);
  }

  /** Whether the kernel starts no helper, because there is no program. */
  startsNoHelpers = false;
  readonly #large = new Set<number>();

  /** Whether this key of mine is a keyring. */
  isRing(mine: number): boolean {
    return this.sizeOf(mine) !== undefined;
  }

  /** Links of a keyring of mine. */
  sizeOf(mine: number): number | undefined {
    using reference = this.service.trusted.reference(mine);
    return reference?.linkCount;
  }

  /** Notes which keyrings have grown beyond the size up to which the order of links is known. */
  noteSizes(): void {
    for (const { mine } of this.twins) if ((this.sizeOf(mine) ?? 0) > 16) this.#large.add(mine);
  }

  /** Whether a keyring ever was that large. */
  wasLarge(mine: number): boolean {
    return this.#large.has(mine);
  }

  /** Fails unless both are the same. */
  same(what: string, mine: unknown, kernels: unknown): void {
    if (mine !== kernels) throw new Difference(`${what}: mine ${String(mine)}, kernel's ${String(kernels)}`);
  }

  /** Forgets keys that are gone on my side. */
  forgetGone(): void {
    for (let index = this.twins.length - 1; index >= 0; index -= 1) {
      const twin = this.twins[index]!;
      using reference = this.service.trusted.reference(twin.mine);
      if (reference !== undefined) continue;
      this.twins.splice(index, 1);
      this.#byMine.delete(twin.mine);
      this.#byKernels.delete(twin.kernels);
    }
  }

  /** What the library answers, at last. */
  async now(answer: Answer): Promise<number> {
    return typeof answer === "number" ? answer : await answer.settled;
  }
}
