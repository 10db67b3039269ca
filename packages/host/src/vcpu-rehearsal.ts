/**
 * What a vCPU thread does before it has a domain: it loads and binds what every guest will need, and takes the way to a
 * guest's first instruction once without walking it to the end, so that a guest does not pay for what V8 does when code
 * runs for the first time.
 */
import { createCpu, warmStackProbe } from "@xenolith/core";
import { threadCpuTimeNs, threadId } from "@xenolith/sys";
import { createImports } from "./guest-imports.ts";
import type { GuestThread } from "./guest-thread.ts";
import { heapHasRoom } from "./heap-guard.ts";
import { createServices } from "./service-functions.ts";
import { stdioConfiguration } from "./stdio.ts";
import { Upcall } from "./upcall.ts";
import { createDescriptorBuffer, WASI_MODULES } from "./wasi/index.ts";
import { createWasiContext } from "./wasi-setup.ts";

/** Makes system calls that change nothing, on the thread's own way to the kernel. */
export const loadNative = (thread: GuestThread): void => {
  const { mmu } = thread.platform;
  // Length 0 is refused by the kernel (EINVAL) before anything happens.
  mmu.discard(0, 0);
};

/**
 * Makes the imports of a vCPU as if the thread were the control domain's, and calls none of them that could change
 * anything: what is made here is dropped again.
 */
export const rehearse = (thread: GuestThread): void => {
  const { hypervisor, hostTable, tag, platform } = thread;
  const cpu = createCpu(hypervisor, 0, 0);
  const wasi = createWasiContext(thread, cpu, {
    stdio: stdioConfiguration({}),
    wasi: { arguments: [], environment: [], preopens: [], descriptors: createDescriptorBuffer(1) },
  });
  createImports({
    cpu,
    memory: new WebAssembly.Memory({ initial: 0, maximum: 0, shared: true }),
    namespaces: WASI_MODULES,
    upcall: new Upcall(hypervisor, cpu.index),
    wasi,
    spawnThread: () => 0,
    offered: [],
    ask: () => undefined,
  });
  createServices(cpu, { hostTable, tag, passive: undefined }).memory_size?.();
  heapHasRoom();
  warmStackProbe();
  platform.wallClock();
  threadCpuTimeNs(threadId());
  wasi.random(new Uint8Array(1));
};
