/**
 * The WASI of a domain: what the control domain prepares (arguments, environment, open directories, the descriptor
 * table), and what each vCPU thread makes of it.
 */
import { SHUTDOWN_poweroff } from "@xenolith/abi";
import { ATTENTION_CONSOLE, busyNs, type Cpu, leaveHypercall, shutdownDomain } from "@xenolith/core";
import { threadCpuTimeNs, threadId } from "@xenolith/sys";
import type { GuestThread } from "./guest-thread.ts";
import type { StdioConfiguration } from "./stdio.ts";
import { createVcpuStdio } from "./vcpu-stdio.ts";
import { VcpuSleep } from "./vcpu-sleep.ts";
import { attachDescriptors, type WasiContext, type WasiPreopen } from "./wasi/index.ts";

/** What every vCPU of a domain is told. */
export interface WasiConfiguration {
  readonly arguments: readonly Uint8Array[];
  /** `NAME=value`. */
  readonly environment: readonly Uint8Array[];
  readonly preopens: readonly WasiPreopen[];
  /** Columns of the domain's descriptor table. */
  readonly descriptors: SharedArrayBuffer;
}

/** The context of one vCPU. */
export const createWasiContext = (
  thread: GuestThread,
  cpu: Cpu,
  settings: { readonly wasi: WasiConfiguration; readonly stdio: StdioConfiguration },
): WasiContext => {
  const { hypervisor, platform, hostTable, tag } = thread;
  const sleep = new VcpuSleep(cpu);
  const changed = (): void => hypervisor.attention.raise(ATTENTION_CONSOLE);
  return {
    cpu,
    descriptors: attachDescriptors(settings.wasi.descriptors),
    arguments: settings.wasi.arguments,
    environment: settings.wasi.environment,
    preopens: settings.wasi.preopens,
    stdio: createVcpuStdio(settings.stdio, { tag, sleep, changed }),
    clock: {
      realtime: () => platform.wallClock(),
      monotonic: () => BigInt(Math.floor(platform.now())),
      processCpu: () => BigInt(Math.floor(domainBusyNs(cpu))),
      threadCpu: () => BigInt(Math.max(0, threadCpuTimeNs(threadId()))),
    },
    // Loaded on first use: it takes a millisecond, which few guests need to pay.
    random: (target) => void process.getBuiltinModule("node:crypto").randomFillSync(target),
    sleepUntil: (deadlineNs) => sleep.until(deadlineNs, () => false),
    exit: (code) => {
      hostTable.setExitCode(cpu.slot, code);
      shutdownDomain(hypervisor, cpu.slot, SHUTDOWN_poweroff);
      leaveHypercall(cpu);
      return platform.parkForever();
    },
  };
};

const domainBusyNs = (cpu: Cpu): number => {
  const { hypervisor, slot } = cpu;
  let sum = 0;
  for (let vcpu = 0; vcpu < hypervisor.domains.vcpuCount[slot]!; vcpu += 1) {
    sum += busyNs(hypervisor, hypervisor.vcpus.index(slot, vcpu));
  }
  return sum;
};
