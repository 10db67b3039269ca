/**
 * The memory manager of a host: keeps its domains between the sizes that they were configured with, by weight and by how
 * short of memory the host is. What it decides is in manager.ts; here are the looks at the host, the targets that it
 * writes, and the requests of administrators. All sizes but the configured ones are read from the hypervisor when they are
 * needed, so nothing that a guest, a device model or another toolstack does can make them wrong.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { XenolithError } from "@xenolith/abi";
import type { Domain, Host } from "@xenolith/host";
import { admit as decide, type MachineState } from "./admission.ts";
import { figuresOf, guestFigures, type GuestFigures, type ManagerFigures } from "./figures.ts";
import { ManagedDomain } from "./managed-domain.ts";
import { type ManagerInput, planMemory } from "./manager.ts";
import { checkMemory, checkSize, FRAME_BYTES, type MemoryConfig } from "./memory-config.ts";
import type { HostReadings, PressureLevel } from "./pressure.ts";
import { hostReadings } from "./readings.ts";
import { Squeezer } from "./squeezer.ts";

const INTERVAL_MS = 1000;
/** Between two looks while guests are on their way; twice as long after each that sees none of them move. */
const BUSY_MS = 5;
const PATIENCE_MS = 5000;
/** What a new domain takes beside its own memory: shared_info, grant tables. 256 KiB. */
const DOMAIN_PAGES = 64;

/** How a manager works. */
export interface MemoryManagerOptions {
  /** Between two looks at the host; 1 s. */
  readonly intervalMs?: number;
  /** How long an admission waits for guests that give nothing back; 5 s. */
  readonly patienceMs?: number;
  /** What the host says about its memory; by default the kernel's pressure, the machine and the control group. */
  readonly readings?: () => HostReadings;
  /** Told of a look that failed; the next one comes all the same. */
  readonly onFault?: (error: unknown) => void;
}

/** Room that is kept for a domain that is about to be created. */
export interface Admitted extends Disposable {
  /** What to set aside for it: `DomainOptions.memoryClaimBytes`. */
  readonly claimBytes: number;
  /** The domain has been created, or will not be. Harmless when repeated. */
  release(): void;
}

/** Keeps the domains of one host between their bounds. */
export class MemoryManager implements AsyncDisposable {
  readonly #host: Host;
  readonly #options: MemoryManagerOptions;
  readonly #read: () => HostReadings;
  readonly #domains = new Map<number, ManagedDomain>();
  readonly #admitted = new Set<{ readonly pages: number }>();
  readonly #squeezer = new Squeezer();
  #level: PressureLevel = "calm";
  #readings: HostReadings;
  #timer: NodeJS.Timeout | undefined;
  #isStarted = false;
  #isClosed = false;
  /** Looks, one after the other. Never rejects. */
  #work: Promise<void> = Promise.resolve();
  /** The last one that has not begun. */
  #waiting: { readonly isThorough: boolean; readonly done: Promise<void> } | undefined;
  #progress = "";
  /** Until the next look. */
  #delayMs = BUSY_MS;
  /** When the host was last looked at. */
  #thoroughMs = Number.NEGATIVE_INFINITY;

  /** Does nothing until something is asked of it; `start` lets it look by itself. */
  constructor(host: Host, options: MemoryManagerOptions = {}) {
    this.#host = host;
    this.#options = options;
    this.#read = options.readings ?? hostReadings();
    this.#readings = this.#read();
  }

  /** Looks at the host from now on. Keeps no process alive. Harmless when repeated. */
  start(): void {
    if (this.#isStarted || this.#isClosed) return;
    this.#isStarted = true;
    this.#schedule(this.#intervalMs);
  }

  /** Looks no more. Domains keep what they have, and nothing is set aside for them. Harmless when repeated. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#work;
    const domains = [...this.#domains.values()];
    this.#domains.clear();
    await Promise.all(domains.map((managed) => managed.close()));
    await this.#squeezer.idle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Makes room for a domain that is about to be created: asks others to give memory back, and waits until they have.
   *
   * @throws XenolithError `MEMORY_EXHAUSTED`: it cannot fit, with the numbers, or others gave back too little;
   * `INVALID_SIZE`, `INVALID_ARGUMENT`, `ABORTED`.
   */
  async admit(
    config: MemoryConfig & { readonly name?: string },
    { signal }: { readonly signal?: AbortSignal } = {},
  ): Promise<Admitted> {
    const { memoryBytes, memoryBytesMin } = checkMemory(config, this.#machineBytes);
    const name = config.name ?? "";
    const size = { name, minPages: memoryBytesMin / FRAME_BYTES, maxPages: memoryBytes / FRAME_BYTES };
    const admission = decide(this.#machine(), size);
    if (!admission.isAdmitted) throw admission.error;
    const room = { pages: admission.claimPages + DOMAIN_PAGES };
    this.#admitted.add(room);
    const release = (): void => void this.#admitted.delete(room);
    try {
      await this.#makeRoom(name, signal);
    } catch (error) {
      release();
      throw error;
    }
    return { claimBytes: admission.claimPages * FRAME_BYTES, release, [Symbol.dispose]: release };
  }

  /**
   * Keeps a domain between its bounds from now on, until it is destroyed. Its `memory` becomes what the hypervisor lets it
   * own. Managing it again changes the bounds.
   *
   * @throws XenolithError `INVALID_SIZE`, `INVALID_ARGUMENT`, `MEMORY_EXHAUSTED`: what it is to be left cannot be set aside,
   * `MEMORY_FROZEN`, `DOMAIN_STATE`, `HOST_CLOSED`.
   */
  async manage(domain: Domain, config: MemoryConfig): Promise<void> {
    const checked = checkMemory(config, this.#machineBytes);
    const store = await this.#host.xenstore();
    const known = this.#domains.get(domain.domid);
    const managed = known?.domain === domain ? known : new ManagedDomain(store, domain, checked);
    managed.config = checked;
    managed.pinnedBytes = undefined;
    limit(managed);
    managed.claimLeast();
    if (managed !== known) this.#adopt(managed);
    await managed.writeMost();
    await this.step();
  }

  /** Leaves a domain alone; it keeps what it has and may own what it may. */
  async unmanage(domain: Domain): Promise<void> {
    const managed = this.#domains.get(domain.domid);
    if (managed?.domain !== domain) return;
    this.#domains.delete(domain.domid);
    await managed.close();
  }

  /**
   * Sets by hand how much a domain is to own: a target for its balloon, and the most that the hypervisor lets it own.
   * `undefined` leaves it to the manager again. Resolves when the target is written.
   *
   * @throws XenolithError `INVALID_SIZE`: no whole frames, or more than its maximum; `DOMAIN_NOT_FOUND`: it is not managed;
   * `MEMORY_FROZEN`, `DOMAIN_STATE`.
   */
  async setTarget(domain: Domain, bytes: number | undefined): Promise<void> {
    const managed = this.#managed(domain);
    const most = managed.config.memoryBytesMax;
    if (bytes !== undefined) checkSize("target", bytes, { least: FRAME_BYTES, most, mostIs: "the maximum is" });
    change(managed, { pinnedBytes: bytes });
    await this.#enqueue(false);
  }

  /**
   * Sets up to which size the target of a domain can be set. What is above it is lowered to it.
   *
   * @throws XenolithError as `setTarget`.
   */
  async setMax(domain: Domain, bytes: number): Promise<void> {
    const managed = this.#managed(domain);
    checkSize("maximum", bytes, { least: FRAME_BYTES, most: this.#machineBytes, mostIs: "the machine has" });
    const { pinnedBytes, config } = managed;
    const memoryBytes = Math.min(config.memoryBytes, bytes);
    const memoryBytesMin = Math.min(config.memoryBytesMin, bytes);
    change(managed, {
      pinnedBytes: pinnedBytes === undefined ? undefined : Math.min(pinnedBytes, bytes),
      config: { ...config, memoryBytes, memoryBytesMin, memoryBytesMax: bytes },
    });
    await managed.writeMost();
    await this.step();
  }

  /** Everything as it is now. */
  figures(): ManagerFigures {
    const { budgetPages } = planMemory(this.#level, this.#input());
    const host = { level: this.#level, readings: this.#readings, budgetBytes: budgetPages * FRAME_BYTES };
    return figuresOf(this.#host, this.#there, host);
  }

  /** One domain as it is now; undefined when it is not managed. */
  figuresOf(domain: Domain): GuestFigures | undefined {
    const managed = this.#domains.get(domain.domid);
    return managed?.domain === domain && domain.state !== "free" ? guestFigures(managed) : undefined;
  }

  /** How short of memory the host was at the last look. */
  get level(): PressureLevel {
    return this.#level;
  }

  /** Looks at the host once, and writes the targets that follow from it. */
  async step(): Promise<void> {
    await this.#enqueue(true);
  }

  get #machineBytes(): number {
    return this.#host.info().memoryBytes;
  }

  get #intervalMs(): number {
    return this.#options.intervalMs ?? INTERVAL_MS;
  }

  /** Those whose rows exist; a domain can go at any moment, and its end is told a little later. */
  get #there(): readonly ManagedDomain[] {
    return [...this.#domains.values()].filter(({ domain }) => domain.state !== "free" && domain.state !== "dead");
  }

  #managed(domain: Domain): ManagedDomain {
    const managed = this.#domains.get(domain.domid);
    if (managed?.domain === domain) return managed;
    throw new XenolithError("DOMAIN_NOT_FOUND", `domain ${domain.domid} is not under the memory manager`);
  }

  #adopt(managed: ManagedDomain): void {
    const { domain } = managed;
    this.#domains.set(domain.domid, managed);
    domain.events.once("destroyed", () => {
      if (this.#domains.get(domain.domid) === managed) this.#domains.delete(domain.domid);
      managed.close().catch((error: unknown) => this.#options.onFault?.(error));
      if (this.#isStarted) this.#schedule(0);
    });
  }

  /** Memory that nobody owns or has claimed; what is admitted comes out of it. */
  #unclaimedPages(): number {
    const { memoryFreeBytes, memoryClaimedBytes } = this.#host.info();
    return (memoryFreeBytes - memoryClaimedBytes) / FRAME_BYTES;
  }

  get #admittedPages(): number {
    return sum([...this.#admitted].map(({ pages }) => pages));
  }

  #machine(): MachineState {
    const { memoryFreeBytes, memoryClaimedBytes } = this.#host.info();
    return {
      freePages: memoryFreeBytes / FRAME_BYTES,
      claimedPages: memoryClaimedBytes / FRAME_BYTES + this.#admittedPages + DOMAIN_PAGES,
      reclaimablePages: sum(this.#there.map(({ reclaimablePages }) => reclaimablePages)),
    };
  }

  #input(): ManagerInput {
    const guests = this.#there.map((managed) => managed.claimant());
    const freePages = this.#unclaimedPages();
    return {
      machinePages: freePages + sum(guests.map(({ currentPages }) => currentPages)),
      freePages,
      claimedPages: this.#admittedPages,
      readings: this.#readings,
      guests,
    };
  }

  async #makeRoom(name: string, signal: AbortSignal | undefined): Promise<void> {
    const { patienceMs = PATIENCE_MS } = this.#options;
    const missing = (): number => this.#admittedPages - this.#unclaimedPages();
    let least = Number.POSITIVE_INFINITY;
    let since = performance.now();
    while (missing() > 0) {
      if (signal?.aborted === true)
        throw new XenolithError("ABORTED", `admission of ${JSON.stringify(name)} was aborted`);
      await this.step();
      const now = missing();
      if (now <= 0) return;
      if (now < least) since = performance.now();
      least = Math.min(least, now);
      if (performance.now() - since > patienceMs)
        throw new XenolithError(
          "MEMORY_EXHAUSTED",
          `no room for domain ${JSON.stringify(name)}: other guests were asked, and ${now * FRAME_BYTES} bytes are still missing`,
        );
      await sleep(BUSY_MS);
    }
  }

  /** A look that has not begun yet sees what all who wait for it have changed. */
  #enqueue(isThorough: boolean): Promise<void> {
    const waiting = this.#waiting;
    if (waiting !== undefined && (waiting.isThorough || !isThorough)) return waiting.done;
    const look = async (): Promise<void> => {
      if (this.#waiting?.done === done) this.#waiting = undefined;
      await this.#look(isThorough);
    };
    const done = this.#work.then(look).catch((error: unknown) => this.#options.onFault?.(error));
    this.#waiting = { isThorough, done };
    this.#work = done;
    return done;
  }

  /** Guests that move, or are moved, all the time do not keep the manager from looking at the host. */
  async #look(isAskedFor: boolean): Promise<void> {
    if (this.#isClosed) return;
    // Timers are a millisecond early now and then.
    const isDue = this.#isStarted && performance.now() - this.#thoroughMs >= this.#intervalMs - 1;
    const isThorough = isAskedFor || isDue;
    const domains = this.#there;
    for (const managed of domains) await this.#guard(() => managed.claimLeast());
    if (isThorough) {
      this.#readings = this.#read();
      this.#thoroughMs = performance.now();
    }
    const { level, targets, wanted } = planMemory(this.#level, this.#input());
    if (isThorough) this.#level = level;
    const tell = async (managed: ManagedDomain): Promise<void> => {
      const { domid } = managed.domain;
      await this.#guard(() => managed.aim(targets.get(domid)!, wanted.get(domid)!, isThorough));
      if (isThorough) await this.#guard(() => managed.look());
    };
    // All at once: each waits for the store, which answers them together.
    await Promise.all(domains.map(tell));
    if (isThorough) this.#squeezer.look(domains, level, (error) => this.#options.onFault?.(error));
    this.#comeBack();
  }

  /** One domain that goes, or whose memory cannot be set aside, is no reason to leave the others alone. */
  async #guard(action: () => Promise<void> | void): Promise<void> {
    try {
      await action();
    } catch (error) {
      if (!(error instanceof XenolithError)) this.#options.onFault?.(error);
    }
  }

  /** While sizes change, the next look comes soon. A guest that does not follow is no reason to look often. */
  #comeBack(): void {
    if (!this.#isStarted) return;
    const progress = this.#there.map((managed) => `${managed.ownPages()}/${managed.targetPages}`).join();
    this.#delayMs = progress === this.#progress ? Math.min(this.#delayMs * 2, this.#intervalMs) : BUSY_MS;
    this.#progress = progress;
    this.#schedule(this.#delayMs);
  }

  #schedule(delayMs: number): void {
    if (this.#isClosed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#enqueue(false), delayMs).unref();
  }
}

/** Changes what was set for a domain, if the hypervisor lets its limit follow; else nothing. */
const change = (managed: ManagedDomain, changes: Partial<Pick<ManagedDomain, "config" | "pinnedBytes">>): void => {
  const { config, pinnedBytes } = managed;
  Object.assign(managed, changes);
  try {
    limit(managed);
  } catch (error) {
    Object.assign(managed, { config, pinnedBytes });
    throw error;
  }
};

/** Lets the hypervisor keep the domain below its ceiling. */
const limit = ({ domain, ceilingBytes }: ManagedDomain): void => {
  const { memoryBytesMax, deviceModelBytes } = domain.memory.figures();
  if (memoryBytesMax - deviceModelBytes !== ceilingBytes) domain.memory.setMax(ceilingBytes);
};

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
