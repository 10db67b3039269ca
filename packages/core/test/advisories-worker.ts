/**
 * A thread of its own for the advisory tests: attaches to a hypervisor's buffers and does what its role says.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { parentPort, workerData } from "node:worker_threads";
import { createCpu, hypercall } from "../src/hypercall.ts";
import type { HypervisorStorage } from "../src/hypervisor.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import type { Mmu, Platform } from "../src/platform.ts";

/** What a thread is told. */
export interface Order {
  readonly storage: HypervisorStorage;
  readonly tag: number;
  readonly slot: number;
  readonly role: "count" | "query" | "read" | "hold";
  /** Words that all threads of a test share. */
  readonly common: SharedArrayBuffer;
  /** `read`: the address that is read, and the two values that may be found there. */
  readonly address: number;
  readonly values: readonly number[];
}

/** Words of `Order.common`. */
export const READY = 0;
export const STOP = 1;
export const COUNTER = 2;
export const ROUNDS = 3;

/** Increments that each counting thread makes. */
export const INCREMENTS = 20_000;

/** The platform of a real thread. */
export const realPlatform = (mmu: Mmu): Platform => ({
  mmu,
  now: () => performance.now() * 1e6,
  wallClock: () => 0n,
  wait: (words, index, expected, timeoutNs) => {
    Atomics.wait(words, index, expected, timeoutNs / 1e6);
  },
  wake: (words, index) => Atomics.notify(words, index),
  ringDoorbell: () => {},
  parkForever: () => {
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
});

const roles: Readonly<Record<Order["role"], (hypervisor: Hypervisor, order: Order, common: Int32Array) => void>> = {
  count: (hypervisor, _order, common) => {
    const lock = hypervisor.locks.id("allocator");
    for (let round = 0; round < INCREMENTS; round += 1) {
      hypervisor.locks.acquire(lock);
      // Not atomic: only the lock makes the sum come out right.
      common[COUNTER] = common[COUNTER]! + 1;
      hypervisor.locks.release(lock);
    }
  },
  query: (hypervisor, order, common) => {
    const cpu = createCpu(hypervisor, order.slot, order.tag - 2);
    while (Atomics.load(common, STOP) === 0) {
      const result = hypercall(cpu, abi.__HYPERVISOR_memory_op, abi.XENMEM_current_reservation, order.address, 0, 0, 0);
      assert.ok(result > 0, `${result}`);
      Atomics.add(common, ROUNDS, 1);
    }
  },
  read: (hypervisor, order, common) => {
    const { memory } = createCpu(hypervisor, order.slot, 0);
    while (Atomics.load(common, STOP) === 0) {
      const value = memory.readU32(order.address);
      assert.ok(order.values.includes(value), `read ${value}, not one of ${order.values.join()}`);
      Atomics.add(common, ROUNDS, 1);
    }
  },
  hold: (hypervisor, order, common) => {
    hypervisor.locks.acquire(hypervisor.locks.id("p2m", order.slot));
    Atomics.store(common, READY, 1);
    Atomics.notify(common, READY);
    Atomics.wait(common, STOP, 0);
  },
};

if (parentPort !== null) {
  const order = workerData as Order;
  const common = new Int32Array(order.common);
  const hypervisor = new Hypervisor(order.storage, { platform: realPlatform(undefined as never), tag: order.tag });
  if (order.role !== "hold") {
    Atomics.add(common, READY, 1);
    Atomics.notify(common, READY);
  }
  roles[order.role](hypervisor, order, common);
  assert.equal(hypervisor.locks.heldCount, 0);
}
