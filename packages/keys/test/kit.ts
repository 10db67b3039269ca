/** What the tests of this package share. */
import assert from "node:assert/strict";
import {
  type Answer,
  defaultLimits,
  type Key,
  KEY_SPEC,
  keyErrorName,
  KeyService,
  type KeyServiceOptions,
  ManualClock,
  MemoryPayloadStore,
  type Process,
  settle,
  type Upcall,
} from "../src/index.ts";
import { KeyState } from "../src/state.ts";
import { userType } from "../src/type-user.ts";
import { Random } from "./random.ts";

export const SESSION = KEY_SPEC.session;
/** Everything to possessor and owner. */
export const OPEN = 0x3f3f_0000;

/** A service that a seed determines, whose clock stands, and whose payloads can be counted. */
export class Bench {
  readonly clock = new ManualClock();
  readonly payloads = new MemoryPayloadStore();
  readonly service: KeyService;
  /** Helpers that were started. */
  readonly upcalls: Upcall[] = [];
  /** What a helper does; it may not do anything. */
  helper: (upcall: Upcall) => Promise<number> | number = () => 0;
  #pid = 100;

  constructor(options: KeyServiceOptions = {}) {
    this.service = new KeyService({
      clock: this.clock,
      payloads: this.payloads,
      random: new Random(1).bits,
      upcall: {
        run: async (upcall) => {
          this.upcalls.push(upcall);
          return await this.helper(upcall);
        },
      },
      ...options,
    });
  }

  /** A process with a session keyring of its own. */
  process(uid = 1000, more: { readonly groups?: readonly number[] } = {}): Process {
    this.#pid += 1;
    const process = this.service.attach({ pid: this.#pid, uid, gid: uid, ...more });
    ok(this.service.joinSession(process, null));
    return process;
  }

  /** Ends the test: everything must be sound, and nothing may be left when the service is closed. */
  finish(): void {
    const findings = this.service.audit();
    const { waits } = this.service.statistics();
    this.service.close();
    const left = this.service.statistics();
    const leftFindings = this.service.audit();
    assert.deepEqual(findings, []);
    assert.equal(waits, 0, "operations wait");
    assert.deepEqual(leftFindings, []);
    assert.deepEqual(left, { keys: 0, users: 1, processes: 0, payloads: 0, waits: 0 });
  }
}

/** Runs a test on a bench of its own, and finishes that. */
export const onBench =
  (test: (bench: Bench) => Promise<void> | void, options: KeyServiceOptions = {}) =>
  async (): Promise<void> => {
    const bench = new Bench(options);
    try {
      await test(bench);
    } catch (error) {
      bench.service.close();
      throw error;
    }
    bench.finish();
  };

/** An answer that was there at once and is no error. */
export const ok = (answer: Answer): number => {
  assert.ok(typeof answer === "number", "the operation waits");
  assert.ok(answer >= 0, `refused with ${keyErrorName(answer) ?? answer}`);
  return answer;
};

/** The name of the error that an operation answered with at once, or the number. */
export const errorOf = (answer: Answer): string | number => {
  assert.ok(typeof answer === "number", "the operation waits");
  return answer < 0 ? (keyErrorName(answer) ?? answer) : answer;
};

/** The same for one that may wait. */
export const errorLater = async (answer: Answer): Promise<string | number> => errorOf(await settle(answer));

/** A text as bytes. */
export const bytes = (text: string): Uint8Array => Buffer.from(text, "utf8");

/** The payload of a key, as a text. */
export const readText = (service: KeyService, process: Process, id: number): string => {
  const target = Buffer.alloc(70_000);
  return target.toString("utf8", 0, ok(service.read(process, id, target)));
};

/** The description of a key, as keyctl_describe(3) words it. */
export const describeText = (service: KeyService, process: Process, id: number): string => {
  const target = Buffer.alloc(5000);
  return target.toString("utf8", 0, ok(service.describe(process, id, target)) - 1);
};

/** Serials in a keyring, in order. */
export const linksIn = (service: KeyService, process: Process, ring: number): number[] => {
  const target = Buffer.alloc(ok(service.read(process, ring)));
  ok(service.read(process, ring, target));
  return Array.from({ length: target.length / 4 }, (_, index) => target.readInt32LE(4 * index));
};

/** The line of /proc/keys about a key, without its serial; undefined if the process cannot view it. */
export const procLine = (service: KeyService, process: Process, id: number): string | undefined =>
  service
    .procKeys(process)
    .split("\n")
    .find((line) => line.startsWith(id.toString(16).padStart(8, "0")))
    ?.slice(9);

/** A helper that builds its key at once. */
export const assumeAndBuild = async (
  service: KeyService,
  { helper, target }: Upcall,
  payload: string,
): Promise<number> => {
  ok(await settle(service.assumeAuthority(helper, target)));
  return await settle(service.instantiate(helper, target, bytes(payload), 0));
};

/** A state of nothing but one key, for what no operation can bring about. */
export const emptyState = (): { readonly state: KeyState; readonly key: Key } => {
  const state = new KeyState({
    clock: new ManualClock(),
    random: new Random(1).bits,
    payloads: new MemoryPayloadStore(),
    limits: defaultLimits,
    errorPriority: "documented",
    detectsSelfWait: true,
  });
  const index = { type: userType, description: "k", domain: "" };
  const key = state.allocate({ ...index, uid: 0, gid: 0, permissions: OPEN, quota: "none" });
  assert.ok(typeof key !== "number");
  return { state, key };
};
