/**
 * The life of one domain on the control domain's thread: start, the end that it comes to by itself, destruction. The
 * state itself is the hypervisor's; this follows it.
 */
import type { EventEmitter } from "node:events";
import { SHUTDOWN_suspend, XenolithError } from "@xenolith/abi";
import {
  bringUp,
  crashDomain,
  domainInfo,
  type DomainState,
  initialiseVcpu,
  resumeDomain,
  takeStartRequest,
  unpauseDomain,
} from "@xenolith/core";
import type { DomainEventMap } from "./domain.ts";
import { destroyedExit, type DomainExit, readExit } from "./domain-exit.ts";
import type { DomainParts } from "./domain-parts.ts";
import { type DomainStats, emptyStats, readStats } from "./domain-stats.ts";
import { dismantle } from "./domain-teardown.ts";
import { DomainVcpus } from "./domain-vcpus.ts";
import { VCPU_ENTRY_THREAD } from "./host-table.ts";
import type { CallCommand, Report, VcpuEntry } from "./protocol.ts";
import { answer, signaturesOf } from "./offered-functions.ts";
import { retireThread } from "./thread-spawn.ts";

/** End of a call that a vCPU reported. */
type CallReport = Extract<Report, { type: "returned" | "refused" }>;

/** Follows one domain from creation to its end. */
export class DomainLife {
  readonly exited: Promise<DomainExit>;
  readonly #parts: DomainParts;
  readonly #events: EventEmitter<DomainEventMap>;
  readonly #onCallReport: (report: CallReport) => void;
  readonly #vcpus: DomainVcpus;
  readonly #generation: number;
  readonly #ready: PromiseWithResolvers;
  #resolveExited: (exit: DomainExit) => void = () => {};
  #exit: DomainExit | undefined;
  #isStarted = false;
  #isSuspended = false;
  #destruction: Promise<void> | undefined;
  #isGone = false;
  #lastStats: DomainStats = emptyStats;

  constructor(parts: DomainParts, events: EventEmitter<DomainEventMap>, onCallReport: (report: CallReport) => void) {
    const { context, slot, image } = parts;
    this.#parts = parts;
    this.#events = events;
    this.#onCallReport = onCallReport;
    this.#generation = context.hypervisor.domains.generation[slot]!;
    this.exited = new Promise((resolve) => (this.#resolveExited = resolve));
    this.#ready = withResolvers();
    const template = {
      slot,
      domid: context.hypervisor.domains.domid[slot]!,
      module: image.module,
      memory: parts.space.memory,
      manifest: image.bareManifest,
      namespaces: image.namespaces,
      passive: image.passive,
      stdio: parts.stdio.configuration,
      wasi: parts.wasi,
      offered: signaturesOf(parts.offered),
    };
    this.#vcpus = new DomainVcpus(context, slot, template, {
      report: (vcpu, report) => this.#receive(vcpu, report),
      gone: (tag) => parts.stdio.recover(tag),
    });
    parts.stdio.wakeVcpus = () => this.#vcpus.wakeAll();
  }

  /** The hypervisor's state of the domain; `free` once it is gone. */
  get state(): DomainState {
    const { domains } = this.#parts.context.hypervisor;
    const isOurs = !this.#isGone && domains.generation[this.#parts.slot] === this.#generation;
    return isOurs ? domains.stateOf(this.#parts.slot) : "free";
  }

  /** Whether it exists and is not being destroyed. */
  get isAlive(): boolean {
    return this.#destruction === undefined && this.state !== "free" && this.state !== "dying" && this.state !== "dead";
  }

  /** Its slot, for an action that needs it alive. Throws XenolithError `DOMAIN_STATE`. */
  liveSlot(action: string): number {
    if (!this.isAlive) throw this.#wrongState(action);
    return this.#parts.slot;
  }

  /** Throws XenolithError `DOMAIN_STATE` when its exports cannot be called. */
  requireReactor(): void {
    const { kind } = this.#parts.image.image.manifest;
    if (kind !== "reactor") {
      throw new XenolithError(
        "DOMAIN_STATE",
        `call: domain ${this.#domid} runs a program of its own (${kind}), it is no reactor`,
      );
    }
    if (!this.isAlive || this.#exit !== undefined || !this.#isStarted) throw this.#wrongState("call");
  }

  /** Starts vCPU 0. Resolves when the guest is ready, or has ended otherwise. */
  start(): Promise<void> {
    const slot = this.liveSlot("start");
    if (this.#isStarted) throw this.#wrongState("start");
    this.#isStarted = true;
    const { hypervisor } = this.#parts.context;
    const index = hypervisor.vcpus.index(slot, 0);
    initialiseVcpu(hypervisor, index, { entry: 0, stack: 0, argument: this.#parts.startInfo });
    bringUp(hypervisor, index);
    takeStartRequest(hypervisor, index);
    this.#vcpus.start(0, this.#firstEntry());
    unpauseDomain(hypervisor, slot);
    return this.#ready.promise;
  }

  /** Starts a further vCPU that the guest asked for. */
  startVcpu(vcpu: number): void {
    if (!this.isAlive || this.#exit !== undefined) return;
    const { hypervisor, hostTable } = this.#parts.context;
    const { vcpus } = hypervisor;
    const index = vcpus.index(this.#parts.slot, vcpu);
    const argument = vcpus.argument[index]!;
    const isThread = Atomics.load(hostTable.vcpuEntry, index) === VCPU_ENTRY_THREAD;
    const entry: VcpuEntry = isThread
      ? { kind: "thread", argument }
      : { kind: "vcpu", argument, stack: vcpus.stack[index]!, entry: vcpus.entry[index]! };
    this.#vcpus.start(vcpu, entry);
  }

  /** Sends a call to vCPU 0. */
  command(command: CallCommand): void {
    this.#vcpus.post(0, command);
  }

  /** Keeps the process alive for vCPU 0, or no longer. */
  setBusy(isBusy: boolean): void {
    this.#vcpus.setBusy(0, isBusy);
  }

  /** Lets a suspended domain go on. Throws XenolithError `DOMAIN_STATE`. */
  resume(): void {
    const slot = this.liveSlot("unpause");
    if (!this.#isSuspended || resumeDomain(this.#parts.context.hypervisor, slot) !== 0)
      throw this.#wrongState("unpause");
    this.#isSuspended = false;
    this.#parts.context.xenstore.resumed(this.#domid);
    this.setBusy(true);
  }

  /** Sees what the hypervisor says about it. */
  look(): void {
    if (this.#isGone || this.#destruction !== undefined) return;
    const { state } = this;
    if (state === "dying" || state === "dead" || state === "free") {
      // Somebody else destroyed it, with domctl.
      this.destroy().catch((error: unknown) =>
        this.#parts.context.noteFault(`destruction of domain ${this.#domid}: ${String(error)}`),
      );
    } else if (state === "shutdown" && this.#exit === undefined) {
      this.#noteShutdown();
    }
  }

  /** Figures now, or at the end. */
  stats(): DomainStats {
    if (this.state !== "free" && this.state !== "dead") {
      this.#lastStats = readStats(this.#parts.context, this.#parts.slot, this.#vcpus.cpuNs());
    }
    return this.#lastStats;
  }

  /** Destroys it, once. */
  destroy(): Promise<void> {
    this.#destruction ??= this.#destroyNow();
    return this.#destruction;
  }

  async #destroyNow(): Promise<void> {
    const { context, slot, space, descriptors, onDestroyed } = this.#parts;
    if (this.#exit === undefined) this.#settle(readExit(context.hypervisor, context.hostTable, slot) ?? destroyedExit);
    this.stats();
    await dismantle(context, slot, space, () => this.#stopThreads());
    descriptors.closeAll();
    this.#lastStats = { ...this.#lastStats, pages: 0, vmas: 0 };
    this.#isGone = true;
    onDestroyed();
    this.#tell(() => this.#events.emit("destroyed"));
  }

  async #stopThreads(): Promise<void> {
    await this.#vcpus.stop();
    this.#parts.stdio.finish();
    this.#parts.console.finish();
    await this.#parts.context.xenstore.release(this.#domid);
    this.#parts.context.keys.keyrings.end(this.#parts.slot);
    this.#parts.context.guestSecrets.end(this.#parts.slot);
    this.#parts.context.secrets.release(this.#domid);
  }

  /** Calls listeners in a turn of their own: what one of them throws must not stop the control domain's service. */
  #tell(emit: () => void): void {
    queueMicrotask(emit);
  }

  #noteShutdown(): void {
    const { context, slot } = this.#parts;
    const { shutdownCode } = domainInfo(context.hypervisor, slot);
    if (shutdownCode === SHUTDOWN_suspend) {
      if (this.#isSuspended) return;
      this.#isSuspended = true;
      context.xenstore.ended(this.#domid);
      this.setBusy(false);
      this.#tell(() => this.#events.emit("suspend"));
      return;
    }
    const exit = readExit(context.hypervisor, context.hostTable, slot);
    if (exit === undefined) return;
    context.xenstore.ended(this.#domid);
    this.#settle(exit);
  }

  /** It ended: threads are stopped, whoever waits is told. */
  #settle(exit: DomainExit): void {
    this.#exit = exit;
    const isReactor = this.#parts.image.image.manifest.kind === "reactor";
    if (isReactor && exit.crashed)
      this.#ready.reject(
        new XenolithError(
          "DOMAIN_CRASHED",
          `domain ${this.#domid} crashed: ${exit.reason}${exit.where === undefined ? "" : `: ${exit.where}`}`,
        ),
      );
    else this.#ready.resolve();
    this.stats();
    void this.#vcpus.stop().then(() => {
      this.#parts.stdio.finish();
      this.#parts.console.drain();
    });
    this.#resolveExited(exit);
    this.#tell(() => this.#events.emit("exit", exit));
  }

  #receive(vcpu: number, report: Report): void {
    const { kind } = this.#parts.image.image.manifest;
    if (report.type === "returned" || report.type === "refused") this.#onCallReport(report);
    else if (report.type === "started" && vcpu === 0 && kind !== "reactor") this.#ready.resolve();
    else if (report.type === "idle" && vcpu === 0) {
      this.setBusy(false);
      this.#ready.resolve();
    } else if (report.type === "idle") this.#threadEnded(vcpu);
    else if (report.type === "asked") void this.#answer(vcpu, report);
  }

  /** A guest called an offered function: its vCPU sleeps until the answer is there. */
  async #answer(vcpu: number, { offered, values }: Extract<Report, { type: "asked" }>): Promise<void> {
    const entry = this.#parts.offered[offered]!;
    try {
      const value = await answer(entry, values);
      this.#vcpus.post(vcpu, { type: "answer", value });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (this.isAlive)
        crashDomain(
          this.#parts.context.hypervisor,
          this.#parts.slot,
          `${entry.module}.${entry.name} failed: ${reason}`,
        );
      this.look();
    }
  }

  /** A WASI thread returned: its vCPU can be used again. A vCPU of another kind stays where it is. */
  #threadEnded(vcpu: number): void {
    const { hypervisor, hostTable } = this.#parts.context;
    const index = hypervisor.vcpus.index(this.#parts.slot, vcpu);
    this.#vcpus.setBusy(vcpu, false);
    if (Atomics.load(hostTable.vcpuEntry, index) === VCPU_ENTRY_THREAD) retireThread(hypervisor, hostTable, index);
  }

  #firstEntry(): VcpuEntry {
    const { kind } = this.#parts.image.image.manifest;
    return kind === "xen" ? { kind, startInfo: this.#parts.startInfo } : { kind };
  }

  get #domid(): number {
    return this.#vcpus.domid;
  }

  #wrongState(action: string): XenolithError {
    const state = this.#exit === undefined ? this.state : "ended";
    return new XenolithError(
      "DOMAIN_STATE",
      `${action}: domain ${this.#domid} is ${state === "free" ? "gone" : state}`,
    );
  }
}

interface PromiseWithResolvers {
  readonly promise: Promise<void>;
  resolve(): void;
  reject(error: XenolithError): void;
}

const withResolvers = (): PromiseWithResolvers => {
  let resolve: () => void = () => {};
  let reject: (error: XenolithError) => void = () => {};
  const promise = new Promise<void>((resolvePromise, rejectPromise) => {
    resolve = resolvePromise;
    reject = rejectPromise;
  });
  promise.catch(() => {});
  return { promise, resolve, reject };
};
