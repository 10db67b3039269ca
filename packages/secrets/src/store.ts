/**
 * The memory of a pool: its chunks, the pages and slots in them, and regions beside them. Who may have how much is
 * `account.ts`; here is what there is at all, and that the last part of it is for the privileged.
 */
import assert from "node:assert/strict";
import { closeDescriptor, PAGE_BYTES } from "@xenolith/sys";
import type { Account } from "./account.ts";
import { Chunk } from "./chunk.ts";
import { adopt, growNow, type GrowthRequest, growSoon, refusalOf } from "./growth.ts";
import { type GrowthPlace, memlockText, type PoolLimits } from "./limits.ts";
import { SecretRefusal } from "./refusal.ts";
import { OpenPages, SlotPage } from "./slots.ts";
import { type Loans, SecretSpace } from "./space.ts";

/** Pages in a row. */
export interface PageRun {
  readonly chunk: Chunk;
  readonly offset: number;
}

/** A region's file and addresses. */
export interface RegionMemory {
  readonly fd: number;
  readonly space: SecretSpace;
}

/** How a store is made. */
export interface StoreOptions {
  readonly limits: PoolLimits;
  readonly hidden: boolean;
  readonly growth: GrowthPlace;
  readonly underPressure: () => boolean;
}

/** See above. For this package. */
export class SecretStore {
  readonly limits: PoolLimits;
  /** Whether the kernel itself cannot read the pages. */
  readonly hidden: boolean;
  readonly loans: Loans = { count: 0 };
  readonly #growth: GrowthPlace;
  readonly #underPressure: () => boolean;
  readonly #chunks: (Chunk | undefined)[];
  #chunkCount = 0;
  readonly #open = new OpenPages();
  /** The chunk that is being made in the background. */
  #growing: { readonly index: number; readonly done: Promise<void> } | undefined;
  #isReplenishing = false;
  #isClosed = false;
  #freePages = 0;
  regionBytes = 0;
  /** Further places where regions are mapped, in bytes: each counts against RLIMIT_MEMLOCK again. */
  mappedBytes = 0;
  growths = 0;
  shrinks = 0;
  lastGrowthMs = 0;
  lockedHighBytes = 0;

  constructor({ limits, hidden, growth, underPressure }: StoreOptions) {
    this.limits = limits;
    this.hidden = hidden;
    this.#growth = growth;
    this.#underPressure = underPressure;
    this.#chunks = Array.from({ length: limits.chunkCountMax });
  }

  get chunkCount(): number {
    return this.#chunkCount;
  }

  get freePages(): number {
    return this.#freePages;
  }

  /** What counts against RLIMIT_MEMLOCK. */
  get lockedBytes(): number {
    const growing = this.#growing === undefined ? 0 : 1;
    return (this.chunkCount + growing) * this.limits.chunkBytes + this.regionBytes + this.mappedBytes;
  }

  /** The chunk with this number. */
  chunk(index: number): Chunk | undefined {
    return this.#chunks[index];
  }

  /** A page with a free slot of this class. */
  pageFor(account: Account, slotClass: number): SlotPage | SecretRefusal {
    const isAllowed = account.isChunkBound ? (chunk: Chunk): boolean => account.mayUse(chunk.index) : undefined;
    const open = this.#open.find(slotClass, isAllowed);
    if (open !== undefined) return open;
    const run = this.runFor(account, 1);
    if (run instanceof SecretRefusal) return run;
    const page = new SlotPage(run.chunk, run.offset, slotClass);
    run.chunk.slotPages[run.offset / PAGE_BYTES] = page;
    this.#open.add(page);
    return page;
  }

  /** Takes a slot of a page that `pageFor` gave. */
  takeSlot(page: SlotPage): number {
    const offset = page.take();
    if (page.isFull) this.#open.remove(page);
    return offset;
  }

  /** Gives a slot back that has been wiped. One empty page of each class stays, so that it is not made each time. */
  giveSlot(page: SlotPage, offset: number): void {
    if (page.isFull) this.#open.add(page);
    page.give(offset);
    if (page.isEmpty && !this.#open.isOnly(page)) this.#dropPage(page);
  }

  /** Takes pages in a row, growing when there are none. */
  runFor(account: Account, count: number): PageRun | SecretRefusal {
    if (!account.privileged && this.#available() - count < this.limits.reservePages) {
      return this.#ceilingRefusal(count, "beyond the reserve");
    }
    const found = this.#takeRun(account, count) ?? this.#growFor(account, count);
    this.#replenishSoon();
    return found;
  }

  givePages({ chunk, offset }: PageRun, count: number): void {
    chunk.givePages(offset, count);
    this.#freePages += count;
  }

  /** Makes a region of its own file. */
  takeRegion(account: Account, lengthBytes: number): RegionMemory | SecretRefusal {
    return this.#placeRegion(account, lengthBytes, (request) => this.#timed(() => growNow(request)));
  }

  /** As `takeRegion`; the program goes on while a helper works. What it will have is counted meanwhile. */
  async takeRegionSoon(account: Account, lengthBytes: number): Promise<RegionMemory | SecretRefusal> {
    const refusal = this.#roomRefusal(account, lengthBytes, "for a region");
    if (refusal !== undefined) return refusal;
    const request = this.#request(lengthBytes);
    if (request instanceof SecretRefusal) return request;
    this.regionBytes += lengthBytes;
    const began = performance.now();
    const fd = await growSoon(request);
    if (typeof fd !== "number") {
      this.regionBytes -= lengthBytes;
      return fd;
    }
    this.#noteGrowth(began);
    this.#noteHigh();
    return { fd, space: request.space };
  }

  /** Counts a further mapping of a region, or says why there is no room for it. */
  takeMapping(account: Account, lengthBytes: number): SecretRefusal | undefined {
    const refusal = this.#roomRefusal(account, lengthBytes, "for a mapping");
    if (refusal !== undefined) return refusal;
    this.mappedBytes += lengthBytes;
    this.#noteHigh();
    return undefined;
  }

  /** It is mapped there no more. */
  giveMapping(lengthBytes: number): void {
    this.mappedBytes -= lengthBytes;
  }

  /** Maps a file that somebody else made. */
  adoptRegion(account: Account, fd: number, lengthBytes: number): RegionMemory | SecretRefusal {
    return this.#placeRegion(account, lengthBytes, (request) => adopt(request, fd));
  }

  #placeRegion(
    account: Account,
    lengthBytes: number,
    make: (request: GrowthRequest) => number | SecretRefusal,
  ): RegionMemory | SecretRefusal {
    const refusal = this.#roomRefusal(account, lengthBytes, "for a region");
    if (refusal !== undefined) return refusal;
    const request = this.#request(lengthBytes);
    if (request instanceof SecretRefusal) return request;
    const fd = make(request);
    if (typeof fd !== "number") return fd;
    this.regionBytes += lengthBytes;
    this.#noteHigh();
    return { fd, space: request.space };
  }

  /** Why so much more cannot be locked. */
  #roomRefusal(account: Account, lengthBytes: number, why: string): SecretRefusal | undefined {
    const { ceilingBytes, reservePages } = this.limits;
    const isOver = this.lockedBytes + lengthBytes > ceilingBytes;
    const isReserved = !account.privileged && this.#available(lengthBytes) < reservePages;
    return isOver || isReserved ? this.#ceilingRefusal(lengthBytes / PAGE_BYTES, why) : undefined;
  }

  /** Forgets a region whose pages have been wiped and withdrawn. */
  giveRegion(lengthBytes: number): void {
    this.regionBytes -= lengthBytes;
  }

  /** Adds the first chunk, or says why there is none. */
  growFirst(): SecretRefusal | undefined {
    const chunk = this.#growChunk();
    return chunk instanceof SecretRefusal ? chunk : undefined;
  }

  /** Gives chunks without a secret back to the kernel, but for `keep` of them. Returns how many went. */
  shrink(keep: number): number {
    for (const page of this.#open.empty()) this.#dropPage(page);
    const chunks = this.#chunks.filter((chunk) => chunk !== undefined);
    const going = chunks.filter((chunk) => chunk.freePages === chunk.pageCount).slice(keep);
    for (const chunk of going) this.#dropChunk(chunk);
    this.shrinks += going.length;
    return going.length;
  }

  /** Ends everything. Whatever is still there is wiped. */
  close(): void {
    this.#isClosed = true;
    for (const chunk of this.#chunks) if (chunk !== undefined) this.#dropChunk(chunk);
  }

  /** Settles when what grows in the background has grown. */
  async idle(): Promise<void> {
    await this.#growing?.done;
  }

  /** Pages that a privileged owner could have, were `moreBytes` locked beside what is. */
  #available(moreBytes = 0): number {
    const { ceilingBytes, chunkBytes, chunkCountMax } = this.limits;
    const growing = this.#growing === undefined ? 0 : 1;
    const room = Math.floor((ceilingBytes - this.lockedBytes - moreBytes) / chunkBytes);
    const chunks = Math.min(room, chunkCountMax - this.chunkCount - growing) + growing;
    return this.#freePages + chunks * (chunkBytes / PAGE_BYTES);
  }

  #takeRun(account: Account, count: number): PageRun | undefined {
    for (const chunk of this.#chunks) {
      if (chunk === undefined || !account.mayUse(chunk.index)) continue;
      const offset = chunk.takePages(count);
      if (offset === undefined) continue;
      this.#freePages -= count;
      return { chunk, offset };
    }
    return undefined;
  }

  #growFor(account: Account, count: number): PageRun | SecretRefusal {
    if (account.isChunkBound) return account.chunkRefusal();
    const chunk = this.#growChunk();
    if (chunk instanceof SecretRefusal) return chunk;
    return this.#takeRun(account, count) ?? this.#ceilingRefusal(count, "in a row");
  }

  #growChunk(): Chunk | SecretRefusal {
    const index = this.#nextIndex();
    if (index === undefined) return this.#ceilingRefusal(this.limits.chunkBytes / PAGE_BYTES, "for a chunk");
    const request = this.#request(this.limits.chunkBytes);
    if (request instanceof SecretRefusal) return request;
    const fd = this.#timed(() => growNow(request));
    return typeof fd === "number" ? this.#addChunk(index, fd, request.space) : fd;
  }

  /** The number of a chunk that may be made; undefined at the ceiling. */
  #nextIndex(): number | undefined {
    if (this.lockedBytes + this.limits.chunkBytes > this.limits.ceilingBytes) return undefined;
    const index = this.#chunks.findIndex((chunk, at) => chunk === undefined && at !== this.#growing?.index);
    return index < 0 ? undefined : index;
  }

  #addChunk(index: number, fd: number, space: SecretSpace): Chunk {
    const chunk = new Chunk(index, fd, space);
    this.#chunks[index] = chunk;
    this.#chunkCount += 1;
    this.#freePages += chunk.pageCount;
    this.#noteHigh();
    return chunk;
  }

  #dropChunk(chunk: Chunk): void {
    chunk.space.bytes.fill(0);
    chunk.space.withdraw();
    assert(closeDescriptor(chunk.fd) === 0);
    this.#freePages -= chunk.freePages;
    this.#chunks[chunk.index] = undefined;
    this.#chunkCount -= 1;
  }

  #dropPage(page: SlotPage): void {
    this.#open.remove(page);
    page.chunk.slotPages[page.offset / PAGE_BYTES] = undefined;
    this.givePages(page, 1);
  }

  /** Adds a chunk in the background when few pages are left, unless memory is short. */
  #replenishSoon(): void {
    const { lowWaterPages } = this.limits;
    if (this.#freePages >= lowWaterPages || this.#isReplenishing || this.#nextIndex() === undefined) return;
    this.#isReplenishing = true;
    setImmediate(() => {
      if (this.#freePages < lowWaterPages && !this.#isClosed && !this.#underPressure()) this.#startGrowing();
      else this.#isReplenishing = false;
    }).unref();
  }

  #startGrowing(): void {
    const index = this.#nextIndex();
    if (index === undefined) {
      this.#isReplenishing = false;
      return;
    }
    const done = this.#growInBackground(index);
    if (this.#isReplenishing) this.#growing = { index, done };
  }

  async #growInBackground(index: number): Promise<void> {
    const began = performance.now();
    const request = this.#request(this.limits.chunkBytes);
    const fd = request instanceof SecretRefusal ? request : await growSoon(request);
    this.#growing = undefined;
    this.#isReplenishing = false;
    // Who needs the chunk and does not get it is told then; nobody has asked yet.
    if (typeof fd !== "number" || request instanceof SecretRefusal) return;
    if (this.#isClosed) {
      request.space.withdraw();
      closeDescriptor(fd);
      return;
    }
    this.#noteGrowth(began);
    this.#addChunk(index, fd, request.space);
  }

  #request(lengthBytes: number): GrowthRequest | SecretRefusal {
    try {
      const space = new SecretSpace(lengthBytes, this.loans);
      return { space, hidden: this.hidden, place: this.#growth, isWanted: () => !this.#isClosed };
    } catch (error) {
      if (!(error instanceof RangeError)) return refusalOf(error);
      return new SecretRefusal("SECRET_MEMORY", `no addresses for ${lengthBytes} bytes: ${error.message}`);
    }
  }

  #timed(grow: () => number | SecretRefusal): number | SecretRefusal {
    const began = performance.now();
    const fd = grow();
    if (typeof fd === "number") this.#noteGrowth(began);
    return fd;
  }

  #noteGrowth(began: number): void {
    this.growths += 1;
    this.lastGrowthMs = performance.now() - began;
  }

  #noteHigh(): void {
    this.lockedHighBytes = Math.max(this.lockedHighBytes, this.lockedBytes);
  }

  #ceilingRefusal(pages: number, why: string): SecretRefusal {
    const { ceilingBytes, ceilingFrom } = this.limits;
    const figures = `${this.lockedBytes} of ${ceilingBytes} bytes are in chunks and regions, and ${this.#freePages} pages free`;
    const text = `no ${pages} pages ${why}: ${figures}`;
    if (ceilingFrom === "memlock") return new SecretRefusal("SECRET_MEMLOCK", `${text} (${memlockText()})`);
    return new SecretRefusal("SECRET_CEILING", text);
  }
}
