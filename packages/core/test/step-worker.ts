/**
 * A thread whose atomic operations happen one at a time, each when the test says so. Between two of them it waits for
 * its turn; a sleep of the hypervisor is a turn that nobody can give until somebody wakes it, exactly as with a futex:
 * it ends by a wake, not by a change of the word.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { parentPort, workerData } from "node:worker_threads";
import type { Cpu } from "../src/cpu.ts";
import { pauseDomain, unpauseDomain } from "../src/domain-run.ts";
import { clearPending, isPending, sendPort } from "../src/event-delivery.ts";
import { createCpu, hypercall } from "../src/hypercall.ts";
import type { HypervisorStorage } from "../src/hypervisor.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import type { Platform } from "../src/platform.ts";
import { watchAtomics } from "./advisories-kit.ts";

/** Words of the board: whose turn it is (seat + 1; 0: the test's), how many steps it may make, the time in ms. */
export const TURN = 0;
export const STEPS = 1;
export const CLOCK = 2;
/** Words of each seat, from `seatAt`. */
export const STATE = 0;
export const SLEPT_ON = 1;
export const IS_TIMED = 2;
export const ACTION = 3;
export const PORT = 4;
export const RESULT = 5;
export const seatAt = (seat: number): number => 8 + seat * 8;
export const BOARD_BYTES = 256;

/** `STATE` of a seat: it has nothing to do, it can go on, it sleeps. */
export const IDLE = 0;
export const READY = 1;
export const ASLEEP = 2;

/** What a seat is told at the start. */
export interface StepOrder {
  readonly storage: HypervisorStorage;
  readonly board: SharedArrayBuffer;
  readonly seat: number;
  readonly seatCount: number;
  readonly slot: number;
  readonly vcpu: number;
}

/** Where the arguments of vCPU `vcpu` stand in its domain's memory: a port, a sched_poll, its list. */
export const sendAt = (vcpu: number): number => (1 + vcpu) * 0x1000;
export const pollAt = (vcpu: number): number => sendAt(vcpu) + 64;
export const listAt = (vcpu: number): number => sendAt(vcpu) + 128;

const NS_PER_MS = 1e6;
// `watchAtomics` replaces these while an action runs: whose turn it is must not depend on turns.
const { load, store, wait, notify } = Atomics;

class Seat {
  readonly #board: Int32Array;
  readonly #order: StepOrder;
  readonly #at: number;

  constructor(order: StepOrder) {
    this.#order = order;
    this.#board = new Int32Array(order.board);
    this.#at = seatAt(order.seat);
  }

  awaitTurn(): void {
    const mine = this.#order.seat + 1;
    for (let turn = load(this.#board, TURN); turn !== mine; turn = load(this.#board, TURN))
      wait(this.#board, TURN, turn);
  }

  endTurn(): void {
    store(this.#board, TURN, 0);
    notify(this.#board, TURN);
  }

  /** Before each step: lets others go first, as long as the test likes, when this turn's steps are used up. */
  step(): void {
    const left = this.#board[STEPS]! - 1;
    this.#board[STEPS] = left;
    if (left > 0) return;
    this.endTurn();
    this.awaitTurn();
  }

  get action(): number {
    return this.#board[this.#at + ACTION]!;
  }

  get port(): number {
    return this.#board[this.#at + PORT]!;
  }

  finish(result: number): void {
    this.#board[this.#at + RESULT] = result;
    this.#board[this.#at + STATE] = IDLE;
    this.endTurn();
  }

  readonly platform: Platform = {
    mmu: undefined as never,
    now: () => this.#board[CLOCK]! * NS_PER_MS,
    wallClock: () => 0n,
    wait: (words, index, expected, timeoutNs) => {
      this.step();
      if (load(words, index) !== expected) return;
      this.#board[this.#at + SLEPT_ON] = words.byteOffset + index * 4;
      this.#board[this.#at + IS_TIMED] = Number(timeoutNs !== Infinity);
      this.#board[this.#at + STATE] = ASLEEP;
      this.endTurn();
      this.awaitTurn();
    },
    wake: (words, index) => {
      this.step();
      let woken = 0;
      for (let seat = 0; seat < this.#order.seatCount; seat += 1) {
        const at = seatAt(seat);
        const isIt = this.#board[at + STATE] === ASLEEP && this.#board[at + SLEPT_ON] === words.byteOffset + index * 4;
        if (isIt) this.#board[at + STATE] = READY;
        woken += Number(isIt);
      }
      return woken;
    },
    ringDoorbell: () => undefined,
    parkForever: () => {
      throw new Error("parked for ever");
    },
  };
}

const schedOp = (cpu: Cpu, command: number): number =>
  hypercall(cpu, abi.__HYPERVISOR_sched_op, command, command === abi.SCHEDOP_poll ? pollAt(cpu.vcpu) : 0, 0, 0, 0);
const send = (cpu: Cpu): number =>
  hypercall(cpu, abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_send, sendAt(cpu.vcpu), 0, 0, 0);

/** Polls until the port is pending, then takes it, as a guest does. */
const takeEvent = (cpu: Cpu, port: number): number => {
  while (!isPending(cpu.hypervisor, cpu.slot, port)) {
    const result = schedOp(cpu, abi.SCHEDOP_poll);
    if (result !== 0) return result;
  }
  clearPending(cpu.hypervisor, cpu.slot, port);
  return 0;
};

/** What a seat can be told to do. The number is the port that it is about. */
const table = {
  poll: (cpu: Cpu) => schedOp(cpu, abi.SCHEDOP_poll),
  block: (cpu: Cpu) => schedOp(cpu, abi.SCHEDOP_block),
  send,
  ping: (cpu: Cpu, port: number) => send(cpu) || takeEvent(cpu, port),
  pong: (cpu: Cpu, port: number) => takeEvent(cpu, port) || send(cpu),
  /** By the control domain: holds the domain that owns the other end while an event is sent to it. */
  pauseAndSend: ({ hypervisor, slot }: Cpu, packed: number) => {
    const [paused, port] = [packed >>> 16, packed & 0xffff];
    return pauseDomain(hypervisor, paused) || sendPort(hypervisor, slot, port) || unpauseDomain(hypervisor, paused);
  },
} as const;
export type ActionName = keyof typeof table;
export const ACTIONS = Object.keys(table) as ActionName[];

const serve = (order: StepOrder): never => {
  const seat = new Seat(order);
  const hypervisor = new Hypervisor(order.storage, { platform: seat.platform, tag: 2 + order.seat });
  const cpu = createCpu(hypervisor, order.slot, order.vcpu, (_, thrown) => {
    throw thrown;
  });
  for (;;) {
    seat.awaitTurn();
    const act = table[ACTIONS[seat.action]!];
    let result = 0;
    watchAtomics(
      () => (result = act(cpu, seat.port)),
      () => seat.step(),
    );
    assert.equal(hypervisor.locks.heldCount, 0);
    seat.finish(result);
  }
};

if (parentPort !== null) serve(workerData as StepOrder);
