/**
 * The threads of one domain's vCPUs, from the control domain's side: giving them work, waking them, and stopping them
 * in a way that never leaves the hypervisor half changed.
 *
 * Stopping: the gate of each vCPU gets a stop request, sleepers are woken, and each thread is terminated once its vCPU
 * was seen outside the hypervisor. A vCPU that computes for ever is outside and ends at once; one that blocks or waits
 * for a stream is outside too; one that is inside leaves within one slice of its operation.
 */
import {
  crashDomain,
  endVcpu,
  GATE_IN,
  GATE_STOP,
  requestVcpus,
  vcpuThreadGone,
  vcpuThreadStarted,
  wakeVcpu,
} from "@xenolith/core";
import { setImmediate as nextTurn, setTimeout as delay } from "node:timers/promises";
import { recoverHeap } from "./guest-heap.ts";
import type { HostContext } from "./host-context.ts";
import type { Command, Report, StartCommand, VcpuEntry } from "./protocol.ts";
import type { VcpuThread } from "./vcpu-thread.ts";

/** Turns of the event loop to look for a vCPU outside its gate before looking once a millisecond. */
const QUICK_LOOKS = 50;
/**
 * A vCPU that is inside for this long waits for a slow disk, or something is broken: that is noted. It is waited for all
 * the same, because terminating it there could end the process.
 */
const STUCK_MS = 10_000;

/** Everything of a start command that is the same for all vCPUs of a domain. */
export type StartTemplate = Omit<StartCommand, "type" | "vcpu" | "entry">;

/** What the domain hears of its threads. */
export interface VcpuListener {
  /** A report of vCPU `vcpu`, other than doorbells and faults. */
  report(vcpu: number, report: Report): void;
  /** The thread `tag` is gone; it may have held something of the domain's. */
  gone(tag: number): void;
}

/** vCPU threads of the domain in one slot. */
export class DomainVcpus {
  readonly #context: HostContext;
  readonly #slot: number;
  readonly #template: StartTemplate;
  readonly #listener: VcpuListener;
  readonly #threads = new Map<number, VcpuThread>();
  /** Processor time that each thread had used before it became ours. */
  readonly #cpuNsBefore = new Map<VcpuThread, number>();
  #isStopping = false;

  constructor(context: HostContext, slot: number, template: StartTemplate, listener: VcpuListener) {
    this.#context = context;
    this.#slot = slot;
    this.#template = template;
    this.#listener = listener;
  }

  /** Number of the domain. */
  get domid(): number {
    return this.#template.domid;
  }

  /** Number of threads that exist. */
  get threadCount(): number {
    return this.#threads.size;
  }

  /** Lets vCPU `vcpu` enter the guest, on a thread of its own. */
  start(vcpu: number, entry: VcpuEntry): void {
    if (this.#isStopping) return;
    const thread = this.#threads.get(vcpu) ?? this.#adopt(vcpu);
    thread.ref();
    this.post(vcpu, { type: "start", ...this.#template, vcpu, entry });
  }

  /** Sends a command to vCPU `vcpu`, which has a thread. */
  post(vcpu: number, command: Command): void {
    this.#threads.get(vcpu)?.post(command);
    this.wake(vcpu);
  }

  /** Keeps the process alive for vCPU `vcpu`, or no longer. */
  setBusy(vcpu: number, isBusy: boolean): void {
    const thread = this.#threads.get(vcpu);
    if (isBusy) thread?.ref();
    else thread?.unref();
  }

  /** Wakes vCPU `vcpu` if it sleeps. */
  wake(vcpu: number): void {
    const { hypervisor } = this.#context;
    wakeVcpu(hypervisor, hypervisor.vcpus.index(this.#slot, vcpu));
  }

  /** Wakes all. */
  wakeAll(): void {
    for (const vcpu of this.#threads.keys()) this.wake(vcpu);
  }

  /** Processor time of all threads so far in nanoseconds; brings the hypervisor's figures up to date. */
  cpuNs(): number {
    for (const [vcpu, thread] of this.#threads) this.#noteCpu(vcpu, thread);
    const { vcpus, domains } = this.#context.hypervisor;
    let sum = 0;
    for (let vcpu = 0; vcpu < domains.vcpuCount[this.#slot]!; vcpu += 1)
      sum += vcpus.cpuNs[vcpus.index(this.#slot, vcpu)]!;
    return sum;
  }

  /** Stops all vCPUs for good and ends their threads. Safe at any time, also twice. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    requestVcpus(this.#context.hypervisor, this.#slot, GATE_STOP);
    await Promise.all([...this.#threads].map(([vcpu, thread]) => this.#end(vcpu, thread)));
  }

  #adopt(vcpu: number): VcpuThread {
    const { hypervisor, pool } = this.#context;
    const thread = pool.take();
    this.#threads.set(vcpu, thread);
    this.#cpuNsBefore.set(thread, thread.cpuNs());
    vcpuThreadStarted(hypervisor, hypervisor.vcpus.index(this.#slot, vcpu), thread.tag);
    thread.onReport = (report) => this.#receive(vcpu, report);
    thread.onEnd = (cause) => this.#gone(vcpu, thread, cause);
    return thread;
  }

  #receive(vcpu: number, report: Report): void {
    if (report.type === "doorbell") this.#context.attend();
    else if (report.type === "fault")
      this.#context.noteFault(`domain slot ${this.#slot}, vCPU ${vcpu}: ${report.message}`);
    else if (report.type !== "ready") this.#listener.report(vcpu, report);
  }

  async #end(vcpu: number, thread: VcpuThread): Promise<void> {
    const { hypervisor, noteFault } = this.#context;
    const index = hypervisor.vcpus.index(this.#slot, vcpu);
    const isOutside = (): boolean => (Atomics.load(hypervisor.vcpus.gate, index) & GATE_IN) === 0;
    for (let look = 0; look < QUICK_LOOKS && !isOutside() && !thread.ended; look += 1) await nextTurn();
    for (let look = 1; !isOutside() && !thread.ended; look += 1) {
      await delay(1);
      if (look === STUCK_MS) noteFault(`domain slot ${this.#slot}, vCPU ${vcpu}: does not leave the hypervisor`);
    }
    this.#noteCpu(vcpu, thread);
    await thread.end();
  }

  /** The thread has ended, by us or by itself. */
  #gone(vcpu: number, thread: VcpuThread, cause: unknown): void {
    const { hypervisor, hostTable, pool, services, attend } = this.#context;
    const index = hypervisor.vcpus.index(this.#slot, vcpu);
    services.abandon(this.#slot, vcpu);
    this.#threads.delete(vcpu);
    this.#cpuNsBefore.delete(thread);
    const heldLocks = vcpuThreadGone(hypervisor, index, thread.tag);
    endVcpu(hypervisor, index);
    recoverHeap(hostTable, this.#slot, thread.tag);
    pool.forget(thread);
    this.#listener.gone(thread.tag);
    if (!this.#isStopping || heldLocks > 0) {
      const reason = cause instanceof Error ? cause.message : "it was ended from outside";
      crashDomain(hypervisor, this.#slot, `thread of vCPU ${vcpu} died: ${reason}`);
    }
    // The thread may have died between setting attention bits and ringing.
    attend();
  }

  #noteCpu(vcpu: number, thread: VcpuThread): void {
    const { vcpus } = this.#context.hypervisor;
    const used = thread.cpuNs() - (this.#cpuNsBefore.get(thread) ?? 0);
    const index = vcpus.index(this.#slot, vcpu);
    if (used > vcpus.cpuNs[index]!) vcpus.cpuNs[index] = used;
  }
}
