/**
 * One domain under the memory manager: what was configured for it, and how it is moved. How much it owns, may own and has
 * claimed is the hypervisor's, and read when it is needed.
 */
import type { Domain, MemoryFigures } from "@xenolith/host";
import { domainPath, type XenstoreClient } from "@xenolith/xenstore";
import { type BalloonState, parseTarget } from "../balloon.ts";
import { type DrivenBalloon, driveBalloon } from "../balloon-driver.ts";
import type { ManagedGuest } from "./manager.ts";
import { type CheckedMemory, FRAME_BYTES } from "./memory-config.ts";

const KIB = 1024;
/** A guest without a balloon is expected to grow by a quarter, and by 4 MiB at least. */
const HEADROOM_SHARE = 4;
const HEADROOM_PAGES = 1024;
/** Smaller steps up are not worth a write, unless they are the last: 256 KiB. */
const GROWTH_PAGES = 64;

/** Who changes how much a domain owns: its program as it likes, its library, or the control domain through its exports. */
export type BalloonKind = "guest" | "none" | "reactor";

/** What the store says about a balloon; a guest can write anything there. */
export type ReportedState = BalloonState | "unknown";

/** A domain and its place in the plan. */
export class ManagedDomain {
  readonly domain: Domain;
  readonly balloon: BalloonKind;
  config: CheckedMemory;
  /** Set by hand: it has that, and no more. */
  pinnedBytes: number | undefined;
  /** What it was told last, in pages; before that, it goes up to its maximum. */
  #toldPages: number | undefined;
  reported: ReportedState = "unknown";
  readonly #store: XenstoreClient;
  #driven: Promise<DrivenBalloon> | undefined;
  #isClosed = false;

  constructor(store: XenstoreClient, domain: Domain, config: CheckedMemory) {
    this.#store = store;
    this.domain = domain;
    this.config = config;
    this.balloon = kindOf(domain);
  }

  /** The target that its balloon has, in pages. */
  get targetPages(): number {
    return this.#toldPages ?? this.config.memoryBytesMax / FRAME_BYTES;
  }

  /** The most that it is to have now: what was set by hand, else `memory`. */
  get ceilingBytes(): number {
    return this.pinnedBytes ?? this.config.memoryBytes;
  }

  /** The least: what it is left, unless it was set to less by hand. */
  get leastBytes(): number {
    return Math.min(this.config.memoryBytesMin, this.ceilingBytes);
  }

  /** Whether it can be asked to change, and may change now. */
  get isMovable(): boolean {
    return this.balloon !== "none" && this.#isRunning && !this.domain.memory.figures().isFrozen;
  }

  /** Pages beside those that device models added; what is set aside for it is as good as its own. */
  ownPages({ memoryBytes, claimedBytes, deviceModelBytes }: MemoryFigures = this.domain.memory.figures()): number {
    return Math.max(0, memoryBytes + claimedBytes - deviceModelBytes) / FRAME_BYTES;
  }

  /** As the policies see it. What cannot be moved has what it has, and wants some more if it can grow by itself. */
  claimant(): ManagedGuest {
    const { domid } = this.domain;
    const currentPages = this.ownPages();
    const least = this.leastBytes / FRAME_BYTES;
    const most = Math.max(least, this.ceilingBytes / FRAME_BYTES);
    const plain = { domid, currentPages, targetPages: this.#toldPages, weight: this.config.weight };
    if (this.isMovable) return { ...plain, minPages: least, maxPages: most };
    const held = this.#isRunning ? Math.max(least, currentPages) : currentPages;
    if (this.balloon !== "none" || !this.#isRunning) return { ...plain, minPages: held, maxPages: held };
    const demandPages = currentPages + Math.max(HEADROOM_PAGES, Math.ceil(currentPages / HEADROOM_SHARE));
    return { ...plain, minPages: held, maxPages: Math.max(held, most), demandPages };
  }

  /** What it could give back, in pages. */
  get reclaimablePages(): number {
    return this.isMovable ? Math.max(0, this.ownPages() - this.leastBytes / FRAME_BYTES) : 0;
  }

  /** Renews what is set aside for it. Throws XenolithError `MEMORY_EXHAUSTED`, `DOMAIN_STATE`. */
  claimLeast(): void {
    const { memoryBytesMax } = this.domain.memory.figures();
    this.domain.memory.setClaim(this.#isRunning ? Math.min(this.leastBytes, memoryBytesMax) : 0);
  }

  /**
   * Tells the balloon its target, on the way to `wantedPages`. A small step up waits until it is a larger one. `isThorough`:
   * also when it was told already and somebody else wrote something else there since.
   */
  async aim(pages: number, wantedPages: number, isThorough: boolean): Promise<void> {
    if (!this.isMovable) return;
    const more = pages - this.targetPages;
    const isSmall = more > 0 && more < GROWTH_PAGES && pages !== wantedPages;
    const next = isSmall ? this.targetPages : pages;
    const isTold = next === this.targetPages;
    if (!isThorough && isTold) return;
    const kib = (next * FRAME_BYTES + this.domain.memory.figures().deviceModelBytes) / KIB;
    this.#toldPages = next;
    if (this.balloon === "reactor") await this.#drive();
    if (isTold && (await this.#standingKib()) === kib) return;
    if (!this.#isClosed && this.isMovable) await this.#store.write(this.#path("memory/target"), String(kib));
  }

  async #standingKib(): Promise<number | undefined> {
    return parseTarget((await this.#store.readIfPresent(this.#path("memory/target"))) ?? "");
  }

  /** Puts the most that it can ever have in the store. */
  async writeMost(): Promise<void> {
    const { memoryBytesMax } = this.config;
    await this.#store.write(this.#path("memory/static-max"), String(memoryBytesMax / KIB));
  }

  /** Looks at what its balloon says about itself. Nothing depends on it but what is shown. */
  async look(): Promise<void> {
    if (this.balloon === "none") return;
    const number = async (name: string): Promise<number | undefined> =>
      parseTarget((await this.#store.readIfPresent(this.#path(`data/balloon/${name}`))) ?? "");
    const [retries, most] = await Promise.all([number("retry_count"), number("max_retry_count")]);
    if (retries === undefined) this.reported = "unknown";
    else if (retries > 1) this.reported = "again";
    else this.reported = (most ?? 0) > 0 && this.ownPages() !== this.targetPages ? "canceled" : "done";
  }

  /** Moves it no more; it keeps what it has, and nothing is set aside for it. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.domain.state !== "free" && this.domain.state !== "dying" && this.domain.state !== "dead")
      this.domain.memory.setClaim(0);
    await (await this.#driven?.catch(() => undefined))?.stop();
  }

  get #isRunning(): boolean {
    return this.domain.state === "running" || this.domain.state === "paused" || this.domain.state === "building";
  }

  #path(name: string): string {
    return `${domainPath(this.domain.domid)}/${name}`;
  }

  /** A reactor can be called once it was started; until then it has the pages of its image only. */
  async #drive(): Promise<void> {
    if (this.domain.state === "running") this.#driven ??= driveBalloon(this.#store, this.domain);
    await this.#driven;
  }
}

const kindOf = (domain: Domain): BalloonKind => {
  if (domain.kind === "xen") return "guest";
  const isDriven = domain.exportsFunction("xen_balloon_up") && domain.exportsFunction("xen_balloon_down");
  return domain.kind === "reactor" && isDriven ? "reactor" : "none";
};
