/**
 * No wake-up is lost, whatever the order of steps. vCPUs on real threads make their atomic operations one at a time in
 * an order that the test chooses: every order in which the two sides change over at most twice, wherever that is, and
 * random ones. When all that are not asleep are done and somebody sleeps who has no time limit, a wake-up was lost.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { Worker } from "node:worker_threads";
import { randomFrom } from "./advisories-kit.ts";
import * as kit from "./events-kit.ts";
import { Machine, poke } from "./machine.ts";
import * as step from "./step-worker.ts";
import type { ActionName, StepOrder } from "./step-worker.ts";

const SEED = Math.floor(Math.random() * 2 ** 31);
const RANDOM_ORDERS = 400;
const TURNS_MAX = 1000;
const TO_THE_END = 1_000_000;

/** Seats: vCPU 0 of a domain, both vCPUs of another one, the control domain. */
const FIRST = 0;
const SECOND = 1;
const THIRD = 2;
const CONTROL = 3;
const ALL = [FIRST, SECOND, THIRD, CONTROL];
const SEATS = ALL.length;

/** What one seat does. */
interface Move {
  readonly seat: number;
  readonly action: ActionName;
  readonly port?: number;
}
/** Chooses one of the seats that can go on, and for how many steps. It makes fewer when it ends or sleeps. */
type Choice = (ready: readonly number[]) => readonly [seat: number, steps: number];

/** Two connected domains, whose vCPUs and the control domain are threads that take turns. */
class Stage {
  readonly machine = new Machine();
  readonly first = kit.runningGuest(this.machine);
  readonly second = kit.runningGuest(this.machine, { vcpus: 2 });
  readonly third = kit.otherVcpu(this.second, 1);
  readonly ports = kit.connected(this.machine, this.first, this.second);
  readonly more = kit.connected(this.machine, this.first, this.second);
  readonly fromControl: number;
  readonly #board = new Int32Array(new SharedArrayBuffer(step.BOARD_BYTES));
  readonly #workers: readonly Worker[];
  #failure: unknown;

  constructor() {
    const { machine, first, second, third } = this;
    this.fromControl = kit.connected(machine, machine.dom0, second).a;
    const places = [first, second, third, machine.dom0];
    this.#workers = places.map(({ slot, cpu: { vcpu } }, seat) => {
      const { storage } = machine.parts;
      const order: StepOrder = { storage, board: this.#board.buffer, seat, seatCount: SEATS, slot, vcpu };
      const worker = new Worker(new URL("step-worker.js", import.meta.url), { workerData: order });
      worker.on("error", (error) => (this.#failure = error));
      return worker;
    });
  }

  /** The ports that a vCPU polls on, and until when (0: for ever). */
  pollOn(seat: number, ports: readonly number[], timeoutMs = 0): void {
    const { cpu } = seat === FIRST ? this.first : seat === SECOND ? this.second : this.third;
    const guest = seat === FIRST ? this.first : this.second;
    const bytes = new Uint8Array(abi.sched_poll.sizeBytes);
    const view = new DataView(bytes.buffer);
    abi.sched_poll.ports.set(view, 0, step.listAt(cpu.vcpu));
    abi.sched_poll.nr_ports.set(view, 0, ports.length);
    abi.sched_poll.timeout.set(view, 0, timeoutMs * 1e6);
    poke(guest, step.pollAt(cpu.vcpu), bytes);
    poke(guest, step.listAt(cpu.vcpu), new Uint8Array(Uint32Array.from(ports).buffer));
  }

  /** The port that a vCPU sends on. */
  sendOn(seat: number, port: number): void {
    const guest = seat === FIRST ? this.first : this.second;
    poke(guest, step.sendAt(seat === THIRD ? 1 : 0), new Uint8Array(Uint32Array.of(port).buffer));
  }

  /** Nothing is pending and nobody was told anything. */
  reset(): void {
    kit.settle(this.first);
    kit.settle(this.second);
    this.#board[step.CLOCK] = 0;
  }

  /** Lets all moves be made in the order that `choose` says; every result must be 0. Returns each seat's steps. */
  play(moves: readonly Move[], choose: Choice): readonly number[] {
    const steps = Array.from({ length: SEATS }, () => 0);
    for (const { seat, action, port = 0 } of moves) {
      const at = step.seatAt(seat);
      this.#board[at + step.ACTION] = step.ACTIONS.indexOf(action);
      this.#board[at + step.PORT] = port;
      this.#board[at + step.STATE] = step.READY;
    }
    const order: string[] = [];
    for (;;) {
      const ready = this.#inState(step.READY);
      const [seat, count] = ready.length > 0 ? choose(ready) : [this.#timeOut(), TO_THE_END];
      if (seat < 0) break;
      const made = this.#give(seat, count);
      steps[seat]! += made;
      order.push(`${seat}:${made}`);
      assert(order.length < TURNS_MAX, `it does not come to an end: ${order.join(" ")}`);
    }
    assert.deepEqual(this.#inState(step.ASLEEP), [], `a wake-up was lost in the order ${order.join(" ")}`);
    for (const { seat } of moves) assert.equal(this.#board[step.seatAt(seat) + step.RESULT], 0, `seat ${seat}`);
    return steps;
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** Errors of the threads arrive between two tests. */
  assertNoFailure(): void {
    assert.equal(this.#failure, undefined);
  }

  #inState(state: number): number[] {
    return ALL.filter((seat) => this.#board[step.seatAt(seat) + step.STATE] === state);
  }

  /** Time passes when nobody can do anything else. The seat whose sleep ends, or -1. */
  #timeOut(): number {
    const seat = this.#inState(step.ASLEEP).find((each) => this.#board[step.seatAt(each) + step.IS_TIMED] === 1) ?? -1;
    if (seat < 0) return -1;
    this.#board[step.CLOCK] = this.#board[step.CLOCK]! + 1000;
    this.#board[step.seatAt(seat) + step.STATE] = step.READY;
    return seat;
  }

  /** Lets a seat make up to `count` steps; returns how many it made. */
  #give(seat: number, count: number): number {
    this.#board[step.STEPS] = count;
    Atomics.store(this.#board, step.TURN, seat + 1);
    Atomics.notify(this.#board, step.TURN);
    while (Atomics.load(this.#board, step.TURN) !== 0) Atomics.wait(this.#board, step.TURN, seat + 1);
    return count - this.#board[step.STEPS];
  }
}

/** `leader` makes `before` steps, the others make `between`, the leader goes on as far as it can, then the others. */
const twoChanges = (leader: number, before: number, between: number): Choice => {
  const plan = [
    { isLeader: true, steps: before },
    { isLeader: false, steps: between },
    { isLeader: true, steps: TO_THE_END },
  ].filter(({ steps }) => steps > 0);
  return (ready) => {
    const { isLeader, steps } = plan.shift() ?? { isLeader: false, steps: TO_THE_END };
    const isThere = ready.includes(leader);
    return [isLeader && isThere ? leader : (ready.find((seat) => seat !== leader) ?? leader), steps];
  };
};

/** Changes over at random, after a random while. */
const atRandom =
  (random: (bound: number) => number): Choice =>
  (ready) => [ready[random(ready.length)]!, 1 + random(random(2) === 0 ? 3 : 20)];

interface Scene {
  readonly moves: readonly Move[];
  readonly prepare?: () => void;
  readonly verify: () => void;
}

describe(`no wake-up is lost in any order of steps (seed ${SEED})`, () => {
  const stage = new Stage();
  after(() => stage.close());
  const { first, second, ports, more } = stage;
  const { hypervisor } = stage.machine;

  const once = (scene: Scene, choose: Choice): readonly number[] => {
    stage.reset();
    scene.prepare?.();
    const steps = stage.play(scene.moves, choose);
    scene.verify();
    const { events, vcpus } = hypervisor;
    assert.deepEqual([events.pollMask[first.slot], events.pollMask[second.slot]], [0, 0]);
    for (const { cpu } of [first, second, stage.third]) assert.equal(vcpus.gate[cpu.index], 0);
    return steps;
  };

  /** Plays every order with two changes for each leader, and random ones. Returns how many orders that were. */
  const every = (scene: Scene): number => {
    const total = (steps: readonly number[]): number => steps.reduce((sum, count) => sum + count, 0);
    let orders = 0;
    for (const { seat: leader } of scene.moves) {
      for (let before = 0, isMore = true; isMore; before += 1) {
        for (let between = 1; ; between += 1) {
          const steps = once(scene, twoChanges(leader, before, between));
          orders += 1;
          isMore = steps[leader]! > before;
          if (total(steps) - steps[leader]! <= between) break;
        }
      }
    }
    const random = randomFrom(SEED);
    for (let order = 0; order < RANDOM_ORDERS; order += 1) once(scene, atRandom(random));
    stage.machine.check();
    stage.assertNoFailure();
    return orders + RANDOM_ORDERS;
  };
  const isPending = (): void => assert.ok(kit.pending(second, ports.b));
  const polling =
    (seat: number, list: readonly number[], timeoutMs = 0) =>
    (): void => {
      for (const port of list) kit.setMask(second, port, true);
      stage.pollOn(seat, list, timeoutMs);
      stage.sendOn(FIRST, ports.a);
    };
  const sending: Move = { seat: FIRST, action: "send" };

  it("between poll on one port and a send", () => {
    const moves: Move[] = [{ seat: SECOND, action: "poll" }, sending];
    assert.ok(every({ moves, prepare: polling(SECOND, [ports.b]), verify: isPending }) > 500);
  });

  it("between poll on several ports and a send", () => {
    const moves: Move[] = [{ seat: SECOND, action: "poll" }, sending];
    every({ moves, prepare: polling(SECOND, [more.b, ports.b]), verify: isPending });
  });

  it("between poll with a time limit and a send", () => {
    const moves: Move[] = [{ seat: SECOND, action: "poll" }, sending];
    every({ moves, prepare: polling(SECOND, [ports.b], 5), verify: isPending });
  });

  it("between two vCPUs of a domain that poll on one port and a send", () => {
    const prepare = (): void => {
      polling(SECOND, [ports.b])();
      stage.pollOn(THIRD, [ports.b]);
    };
    every({
      moves: [{ seat: SECOND, action: "poll" }, { seat: THIRD, action: "poll" }, sending],
      prepare,
      verify: isPending,
    });
  });

  it("between block and a send", () => {
    const prepare = (): void => {
      kit.setMask(second, ports.b, false);
      stage.sendOn(FIRST, ports.a);
    };
    const verify = (): void => {
      isPending();
      assert.ok(kit.upcallPending(second));
    };
    every({ moves: [{ seat: SECOND, action: "block" }, sending], prepare, verify });
  });

  it("between block and a pause during which an event is sent", () => {
    const port = (second.slot << 16) | stage.fromControl;
    const moves: Move[] = [
      { seat: SECOND, action: "block" },
      { seat: CONTROL, action: "pauseAndSend", port },
    ];
    every({ moves, verify: () => assert.ok(kit.upcallPending(second)) });
  });

  it("between two domains that wait for each other in turn", () => {
    const prepare = (): void => {
      kit.setMask(first, ports.a, true);
      kit.setMask(second, ports.b, true);
      stage.pollOn(FIRST, [ports.a]);
      stage.pollOn(SECOND, [ports.b]);
      stage.sendOn(FIRST, ports.a);
      stage.sendOn(SECOND, ports.b);
    };
    const moves: Move[] = [
      { seat: FIRST, action: "ping", port: ports.a },
      { seat: SECOND, action: "pong", port: ports.b },
    ];
    every({ moves, prepare, verify: () => assert.ok(!kit.pending(first, ports.a) && !kit.pending(second, ports.b)) });
  });
});
