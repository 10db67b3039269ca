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
  GATE_PAUSE,
  GATE_STOP,
  leaveGate,
  prepareBlock,
  VCPU_BLOCKED,
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
   * Calls `isReady` outside the gate until it holds or the vCPU is asked to pause or stop; it waits a little each time.
   * For what cannot wake a vCPU.
   */
  polling(isReady: () => boolean): void {
    const { hypervisor, index } = this.#cpu;
    const { vcpus, platform } = hypervisor;
    changeRunstate(hypervisor, index, { from: VCPU_RUNNING, to: VCPU_BLOCKED }, platform.now());
    leaveGate(vcpus.gate, index, platform);
    while (!isReady() && !this.#isRequested()) continue;
    // A request to pause or stop is met here.
    enterGate(vcpus.gate, index, platform);
    changeRunstate(hypervisor, index, { from: VCPU_BLOCKED, to: VCPU_RUNNING }, platform.now());
  }

  #isRequested(): boolean {
    const { gate } = this.#cpu.hypervisor.vcpus;
    return (Atomics.load(gate, this.#cpu.index) & (GATE_PAUSE | GATE_STOP)) !== 0;
  }
}
