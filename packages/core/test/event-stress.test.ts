/**
 * vCPUs on real threads: no wake-up is lost and no channel is torn, whatever the timing. A lost wake-up is proved, not
 * guessed from the time: every thread of the test is asleep, and no wake word has moved since it fell asleep.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { audit } from "../src/auditor.ts";
import * as kit from "./events-kit.ts";
import type { Guest } from "./machine.ts";
import { Machine } from "./machine.ts";
import type { StressOrder } from "./stress-worker.ts";
import { ASLEEP, EXPECTED, SLEEPS, SLEPT_ON } from "./stress-worker.ts";

const SEED = Math.floor(Math.random() * 2 ** 31);
const LOOK_EVERY_MS = 100;
type Part = Pick<StressOrder, "slot" | "vcpu" | "role" | "rounds" | "ports">;

/** Whether every thread sleeps on a wake word that nobody has moved, and did so all the time it took to look. */
const isDeadlocked = (machine: Machine, sleeps: readonly Int32Array[]): boolean => {
  const before = sleeps.map((sleep) => Atomics.load(sleep, SLEEPS));
  const { wake } = machine.hypervisor.vcpus;
  const allSleep = sleeps.every(
    (sleep) => Atomics.load(sleep, ASLEEP) === 1 && Atomics.load(wake, sleep[SLEPT_ON]!) === sleep[EXPECTED]!,
  );
  return (
    allSleep &&
    sleeps.every((sleep, at) => Atomics.load(sleep, SLEEPS) === before[at] && Atomics.load(sleep, ASLEEP) === 1)
  );
};

/** Runs one thread for each part until all are done. */
const run = async (machine: Machine, parts: readonly Part[]): Promise<void> => {
  const common = new SharedArrayBuffer(64);
  Atomics.store(new Int32Array(common), 0, parts.length);
  const sleeps: Int32Array[] = [];
  const workers = parts.map((part, at) => {
    const sleep = new SharedArrayBuffer(16);
    sleeps.push(new Int32Array(sleep));
    const order: StressOrder = { ...part, storage: machine.parts.storage, tag: at + 2, seed: SEED + at, sleep, common };
    return new Worker(new URL("stress-worker.js", import.meta.url), { workerData: order });
  });
  const done = Promise.all(workers.map((worker) => once(worker, "message")));
  const watch = setInterval(() => {
    if (!isDeadlocked(machine, sleeps)) return;
    for (const worker of workers) worker.emit("error", new Error("a wake-up was lost: every thread sleeps"));
  }, LOOK_EVERY_MS);
  try {
    await done;
  } finally {
    clearInterval(watch);
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  assert.deepEqual(audit(machine.hypervisor), []);
};

/** Two guests whose vCPUs may run at once on threads of their own. */
const two = (): { machine: Machine; first: Guest; second: Guest } => {
  const machine = new Machine({}, true);
  return { machine, first: machine.guest({ vcpus: 2 }), second: machine.guest() };
};

describe(`vCPUs on real threads (seed ${SEED})`, () => {
  for (const [way, role] of [
    ["polling", "poll"],
    ["blocking", "block"],
  ] as const) {
    it(`ping-pong between two domains, ${way} after random delays, loses no wake-up`, async () => {
      const { machine, first, second } = two();
      const { a, b } = kit.connected(machine, first, second);
      await run(machine, [
        { slot: first.slot, vcpu: 0, role: `${role}First`, rounds: 100_000, ports: [a] },
        { slot: second.slot, vcpu: 0, role: `${role}Second`, rounds: 100_000, ports: [b] },
      ]);
    });
  }

  it("ping-pong between two domains, blocking and polling at random, loses no wake-up", async () => {
    const { machine, first, second } = two();
    const { a, b } = kit.connected(machine, first, second);
    await run(machine, [
      { slot: first.slot, vcpu: 0, role: "first", rounds: 10_000, ports: [a] },
      { slot: second.slot, vcpu: 0, role: "second", rounds: 10_000, ports: [b] },
    ]);
  });

  it("two vCPUs of a domain that take turns by wait and notify lose no wake-up", async () => {
    const { machine, first } = two();
    await run(machine, [
      { slot: first.slot, vcpu: 0, role: "even", rounds: 10_000, ports: [kit.SPARE] },
      { slot: first.slot, vcpu: 1, role: "odd", rounds: 10_000, ports: [kit.SPARE] },
    ]);
    assert.equal(first.cpu.memory.readU32(kit.SPARE), 20_000);
  });

  it("E07, E09: two domains that open, connect, close and reset at random, while one floods, leave channels that agree (XSA-340, XSA-343)", async () => {
    const { machine, first, second } = two();
    const third = machine.guest();
    const ports = [first.domid, second.domid];
    await run(machine, [
      { slot: first.slot, vcpu: 0, role: "churn", rounds: 20_000, ports },
      { slot: second.slot, vcpu: 0, role: "churn", rounds: 20_000, ports },
      { slot: third.slot, vcpu: 0, role: "flood", rounds: 20_000, ports },
    ]);
  });
});
