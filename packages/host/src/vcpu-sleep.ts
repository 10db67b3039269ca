/**
 * Waiting of a vCPU for something that is not the hypervisor's: bytes of a stream, a command of the control domain.
 * The vCPU is outside its gate meanwhile, and blocked for everybody who looks; whoever changes what it waits for wakes
 * it with `wakeVcpu`.
 */
import {
  blockVcpu,
  cancelBlock,
  changeRunstate,
  type Cpu,
  enterGate,
  leaveGate,
  prepareBlock,
  VCPU_RUNNABLE,
  VCPU_RUNNING,
} from "@xenolith/core";

/** Sleeps of one vCPU. Called inside its gate with no lock held; inside it again on return. */
export class VcpuSleep {
  readonly #cpu: Cpu;

  constructor(cpu: Cpu) {
    this.#cpu = cpu;
  }

  /** Sleeps until somebody wakes the vCPU or until `deadlineNs` of host time, unless `isReady` holds already. */
  until(deadlineNs: number, isReady: () => boolean): void {
    const seen = prepareBlock(this.#cpu);
    if (isReady()) cancelBlock(this.#cpu);
    else blockVcpu(this.#cpu, deadlineNs, seen);
  }

  /**
   * Calls `isReady`, which waits a little each time, until it holds. For what cannot wake a vCPU. The vCPU looks runnable
   * meanwhile, so that others serve its timers. Between the calls it passes its gate, where requests to pause and stop
   * are met; never during one, because a thread that is terminated inside the FFI takes the process with it.
   */
  polling(isReady: () => boolean): void {
    const { hypervisor, index } = this.#cpu;
    const { vcpus, platform } = hypervisor;
    changeRunstate(hypervisor, index, { from: VCPU_RUNNING, to: VCPU_RUNNABLE }, platform.now());
    while (!isReady()) {
      leaveGate(vcpus.gate, index, platform);
      enterGate(vcpus.gate, index, platform);
    }
    changeRunstate(hypervisor, index, { from: VCPU_RUNNABLE, to: VCPU_RUNNING }, platform.now());
  }
}
