/**
 * A domain, as the control domain's program handles it. Created by `Host.createDomain`.
 */
import { EventEmitter } from "node:events";
import { setImmediate as nextTurn, setTimeout as delay } from "node:timers/promises";
import { errnoName, SHUTDOWN_poweroff, XenolithError } from "@xenolith/abi";
import {
  crashDomain,
  domainQuiet,
  type DomainState,
  GuestMemory,
  pauseDomain,
  shutdownDomain,
  unpauseDomain,
} from "@xenolith/core";
import type { ImageKind } from "@xenolith/loader";
import { type ActionOptions, bounded, checkBounds } from "./action.ts";
import { type CallResult, DomainCalls } from "./domain-calls.ts";
import type { ConsoleStream } from "./console-stream.ts";
import type { DomainExit } from "./domain-exit.ts";
import { DomainKeys } from "./keys/domain-keys.ts";
import { DomainLife } from "./domain-life.ts";
import { DomainMemory } from "./domain-memory.ts";
import { FRAME_BYTES } from "./mmu.ts";
import type { DomainParts } from "./domain-parts.ts";
import type { DomainStats } from "./domain-stats.ts";
import { InterruptSource } from "./interrupt-source.ts";
import type { GuestValue } from "./protocol.ts";
import type { GuestOutput, InputStream } from "./stdio.ts";
import { dropZeroFrames, isAtRest, SQUEEZE_LOOKS, SQUEEZE_SLICE_FRAMES } from "./zero-pages.ts";

/** What a domain tells its listeners. */
export interface DomainEventMap {
  /** It ended: see `Domain.exited`. */
  exit: [exit: DomainExit];
  /** It suspended itself, and can be unpaused again. */
  suspend: [];
  /** Nothing of it is left. */
  destroyed: [];
}

/** One guest. */
export class Domain implements AsyncDisposable {
  /** Its number; not given to another domain while anything names it. */
  readonly domid: number;
  /** Serial of its creation: with `domid` an identity that is never used again. */
  readonly generation: number;
  readonly name: string;
  /** Tells of `exit`, `suspend` and `destroyed`. */
  readonly events = new EventEmitter<DomainEventMap>();
  readonly #parts: DomainParts;
  readonly #memory: GuestMemory;
  readonly #life: DomainLife;
  readonly #calls: DomainCalls;
  readonly #limits: DomainMemory;
  readonly #keys: DomainKeys;
  #isInitialised = false;

  /** Only `Host` makes domains. */
  constructor(parts: DomainParts) {
    const { domains } = parts.context.hypervisor;
    this.#parts = parts;
    this.domid = domains.domid[parts.slot]!;
    this.generation = domains.generation[parts.slot]!;
    this.name = parts.name;
    this.#memory = new GuestMemory(parts.context.hypervisor, parts.slot);
    this.#life = new DomainLife(parts, this.events, (report) => this.#settle(report));
    this.#limits = new DomainMemory(parts.context.hypervisor, this);
    this.#calls = new DomainCalls(parts.image.image.manifest, (command) => this.#life.command(command));
    this.#keys = new DomainKeys(async () => {
      const { keys } = parts.context;
      const service = await keys.service();
      return { service, keyrings: keys.keyrings.of(this.#life.liveSlot("keys"), service) };
    });
    this.events.on("exit", (exit) => this.#endCalls(exit));
  }

  /** How its image runs: told from what it exports. */
  get kind(): ImageKind {
    return this.#parts.image.image.manifest.kind;
  }

  /** Whether its image exports a function of this name. */
  exportsFunction(name: string): boolean {
    return this.#calls.has(name);
  }

  /** Its state; `free` once it is gone. */
  get state(): DomainState {
    return this.#life.state;
  }

  /** How it ended, when it has. Never rejects. */
  get exited(): Promise<DomainExit> {
    return this.#life.exited;
  }

  /** What it prints with console_io and into its console ring; `write` types to a guest that has one. */
  get console(): AsyncIterable<string> & Pick<ConsoleStream, "text" | "write"> {
    return this.#parts.console;
  }

  /** What it writes to its standard output, if that is piped. */
  get stdout(): GuestOutput {
    return this.#parts.stdio.stdout;
  }

  /** What it writes to its standard error, if that is piped. */
  get stderr(): GuestOutput {
    return this.#parts.stdio.stderr;
  }

  /** Its standard input, if that is piped. */
  get stdin(): Pick<InputStream, "end" | "write"> {
    return this.#parts.stdio.stdin;
  }

  /** What it uses now; after its end, what it used. */
  stats(): DomainStats {
    return this.#life.stats();
  }

  /**
   * Lets it run for the first time. Resolves when its program has begun, or for a reactor when it is initialised.
   *
   * @throws XenolithError `DOMAIN_STATE`, `DOMAIN_CRASHED` (a reactor, while it was initialised), `TIMEOUT`, `ABORTED`.
   */
  async start(options?: ActionOptions): Promise<void> {
    checkBounds("start", options);
    await bounded(`start of ${this.#text}`, this.#life.start(), options, () => this.#crash("start was given up"));
    this.#isInitialised = true;
  }

  /**
   * Stops its vCPUs at their next hypercall, and in loops if it was created with `preemptible`; one that computes without
   * a hypercall goes on otherwise. Pauses nest. Resolves when no vCPU is
   * inside the hypervisor.
   *
   * @throws XenolithError `DOMAIN_STATE`, `TIMEOUT`, `ABORTED`; it stays paused when the wait is given up.
   */
  async pause(options?: ActionOptions): Promise<void> {
    checkBounds("pause", options);
    this.#check("pause", pauseDomain(this.#hypervisor, this.#liveSlot("pause")));
    await bounded(`pause of ${this.#text}`, this.#quiet(), options);
  }

  /**
   * Takes back one pause, or the end of a suspension.
   *
   * @throws XenolithError `DOMAIN_STATE`.
   */
  unpause(): void {
    const slot = this.#liveSlot("unpause");
    if (this.state === "shutdown") this.#life.resume();
    else this.#check("unpause", unpauseDomain(this.#hypervisor, slot));
  }

  /**
   * Ends it with a SHUTDOWN_* code (power-off by default): its vCPUs stop, its memory stays until `destroy`.
   *
   * @throws XenolithError `DOMAIN_STATE`, `TIMEOUT`, `ABORTED`.
   */
  async shutdown(code: number = SHUTDOWN_poweroff, options?: ActionOptions): Promise<DomainExit> {
    checkBounds("shutdown", options);
    shutdownDomain(this.#hypervisor, this.#liveSlot("shutdown"), code);
    this.#life.look();
    return bounded(`shutdown of ${this.#text}`, this.exited, options);
  }

  /**
   * Takes everything from it: threads, memory, files, its number. Harmless at any time and when repeated.
   *
   * @throws XenolithError `TIMEOUT`, `ABORTED`; the destruction goes on all the same.
   */
  async destroy(options?: ActionOptions): Promise<void> {
    await bounded(`destruction of ${this.#text}`, this.#life.destroy(), options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }

  /**
   * Calls a function that a reactor exports: integers as number or bigint, floats as number. Returns nothing, a value
   * (bigint for an i64), or the values of a function with several results. Calls run one after the other.
   *
   * @throws XenolithError `EXPORT_NOT_FOUND`, `INVALID_ARGUMENT`, `DOMAIN_STATE`, `DOMAIN_CRASHED`.
   */
  call(name: string, ...values: GuestValue[]): Promise<CallResult> {
    return this.callWith({}, name, ...values);
  }

  /**
   * As `call`, bounded. A function that runs cannot be taken back: giving up a call that has begun crashes the domain.
   *
   * @throws XenolithError as `call`, `TIMEOUT`, `ABORTED`.
   */
  async callWith(options: ActionOptions, name: string, ...values: GuestValue[]): Promise<CallResult> {
    checkBounds(`call of ${name}`, options);
    this.#life.requireReactor();
    const result = this.#calls.call(name, values);
    this.#life.setBusy(true);
    return bounded(`call of ${JSON.stringify(name)} in ${this.#text}`, result, options, () =>
      this.#crash(`call of ${JSON.stringify(name)} was given up`),
    );
  }

  /**
   * Copies bytes out of its memory.
   *
   * @throws XenolithError `GUEST_ADDRESS` when a part of the range is not populated.
   */
  read(address: number, lengthBytes: number): Uint8Array {
    this.#checkRange(address, lengthBytes);
    const bytes = new Uint8Array(lengthBytes);
    if (this.#memory.copyFromGuest(address, bytes) !== 0) throw this.#notPopulated("read", address, lengthBytes);
    return bytes;
  }

  /**
   * Copies bytes into its memory.
   *
   * @throws XenolithError `GUEST_ADDRESS` when a part of the range is not populated or read-only.
   */
  write(address: number, bytes: Uint8Array): void {
    this.#checkRange(address, bytes.length);
    if (this.#memory.copyToGuest(address, bytes) !== 0) throw this.#notPopulated("write", address, bytes.length);
  }

  /** Keys that it is given. */
  get keys(): DomainKeys {
    return this.#keys;
  }

  /** Its memory limits, and who else may change them. */
  get memory(): DomainMemory {
    return this.#limits;
  }

  /**
   * Changes how much memory it may own, beside what its device models added. What it owns already stays.
   *
   * @throws XenolithError `INVALID_SIZE`, `DOMAIN_STATE`, `MEMORY_FROZEN`.
   */
  setMemoryMax(memoryBytes: number): void {
    this.#limits.setMax(memoryBytes);
  }

  /**
   * Gives the host back the memory of its pages that hold nothing but zeros, for a guest without a balloon. It owns them
   * as before, and sees zeros as before. It is paused for some milliseconds at a time. Resolves to the bytes that were
   * dropped, or to undefined when it cannot be told that none of its vCPUs computes.
   *
   * @throws XenolithError `DOMAIN_STATE`.
   */
  async dropZeroPages(): Promise<number | undefined> {
    const gfnEnd = this.#hypervisor.domains.gfnEnd[this.#liveSlot("dropZeroPages")]!;
    let dropped: number | undefined;
    for (let gfn = 0; gfn < gfnEnd; gfn += SQUEEZE_SLICE_FRAMES) {
      const frames = await this.#dropSlice(gfn);
      if (frames === undefined) return dropped;
      dropped = (dropped ?? 0) + frames * FRAME_BYTES;
      // The whole address space would take seconds: everybody else has a turn between two slices.
      await nextTurn();
    }
    return dropped;
  }

  /**
   * Gives it a physical interrupt that host code raises.
   *
   * @throws XenolithError `INVALID_ARGUMENT`, `DOMAIN_STATE`, `HYPERCALL_FAILED`.
   */
  interrupt(irq: number): InterruptSource {
    return new InterruptSource(this.#parts.context, this.#liveSlot("interrupt"), irq);
  }

  /** Looks at what happened to it. For the host's attention loop. */
  attend(): void {
    this.#parts.stdio.poke();
    this.#parts.console.poke();
    this.#life.look();
  }

  /** A guest asked for a thread for vCPU `vcpu`. For the host's attention loop. */
  startVcpu(vcpu: number): void {
    this.#life.startVcpu(vcpu);
  }

  get #hypervisor(): DomainParts["context"]["hypervisor"] {
    return this.#parts.context.hypervisor;
  }

  /** A reactor whose last call has returned. */
  get #isIdle(): boolean {
    return this.#isInitialised && this.kind === "reactor" && this.#calls.pendingCount === 0;
  }

  get #text(): string {
    return `domain ${this.domid}`;
  }

  /** Drops what is zero in one slice. undefined: the domain ended, or computed each time that it was looked at. */
  async #dropSlice(gfn: number): Promise<number | undefined> {
    const { context, slot } = this.#parts;
    for (let look = 0; look < SQUEEZE_LOOKS && this.#life.isAlive; look += 1) {
      await this.pause();
      try {
        if (this.#life.isAlive && isAtRest(this.#hypervisor, slot, this.#isIdle))
          return dropZeroFrames(this.#hypervisor, context.machine, slot, {
            gfn,
            count: SQUEEZE_SLICE_FRAMES,
          });
      } finally {
        // Not `unpause`: that would also resume a domain that has suspended itself meanwhile.
        if (this.#life.isAlive) unpauseDomain(this.#hypervisor, slot);
      }
      // The pause before may have woken it for a moment.
      await delay(1);
    }
    return undefined;
  }

  #liveSlot(action: string): number {
    return this.#life.liveSlot(action);
  }

  #check(operation: string, result: number): void {
    if (result >= 0) return;
    throw new XenolithError("DOMAIN_STATE", `${operation} of ${this.#text} failed: ${errnoName(result) ?? result}`);
  }

  #crash(reason: string): void {
    if (this.#life.isAlive) crashDomain(this.#hypervisor, this.#parts.slot, reason);
    this.#life.look();
  }

  async #quiet(): Promise<void> {
    while (this.#life.isAlive && !domainQuiet(this.#hypervisor, this.#parts.slot)) await nextTurn();
  }

  #settle(report: Parameters<DomainCalls["settle"]>[0]): void {
    this.#calls.settle(report);
    if (this.#calls.pendingCount === 0) this.#life.setBusy(false);
  }

  #endCalls(exit: DomainExit): void {
    const place = exit.where === undefined ? "" : `: ${exit.where}`;
    this.#calls.end((name) =>
      exit.crashed
        ? new XenolithError("DOMAIN_CRASHED", `${this.#text} crashed in ${name}: ${exit.reason}${place}`)
        : new XenolithError("DOMAIN_STATE", `${this.#text} ended before ${name} returned: ${exit.reason}`),
    );
  }

  #checkRange(address: number, lengthBytes: number): void {
    this.#liveSlot("access to memory");
    const isRange =
      Number.isSafeInteger(address) && Number.isSafeInteger(lengthBytes) && address >= 0 && lengthBytes >= 0;
    if (!isRange || address + lengthBytes > 2 ** 32) throw this.#notPopulated("access", address, lengthBytes);
  }

  #notPopulated(action: string, address: number, lengthBytes: number): XenolithError {
    return new XenolithError(
      "GUEST_ADDRESS",
      `cannot ${action} ${lengthBytes} bytes at address ${address} of ${this.#text}: not all of it is memory of the domain`,
    );
  }
}
