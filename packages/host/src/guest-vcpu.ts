/**
 * One vCPU in its own thread: the instance of the guest's module, how it is entered, and what happens when it leaves by
 * returning, by a trap or for good.
 */
import { SHUTDOWN_poweroff } from "@xenolith/abi";
import {
  beginVcpu,
  type Cpu,
  crashDomain,
  createCpu,
  enterGate,
  enterHypercall,
  GATE_IN,
  leaveGate,
  leaveHypercall,
  shutdownDomain,
} from "@xenolith/core";
import { bindServices, START_EXPORT } from "@xenolith/loader";
import { describeCrash, GuestFault } from "./crash-report.ts";
import { createImports } from "./guest-imports.ts";
import type { GuestThread } from "./guest-thread.ts";
import type { AnswerCommand, CallCommand, GuestValue, StartCommand, VcpuEntry } from "./protocol.ts";
import { createServices } from "./service-functions.ts";
import { spawnThread } from "./thread-spawn.ts";
import { Upcall } from "./upcall.ts";
import { VcpuSleep } from "./vcpu-sleep.ts";
import { createWasiContext } from "./wasi-setup.ts";

/** A function that a guest exports. */
type GuestExport = (...values: GuestValue[]) => GuestValue | readonly GuestValue[] | undefined;

const NO_BYTES = new Uint8Array(0);

/** The vCPU that the calling thread is. */
export class GuestVcpu {
  readonly cpu: Cpu;
  readonly upcall: Upcall;
  readonly #thread: GuestThread;
  readonly #sleep: VcpuSleep;
  readonly #start: StartCommand;
  #exports: WebAssembly.Exports = Object.create(null);
  /** What was the module's start function, for vCPU 0. */
  #initialise: GuestExport | undefined;

  constructor(thread: GuestThread, start: StartCommand) {
    this.#thread = thread;
    this.#start = start;
    this.cpu = createCpu(thread.hypervisor, start.slot, start.vcpu, (_, thrown) => this.#crash(thrown));
    this.#sleep = new VcpuSleep(this.cpu);
    this.upcall = new Upcall(thread.hypervisor, this.cpu.index);
  }

  /** Makes the instance and enters it. Returns when the vCPU waits for commands: a reactor, or a thread that ended. */
  run(): void {
    this.#guarded(() => {
      this.#instantiate();
      this.#begin();
      this.#thread.report({ type: "started" });
      this.#thread.giveWay();
      this.#enter(this.#start.entry);
    });
    this.#thread.report({ type: "idle" });
  }

  /** Calls an export for the control domain. The gate has been passed. */
  call({ id, name, values }: CallCommand): void {
    const target = this.#functionNamed(name);
    if (target === undefined) {
      this.#thread.report({ type: "refused", id, message: `the guest exports no function ${JSON.stringify(name)}` });
      return;
    }
    const result = this.#guarded(() => target(...values));
    const returned = result === undefined ? [] : typeof result === "object" ? [...result] : [result];
    this.#thread.report({ type: "returned", id, values: returned });
  }

  /** Delivers a pending event to the guest. */
  deliverUpcall(): void {
    this.#guarded(() => this.upcall.check());
  }

  #instantiate(): void {
    const { cpu, upcall } = this;
    const { hostTable, tag } = this.#thread;
    const start = this.#start;
    // Inside the gate: making the streams calls the FFI, in which a thread must not be terminated.
    enterHypercall(cpu);
    const imports = createImports({
      cpu,
      memory: start.memory,
      namespaces: start.namespaces,
      upcall,
      wasi: createWasiContext(this.#thread, cpu, start),
      spawnThread: (argument) => spawnThread(cpu, hostTable, argument),
      offered: start.offered,
      ask: (offered, values) => this.#ask(offered, values),
    });
    leaveHypercall(cpu);
    const instance = new WebAssembly.Instance(start.module, imports);
    this.#exports = instance.exports;
    const image = { manifest: start.manifest, module: NO_BYTES, data: NO_BYTES };
    bindServices(image, instance.exports, createServices(cpu, { hostTable, tag, passive: start.passive }));
    upcall.bind(this.#functionNamed("xen_upcall"));
    if (start.vcpu === 0 && start.manifest.hasStart) this.#initialise = this.#functionNamed(START_EXPORT);
  }

  #enter(entry: VcpuEntry): void {
    this.#initialise?.();
    switch (entry.kind) {
      case "command":
        this.#functionNamed("_start")?.();
        return this.#finish(0);
      case "xen":
        this.#functionNamed("xen_start")?.(entry.startInfo | 0);
        return this.#finish(0);
      case "reactor":
        this.#functionNamed("_initialize")?.();
        return;
      case "thread":
        this.#functionNamed("wasi_thread_start")?.(this.cpu.vcpu, entry.argument | 0);
        return;
      case "vcpu":
        this.#enterVcpu(entry);
        return;
    }
  }

  /**
   * A further vCPU of a Xen-style guest: `xen_vcpu_start(vcpu, argument)` if it has that, else the function of its table
   * that VCPUOP_initialise named. Its shadow stack is its own, if the guest said which.
   */
  #enterVcpu({ argument, stack, entry }: Extract<VcpuEntry, { kind: "vcpu" }>): void {
    if (stack !== 0) this.#setStackPointer(stack);
    const start = this.#functionNamed("xen_vcpu_start");
    if (start !== undefined) start(this.cpu.vcpu, argument | 0);
    else this.#functionAt(entry)?.(argument | 0);
  }

  /** Gives the guest's shadow stack to this vCPU's instance, if the guest exports where it is. */
  #setStackPointer(stack: number): void {
    const pointer = this.#exports["__stack_pointer"];
    if (!(pointer instanceof WebAssembly.Global)) return;
    try {
      pointer.value = stack | 0;
    } catch (cause) {
      throw new GuestFault("__stack_pointer is no global of type (mut i32)", { cause });
    }
  }

  /** The function at `index` of the guest's first table. */
  #functionAt(index: number): GuestExport | undefined {
    const name = this.#start.manifest.tables[0]?.exportName;
    const table = name === undefined ? undefined : this.#exports[name];
    if (!(table instanceof WebAssembly.Table) || index >= table.length) return undefined;
    const found: unknown = table.get(index);
    // Its types are the guest's own; V8 checks what goes in and comes out.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    return typeof found === "function" ? (found as GuestExport) : undefined;
  }

  /** The program ended by returning: its domain powers off. */
  #finish(code: number): never {
    const { hypervisor, hostTable, platform } = this.#thread;
    enterHypercall(this.cpu);
    hostTable.setExitCode(this.cpu.slot, code);
    shutdownDomain(hypervisor, this.cpu.slot, SHUTDOWN_poweroff);
    leaveHypercall(this.cpu);
    return platform.parkForever();
  }

  /** Parks while the domain is paused; from here on the vCPU runs. */
  #begin(): void {
    enterHypercall(this.cpu);
    beginVcpu(this.cpu);
    leaveHypercall(this.cpu);
  }

  #functionNamed(name: string): GuestExport | undefined {
    const found = this.#exports[name];
    // Its types are the guest's own; V8 checks what goes in and comes out.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    return typeof found === "function" ? (found as GuestExport) : undefined;
  }

  /** Calls a function of the control domain's program and sleeps until it has answered. Inside the gate. */
  #ask(offered: number, values: readonly GuestValue[]): GuestValue | undefined {
    let answer: AnswerCommand | undefined;
    this.#thread.report({ type: "asked", offered, values });
    while (answer === undefined) {
      this.#sleep.until(Infinity, () => (answer ??= this.#thread.takeAnswer()) !== undefined);
    }
    return answer.value;
  }

  /** Runs guest code; whatever it throws ends the domain. */
  #guarded<T>(enter: () => T): T {
    try {
      return enter();
    } catch (thrown) {
      return this.#crash(thrown);
    }
  }

  #crash(thrown: unknown): never {
    const { hypervisor, hostTable, platform, tag } = this.#thread;
    const { vcpus, locks } = hypervisor;
    const { index, slot } = this.cpu;
    const { reason, where, internal } = describeCrash(thrown);
    if (internal) this.#thread.report({ type: "fault", message: stackOf(thrown) });
    // Thrown inside the hypervisor: by a failed assertion of ours, or by the engine for want of memory.
    const isInside = (Atomics.load(vcpus.gate, index) & GATE_IN) !== 0;
    if (isInside) locks.recover(tag);
    else enterGate(vcpus.gate, index, platform);
    hostTable.setWhere(slot, where);
    crashDomain(hypervisor, slot, reason);
    leaveGate(vcpus.gate, index, platform);
    return platform.parkForever();
  }
}

/** Characters of a fault that are reported: names in it may be the guest's. */
const FAULT_LENGTH_MAX = 8_192;

const stackOf = (thrown: unknown): string =>
  (thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown)).slice(0, FAULT_LENGTH_MAX);
