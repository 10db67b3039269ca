/**
 * Waking a vCPU that blocks. The other side is block.ts.
 *
 * Who wakes has made the sleeper's condition true before; who sleeps has taken the wake counter and announced itself
 * (state) before it looks at the condition. Everything is atomic, so one of the two sees the other.
 */
import { ATTENTION_EVENT } from "./attention.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { VCPU_BLOCKED } from "./vcpu-table.ts";

/** Wakes vCPU row `index`. Dom0 has no thread that sleeps: its attention is raised instead. */
export const wakeVcpu = (hypervisor: Hypervisor, index: number): void => {
  const { vcpus } = hypervisor;
  if (index < vcpus.perDomain) {
    hypervisor.attention.raise(ATTENTION_EVENT);
    return;
  }
  Atomics.add(vcpus.wake, index, 1);
  if (Atomics.load(vcpus.state, index) === VCPU_BLOCKED) hypervisor.platform.wake(vcpus.wake, index);
};
