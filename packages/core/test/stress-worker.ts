/**
 * A vCPU on a thread of its own, for stress tests. It attaches to the hypervisor's buffers as a real vCPU thread does
 * and plays one of the roles below with real hypercalls and real sleeping.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { parentPort, workerData } from "node:worker_threads";
import { guestNotify, guestWait32 } from "../src/futex.ts";
import { createCpu, enterHypercall, hypercall, leaveHypercall } from "../src/hypercall.ts";
import type { HypervisorStorage } from "../src/hypervisor.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import type { Platform } from "../src/platform.ts";
import { beginVcpu } from "../src/vcpu-life.ts";
import { randomFrom } from "./advisories-kit.ts";
import * as kit from "./events-kit.ts";
import type { Guest } from "./machine.ts";
import { pokeWords } from "./machine.ts";

/** What a stress thread is told. */
export interface StressOrder {
  readonly storage: HypervisorStorage;
  readonly slot: number;
  readonly vcpu: number;
  readonly tag: number;
  readonly role: keyof typeof roles;
  readonly rounds: number;
  readonly seed: number;
  /** Ports or addresses that the role works on. */
  readonly ports: readonly number[];
  /** Four words of this thread: asleep, index of the word slept on, expected value, sleeps so far. */
  readonly sleep: SharedArrayBuffer;
  /** Common to all threads of a test: threads that are ready, and whatever the roles count. */
  readonly common: SharedArrayBuffer;
}

/** Words of `StressOrder.sleep`. */
export const ASLEEP = 0;
export const SLEPT_ON = 1;
export const EXPECTED = 2;
export const SLEEPS = 3;

const NS_PER_MS = 1e6;

/** The columns of wake words, as this thread sees them. */
const wakeColumns = new WeakSet<Int32Array>();
const isWakeColumn = (words: Int32Array): boolean => wakeColumns.has(words);

/** The platform of a real thread, which tells what it sleeps on. */
const realPlatform = (sleep: Int32Array): Platform => ({
  mmu: undefined as never,
  now: () => performance.now() * NS_PER_MS,
  wallClock: () => 0n,
  wait: (words, index, expected, timeoutNs) => {
    // An endless wait that is not for a lock, which somebody awake holds: one for an event or a notify.
    const isEndless = timeoutNs === Infinity && isWakeColumn(words);
    if (isEndless) {
      sleep[SLEPT_ON] = index;
      sleep[EXPECTED] = expected;
      Atomics.add(sleep, SLEEPS, 1);
      Atomics.store(sleep, ASLEEP, 1);
    }
    Atomics.wait(words, index, expected, timeoutNs / NS_PER_MS);
    if (isEndless) Atomics.store(sleep, ASLEEP, 0);
  },
  wake: (words, index) => Atomics.notify(words, index),
  ringDoorbell: () => undefined,
  parkForever: () => {
    throw new Error("parked for ever");
  },
});

/** Ways to wait: block, poll on one port, poll on several. */
const WAYS = 3;
const BLOCK = 0;
const POLL = 1;

/** Waits for an event on `port` by one of the ways there are, and takes it. */
const take = (guest: Guest, port: number, way: number): void => {
  const { hypervisor } = guest.cpu;
  const page = kit.sharedInfo(hypervisor, guest.slot);
  const words = new Int32Array(page.buffer, page.byteOffset, 1024);
  const pendingAt = abi.shared_info.evtchn_pending.offset / 4 + (port >>> 5);
  const bit = 1 << (port & 31);
  for (;;) {
    const info = kit.vcpuInfo(hypervisor, guest.slot, guest.cpu.vcpu);
    const upcall = new Int32Array(info.buffer, info.byteOffset, 2);
    Atomics.and(upcall, 0, ~0xff);
    Atomics.store(upcall, 1, 0);
    if ((Atomics.and(words, pendingAt, ~bit) & bit) !== 0) return;
    if (way === BLOCK) assert.equal(kit.sched(guest, abi.SCHEDOP_block), 0);
    else assert.equal(kit.poll(guest, way === POLL ? [port] : [port, port]), 0);
  }
};

/** Sends, then waits for the answer, or the other way round. */
const pingPong = (guest: Guest, order: StressOrder, isFirst: boolean): void => {
  const random = randomFrom(order.seed);
  const port = order.ports[0]!;
  for (let round = 0; round < order.rounds; round += 1) {
    if (isFirst) assert.equal(kit.send(guest, port), 0);
    take(guest, port, random(WAYS));
    if (!isFirst) assert.equal(kit.send(guest, port), 0);
  }
};

/** Turns of an empty loop: from nothing to a few times what a send takes. */
const DELAY_MAX = 400;

/** As `pingPong`, always in one way, and each side takes its time before it sends and before it waits. */
const delayedPingPong = (guest: Guest, order: StressOrder, isFirst: boolean, way: number): void => {
  const random = randomFrom(order.seed);
  const { cpu } = guest;
  const port = order.ports[0]!;
  pokeWords(guest, SEND_AT, port);
  const delay = (): void => {
    for (let left = random(DELAY_MAX); left > 0; left -= 1) idle += left;
  };
  const send = (): void => {
    delay();
    const result = hypercall(cpu, abi.__HYPERVISOR_event_channel_op, abi.EVTCHNOP_send, SEND_AT, 0, 0, 0);
    if (result !== 0) assert.fail(`send: ${result}`);
  };
  for (let round = 0; round < order.rounds; round += 1) {
    if (isFirst) send();
    delay();
    take(guest, port, way);
    if (!isFirst) send();
  }
};
/** What the empty loops compute, so that they are not optimised away. */
let idle = 0;
/** Where the port to send on stands: a page that the kit does not use. */
const SEND_AT = kit.SPARE;

/** Waits until the word at `ports[0]` is `turn` modulo 2, then adds 1 and notifies. */
const takeTurns = (guest: Guest, order: StressOrder, turn: number): void => {
  const { cpu } = guest;
  const address = order.ports[0]!;
  for (let round = 0; round < order.rounds; round += 1) {
    enterHypercall(cpu);
    let value = cpu.memory.readU32(address);
    while (value % 2 !== turn) {
      guestWait32(cpu, address, value, Infinity);
      value = cpu.memory.readU32(address);
    }
    cpu.memory.writeU32(address, value + 1);
    guestNotify(cpu, address, 1);
    leaveHypercall(cpu);
  }
};

/** Opens, connects and closes ports at random. `ports` are the domids of both sides. */
const churn = (guest: Guest, order: StressOrder): void => {
  const random = randomFrom(order.seed);
  for (let round = 0; round < order.rounds; round += 1) {
    const domid = order.ports[random(order.ports.length)]!;
    const results = [
      () => kit.allocUnbound(guest, domid),
      () => kit.bindInterdomain(guest, domid, 1 + random(12)),
      () => kit.close(guest, 1 + random(12)),
      () => kit.bindIpi(guest, 0),
      () => kit.bindVirq(guest, random(24)),
      () => (random(50) === 0 ? kit.reset(guest) : 0),
    ];
    const result = results[random(results.length)]!();
    assert.ok(
      result >= 0 || [-abi.EINVAL, -abi.ENOSPC, -abi.EEXIST, -abi.EBUSY, -abi.EAGAIN].includes(result),
      `${result}`,
    );
  }
};

/** Sends on every port it may have. */
const flood = (guest: Guest, order: StressOrder): void => {
  const random = randomFrom(order.seed);
  for (let round = 0; round < order.rounds; round += 1) {
    const result = kit.send(guest, 1 + random(12));
    assert.ok(result === 0 || result === -abi.EINVAL, `${result}`);
  }
};

const roles = {
  first: (guest: Guest, order: StressOrder) => pingPong(guest, order, true),
  second: (guest: Guest, order: StressOrder) => pingPong(guest, order, false),
  pollFirst: (guest: Guest, order: StressOrder) => delayedPingPong(guest, order, true, POLL),
  pollSecond: (guest: Guest, order: StressOrder) => delayedPingPong(guest, order, false, POLL),
  blockFirst: (guest: Guest, order: StressOrder) => delayedPingPong(guest, order, true, BLOCK),
  blockSecond: (guest: Guest, order: StressOrder) => delayedPingPong(guest, order, false, BLOCK),
  even: (guest: Guest, order: StressOrder) => takeTurns(guest, order, 0),
  odd: (guest: Guest, order: StressOrder) => takeTurns(guest, order, 1),
  churn,
  flood,
} as const;

/** Each vCPU has an argument page of its own, so that two of one domain do not write over each other's. */
const run = (order: StressOrder): void => {
  const sleep = new Int32Array(order.sleep);
  const hypervisor = new Hypervisor(order.storage, { platform: realPlatform(sleep), tag: order.tag });
  wakeColumns.add(hypervisor.vcpus.wake);
  const cpu = createCpu(hypervisor, order.slot, order.vcpu);
  const guest: Guest = { domid: cpu.domid, slot: order.slot, cpu };
  beginVcpu(cpu);
  const common = new Int32Array(order.common);
  Atomics.sub(common, 0, 1);
  while (Atomics.load(common, 0) > 0) hypercall(cpu, abi.__HYPERVISOR_sched_op, abi.SCHEDOP_yield, 0, 0, 0, 0);
  roles[order.role](guest, order);
};

if (parentPort !== null) {
  run(workerData as StressOrder);
  parentPort.postMessage("done");
}
