/**
 * A vCPU on a thread of its own that makes hypercalls without end, as fast as it can. It sleeps and parks for real.
 */
import { workerData } from "node:worker_threads";
import { createCpu, hypercall } from "../src/hypercall.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import type { HypervisorStorage } from "../src/hypervisor.ts";
import type { Mmu, Platform } from "../src/platform.ts";

/** What the thread is told. */
export interface VcpuOrder {
  readonly storage: HypervisorStorage;
  readonly slot: number;
  readonly vcpu: number;
  readonly tag: number;
  /** The hypercall it makes: number and arguments. */
  readonly call: readonly [number, number, number];
}

const NS_PER_MS = 1e6;

/** A platform with real sleeping; page tables are what the caller has. */
export const threadPlatform = (mmu: Mmu): Platform => ({
  mmu,
  now: () => performance.now() * NS_PER_MS,
  wallClock: () => 0n,
  wait: (words, index, expected, timeoutNs) => void Atomics.wait(words, index, expected, timeoutNs / NS_PER_MS),
  wake: (words, index) => Atomics.notify(words, index),
  ringDoorbell: () => undefined,
  parkForever: () => {
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  },
});

const run = (order: VcpuOrder): never => {
  const mmu: Mmu = {
    map: () => 0,
    mapSecret: () => 0,
    protect: () => 0,
    zero: () => 0,
    unmap: () => 0,
    discard: () => 0,
  };
  const hypervisor = new Hypervisor(order.storage, { platform: threadPlatform(mmu), tag: order.tag });
  const cpu = createCpu(hypervisor, order.slot, order.vcpu);
  const [number, a, b] = order.call;
  for (;;) hypercall(cpu, number, a, b, 0, 0, 0);
};

const order: VcpuOrder | null = workerData;
if (order !== null && "call" in order) run(order);
