/** Requests whose helpers do random steps, in the kernel and in the library, compared in all that can be seen of them. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { keyErrorName, KeyService, type Process, settle, type Upcall } from "../src/index.ts";
import { KernelKeys, whyNoKernelKeys, whyNotUser0 } from "./kernel-keys.ts";
import { linesBySerial, serials, usersIn } from "./oracle-lists.ts";
import { Difference, FollowingClock, pause } from "./oracle-pair.ts";
import { Random } from "./random.ts";
import { OUTCOMES_FILE, type Report, STEPS_FILE, type Task } from "./upcall-helper.ts";
import { authorityIn, libraryPerforms } from "./upcall-sides.ts";
import { type Cast, type HelperStep, LEFT_OUT, type Outcome, randomSteps, takeSteps } from "./upcall-steps.ts";

const PROGRAM = "/sbin/request-key";
const SESSION = -3;
const LATER_TRIES = 500;
const USER = 200_000_000 + (process.pid % 1_000_000);
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const CLOSED = "closed";

type Known = Omit<Cast, "target" | "authority">;
type Part = keyof Cast;

/** Why upcalls cannot be compared here; undefined if they can. It takes a program where the kernel looks for one. */
export const whyNoUpcalls = (): string | undefined =>
  whyNotUser0() ??
  whyNoKernelKeys() ??
  (existsSync(PROGRAM) ? `there is a ${PROGRAM} already, which is not replaced` : undefined);

/** Puts the helper where the kernel looks for it, until the process ends, however it does unless by SIGKILL. */
const lendHelper = (kernel: KernelKeys): { readonly directory: string; readonly takeBack: () => void } => {
  const directory = mkdtempSync(path.join(tmpdir(), "upcalls-"));
  const script = path.join(directory, "request-key.mjs");
  const helper = new URL("upcall-helper.js", import.meta.url).href;
  const text = `import { help } from "${helper}";\nprocess.exitCode = await help("${directory}", process.argv.slice(2));\n`;
  writeFileSync(script, `#!${process.execPath}\n${text}`);
  chmodSync(script, 0o755);
  chownSync(directory, USER, USER);
  symlinkSync(script, PROGRAM);
  let isBack = false;
  const takeBack = (): void => {
    if (isBack) return;
    isBack = true;
    kernel.become(0, 0);
    unlinkSync(PROGRAM);
    rmSync(directory, { recursive: true });
  };
  process.on("exit", takeBack);
  for (const signal of SIGNALS) {
    process.once(signal, () => {
      takeBack();
      process.kill(process.pid, signal);
    });
  }
  return { directory, takeBack };
};

/** One side's requester: what it is asked in the same words, and answers with its own numbers. */
interface Requester {
  join(): Promise<number> | number;
  add(type: string, description: string, ring: number): Promise<number> | number;
  restrict(ring: number): Promise<number> | number;
  permissions(key: number, mask: number): Promise<number> | number;
  setDefaultRing(ring: number): Promise<number> | number;
  request(description: string, callout: string | null, ring: number): Promise<number> | number;
  read(key: number, target: Buffer): Promise<number> | number;
}

const kernelRequester = (kernel: KernelKeys): Requester => ({
  join: () => kernel.join(null),
  add: (type, description, ring) =>
    kernel.addKey(type, description, type === "keyring" ? null : Buffer.from("value"), ring),
  restrict: (ring) => kernel.keyctlTexts(29, ring, null, null),
  permissions: (key, mask) => kernel.keyctl(5, key, mask),
  setDefaultRing: (ring) => kernel.keyctl(14, ring),
  request: (description, callout, ring) => kernel.requestKey("user", description, callout, ring),
  read: (key, target) => kernel.keyctlBytes(11, key, target, target.length),
});

const libraryRequester = (service: KeyService, caller: Process): Requester => ({
  join: () => settle(service.joinSession(caller, null)),
  add: (type, description, ring) =>
    settle(service.addKey(caller, type, description, type === "keyring" ? null : Buffer.from("value"), ring)),
  restrict: (ring) => settle(service.restrict(caller, ring, null, null)),
  permissions: (key, mask) => settle(service.setPermissions(caller, key, mask)),
  setDefaultRing: (ring) => settle(service.setDefaultRing(caller, ring)),
  request: (description, callout, ring) => settle(service.requestKey(caller, "user", description, callout, ring)),
  read: (key, target) => settle(service.read(caller, key, target)),
});

/** What a requester has when it asks. */
const prepare = async (requester: Requester, defaultRing: number): Promise<Known> => {
  const session = await requester.join();
  await requester.setDefaultRing(defaultRing);
  const key = await requester.add("user", "key", SESSION);
  const ring = await requester.add("keyring", "ring", SESSION);
  const closed = await requester.add("keyring", CLOSED, SESSION);
  await requester.restrict(closed);
  const unwritable = await requester.add("keyring", "unwritable", SESSION);
  await requester.permissions(unwritable, 0x3b010000);
  return { session, key, ring, closed, unwritable };
};

/** Both sides, and what was asked last. */
export class UpcallRun {
  readonly #clock = new FollowingClock();
  readonly #kernel = new KernelKeys();
  readonly #random: Random;
  readonly #service: KeyService;
  readonly #caller: Process;
  readonly #mine: Requester;
  readonly #kernels: Requester;
  readonly #loan = lendHelper(this.#kernel);
  readonly #outcomes: Map<string, number>;
  #task: Task | undefined;
  #report: Report | undefined;
  #number = 0;

  /** What steps came to is counted by what they did. */
  constructor(seed: number, outcomes: Map<string, number>) {
    this.#random = new Random(seed);
    this.#outcomes = outcomes;
    const upcall = { run: async (given: Upcall): Promise<number> => await this.#help(given) };
    const { bits: random } = this.#random;
    this.#service = new KeyService({ clock: this.#clock, random, errorPriority: "linux-6", upcall });
    this.#caller = this.#service.attach({ pid: process.pid, uid: 0, gid: 0 });
    this.#mine = libraryRequester(this.#service, this.#caller);
    this.#kernels = kernelRequester(this.#kernel);
  }

  /** Makes this many requests. */
  async requests(count: number): Promise<void> {
    for (let index = 0; index < count; index += 1) await this.#once();
  }

  /** What the last helper was to do. */
  get trail(): string {
    return JSON.stringify({ task: this.#task, mine: this.#report }, undefined, 1);
  }

  /** Takes the helper away, and everything that user has in the kernel. */
  cleanUp(): void {
    this.#loan.takeBack();
    this.#become(USER);
    this.#kernel.join(null);
    const rings = [-4, -5].map((id) => this.#kernel.keyctl(0, id));
    for (const ring of rings) this.#kernel.keyctl(8, ring, SESSION);
    for (const ring of rings) this.#kernel.keyctl(21, ring);
    this.#service.close();
  }

  #become(uid: number): void {
    this.#kernel.become(uid, uid);
    this.#service.setIds(this.#caller, { uid, gid: uid, suid: 0, sgid: 0, sysAdmin: uid === 0, setUid: uid === 0 });
  }

  async #help({ helper, target }: Upcall): Promise<number> {
    const { steps, cast } = this.#task!;
    const authority = authorityIn((room) => Number(this.#service.read(helper, SESSION, room)));
    const outcomes = await takeSteps(steps, { ...cast, target, authority }, libraryPerforms(this.#service, helper));
    this.#report = { target, outcomes };
    return 0;
  }

  async #once(): Promise<void> {
    const random = this.#random;
    this.#become(random.pick([0, USER, USER]));
    const defaultRing = random.pick([0, 0, 3, 1, 2]);
    const description = `upcall:${process.pid}:${(this.#number += 1)}`;
    const steps = randomSteps(random);
    const place = random.pick([0, 0, 0, SESSION, "ring", CLOSED, "unwritable"] as const);
    const callout = random.pick(["", "ci", "a long callout\n with two lines"]);
    this.#clock.follow();
    const known = [await prepare(this.#mine, defaultRing), await prepare(this.#kernels, defaultRing)] as const;
    const asked = known.map((each) => (typeof place === "number" ? place : each[place]));
    this.#task = { description, cast: known[0], steps };
    this.#report = undefined;
    const mine = await this.#mine.request(description, callout, asked[0]!);
    this.#clock.follow();
    const file = path.join(this.#loan.directory, STEPS_FILE);
    // It may be another user's.
    rmSync(file, { force: true });
    writeFileSync(file, JSON.stringify({ ...this.#task, cast: known[1] }));
    const kernels = await this.#kernels.request(description, callout, asked[1]!);
    const report = this.#kernelsReport();
    const ownReport = this.#ownReport();
    this.#clock.follow();
    this.#compareSteps(steps, ownReport?.outcomes, report?.outcomes);
    const casts = [
      { ...known[0], target: ownReport?.target ?? 0, authority: 0 },
      { ...known[1], target: report?.target ?? 0, authority: 0 },
    ] as const;
    same("the request", partOf(casts[0], mine), partOf(casts[1], kernels));
    await this.#compareLater(casts);
    const again = [await this.#mine.request(description, null, 0), await this.#kernels.request(description, null, 0)];
    same("the next request", partOf(casts[0], again[0]!), partOf(casts[1], again[1]!));
  }

  /** Written by the library's helper while the request was under way. */
  #ownReport(): Report | undefined {
    return this.#report;
  }

  /** Written by the kernel's. */
  #kernelsReport(): Report | undefined {
    const file = path.join(this.#loan.directory, OUTCOMES_FILE);
    if (!existsSync(file)) return undefined;
    const report = JSON.parse(readFileSync(file, "utf8")) as Report;
    unlinkSync(file);
    return report;
  }

  #compareSteps(
    steps: readonly HelperStep[],
    mine: readonly Outcome[] | undefined,
    kernels: readonly Outcome[] | undefined,
  ): void {
    for (const [at, step] of steps.entries()) {
      same(`step ${at}, ${JSON.stringify(step)}`, mine?.[at], kernels?.[at]);
      const outcome = mine?.[at];
      const word = typeof outcome === "number" && outcome < 0 ? (keyErrorName(outcome) ?? outcome) : "ok";
      const name = `${step.does} ${outcome === undefined ? "not begun" : outcome === LEFT_OUT ? LEFT_OUT : word}`;
      this.#outcomes.set(name, (this.#outcomes.get(name) ?? 0) + 1);
    }
  }

  /** The kernel frees keys a little later, and so gets time. */
  async #compareLater(casts: readonly [Cast, Cast]): Promise<void> {
    for (let tries = 0; ; tries += 1) {
      try {
        await this.#compareLists(casts);
        break;
      } catch (error) {
        if (tries === LATER_TRIES) throw error;
        pause(2);
      }
    }
    const findings = this.#service.audit();
    if (findings.length > 0) throw new Difference(`the auditor found: ${findings.join("; ")}`);
  }

  async #compareLists([mine, kernels]: readonly [Cast, Cast]): Promise<void> {
    const lists = [
      linesBySerial(this.#service.procKeys(this.#caller)),
      linesBySerial(readFileSync("/proc/keys", "latin1")),
    ];
    for (const part of Object.keys(mine) as Part[]) {
      same(`line of ${part}`, lists[0]!.get(mine[part])?.text, lists[1]!.get(kernels[part])?.text);
    }
    for (const part of ["session", "ring", CLOSED, "unwritable", "target"] as const) {
      const isRing = part !== "target";
      same(part, await contents(this.#mine, mine, part, isRing), await contents(this.#kernels, kernels, part, isRing));
    }
    const users = [usersIn(this.#service.procKeyUsers()), usersIn(readFileSync("/proc/key-users", "latin1"))];
    same(`user ${USER}`, users[0]!.get(USER), users[1]!.get(USER));
  }
}

/** What is in a key: of a keyring, the parts that it leads to. */
const contents = async (requester: Requester, cast: Cast, part: Part, isRing: boolean): Promise<string> => {
  const room = Buffer.alloc(70_000);
  const size = await requester.read(cast[part], room);
  if (size < 0) return String(size);
  if (!isRing) return room.toString("latin1", 0, size);
  return serials(room, size)
    .map((serial) => partOf(cast, serial))
    .join();
};

const partOf = (cast: Cast, serial: number): string =>
  serial <= 0 ? String(serial) : (Object.entries(cast).find(([, each]) => each === serial)?.[0] ?? "another key");

const same = (what: string, mine: unknown, kernels: unknown): void => {
  if (mine !== kernels) throw new Difference(`${what}: mine ${String(mine)}, kernel's ${String(kernels)}`);
};
