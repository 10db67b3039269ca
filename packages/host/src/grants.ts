/**
 * Grants of the control domain: pages that it shares with other domains, pages of theirs that it maps, and copies.
 * Reached as `Host.grants`.
 */
import { GNTMAP_device_map, GNTMAP_host_map, GNTMAP_readonly, GNTST_okay, XenolithError } from "@xenolith/abi";
import {
  BATCH_MAX,
  createMapRequest,
  DOM0_SLOT,
  depopulateRun,
  LOCAL_PROVIDED,
  MapBatch,
  mapBatch,
  mapGrant,
} from "@xenolith/core";
import { copyAll, type GrantCopy } from "./grants-copy.ts";
import { givePlace, MappedGrants, type MappedPlace, unmapAll } from "./grants-map.ts";
import { GrantRefs } from "./grants-refs.ts";
import { GrantedPages } from "./grants-share.ts";
import { statusName } from "./grants-status.ts";
import { populateHoles } from "./guest-heap.ts";
import type { HostContext } from "./host-context.ts";

/** How to share pages. */
export interface GrantShareOptions {
  /** How many; they are zeroed. */
  readonly pages: number;
  /** The other domain may only read them. */
  readonly readOnly?: boolean;
  /** The memory stays when the other domain is gone, until `GrantedPages.end`. By default it goes too. */
  readonly keep?: boolean;
  /** They can be taken back while the other domain uses them. It has to map them as such. */
  readonly revokable?: boolean;
}

/** How to map pages. */
export interface GrantMapOptions {
  readonly readOnly?: boolean;
  /** Needed for grants that were given as revokable, and for these only. */
  readonly revokable?: boolean;
  /** Map them into the DMA view too (true), or nowhere else ("only"). */
  readonly device?: boolean | "only";
}

/** Pages of one call of `HostGrants.map`. */
export const MAP_PAGES_MAX = 65_536;

/** How often pages are looked at that another domain still uses although access to them is ending. */
const RETRY_MS = 1000;
/** Pause before the next look at everything that is mapped, in the time that the last one took. */
const LOOK_PAUSE = 9;
/** Pages looked at in one turn; the others have theirs later. */
const RETRY_PAGES = 4096;

const batch = new MapBatch();
const request = createMapRequest();

/** Grants of the control domain of one host. */
export class HostGrants {
  readonly #context: HostContext;
  readonly #table: GrantRefs;
  readonly #shared = new Set<GrantedPages>();
  readonly #mapped = new Set<MappedGrants>();
  /** Those whose end waits for the other domain, in the order in which they are looked at. */
  readonly #deferred = new Set<GrantedPages>();
  #timer: NodeJS.Timeout | undefined;
  #lookTimer: NodeJS.Timeout | undefined;
  /** How long the last look at everything took. */
  #lookMs = 0;
  #isClosed = false;

  constructor(context: HostContext) {
    this.#context = context;
    this.#table = new GrantRefs(context.hypervisor);
  }

  /** How many shared runs of pages wait for the other domain to let go of them. */
  get deferredCount(): number {
    return this.#deferred.size;
  }

  /**
   * Shares new, zeroed pages of the control domain with the domain called `domid`.
   *
   * @throws XenolithError `INVALID_SIZE`, `DOMAIN_NOT_FOUND`, `GRANT_LIMIT`, `MEMORY_EXHAUSTED`, `HOST_CLOSED`.
   */
  share(domid: number, options: GrantShareOptions): GrantedPages {
    this.#requireOpen();
    const { hypervisor } = this.#context;
    const { pages } = options;
    if (!Number.isInteger(pages) || pages < 1 || pages > hypervisor.geometry.machineFrames) {
      const limit = hypervisor.geometry.machineFrames;
      throw new XenolithError("INVALID_SIZE", `${String(pages)} pages cannot be shared, it must be 1 to ${limit}`);
    }
    const generation = this.#generation(domid);
    this.#retry();
    const refs = this.#table.take(pages);
    const gfn = this.#populate(pages, refs);
    const shared: GrantedPages = new GrantedPages({
      context: this.#context,
      table: this.#table,
      domid,
      generation,
      access: { isReadOnly: options.readOnly === true, isRevokable: options.revokable === true },
      refs,
      gfn,
      isKept: options.keep === true,
      onDeferred: (granted) => this.#defer(granted),
      onEnded: (granted) => {
        this.#shared.delete(granted);
        this.#deferred.delete(granted);
      },
    });
    this.#shared.add(shared);
    return shared;
  }

  /**
   * Maps pages that the domain called `domid` granted to the control domain: all of them or none, in the order of `refs`.
   *
   * @throws XenolithError `INVALID_SIZE`, `INVALID_ARGUMENT`, `HYPERCALL_FAILED` (it names the reference and Xen's
   * status), `MEMORY_EXHAUSTED` (addresses), `HOST_CLOSED`.
   */
  map(domid: number, refs: readonly number[], options: GrantMapOptions = {}): MappedGrants {
    this.#requireOpen();
    checkRefs(domid, refs);
    const context = this.#context;
    const isDevice = options.device === true || options.device === "only";
    const { domains } = context.hypervisor;
    const granter = domains.slotOf(domid);
    const generation = granter < 0 ? 0 : domains.generation[granter]!;
    const place = takePlace(context, refs.length, options.device !== "only", isDevice);
    const handles = new Map<number, number>();
    const failed = this.#mapAll(domid, refs, options, place, handles);
    if (failed !== undefined) {
      const order = [...handles.keys()];
      const left = unmapAll(context.hypervisor, order, handles, place);
      if (left === undefined) givePlace(context, place, refs.length);
      throw new XenolithError(
        "HYPERCALL_FAILED",
        `reference ${refs[failed.index]} of domain ${domid} (${failed.index + 1} of ${refs.length}) cannot be mapped: ` +
          statusName(failed.status),
      );
    }
    const mapped: MappedGrants = new MappedGrants({
      context,
      domid,
      generation,
      refs: [...refs],
      handles: refs.map((_, index) => handles.get(index)!),
      place,
      isReadOnly: options.readOnly === true,
      isRevokable: options.revokable === true,
      onUnmapped: (grants) => void this.#mapped.delete(grants),
    });
    this.#mapped.add(mapped);
    return mapped;
  }

  /**
   * Copies from, to or between granted pages without mapping them. All copies are made in order, also after one that
   * fails.
   *
   * @throws XenolithError `INVALID_ARGUMENT`, `INVALID_SIZE` (nothing was copied), `HYPERCALL_FAILED`: it names the first
   * copy that failed, and Xen's status.
   */
  copy(copies: readonly GrantCopy[]): void {
    const statuses = this.copyEach(copies);
    const index = statuses.findIndex((status) => status !== GNTST_okay);
    if (index < 0) return;
    throw new XenolithError(
      "HYPERCALL_FAILED",
      `copy ${index + 1} of ${copies.length} failed: ${statusName(statuses[index]!)}`,
    );
  }

  /**
   * As `copy`, for callers that look at the status of each (GNTST_*) themselves.
   *
   * @throws XenolithError `INVALID_ARGUMENT`, `INVALID_SIZE` (nothing was copied), `HOST_CLOSED`.
   */
  copyEach(copies: readonly GrantCopy[]): number[] {
    this.#requireOpen();
    return copyAll(this.#context.dom0, copies);
  }

  /** A domain is gone. For the host. */
  look(): void {
    const begin = performance.now();
    for (const mapped of this.#mapped) mapped.look();
    for (const shared of this.#shared) shared.look();
    this.#lookMs = performance.now() - begin;
  }

  /** Pages were taken back. However often that happens, most of the time is left for other things. For the host. */
  lookSoon(): void {
    if (this.#isClosed) return;
    this.#lookTimer ??= setTimeout(() => {
      this.#lookTimer = undefined;
      this.look();
    }, this.#lookMs * LOOK_PAUSE).unref();
  }

  /** Unmaps everything, and ends access to all that is shared. The other domains are gone. For the host. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#lookTimer);
    for (const mapped of this.#mapped) {
      try {
        mapped.unmap();
      } catch (error) {
        // The kernel refuses; it will not when the whole address space goes, which is next.
        this.#context.noteFault(String(error));
      }
    }
    for (const shared of this.#shared) void shared.end();
    this.#retry();
  }

  /** Memory for `refs`, which are given back when there is none. */
  #populate(pages: number, refs: readonly number[]): number {
    const { hypervisor, window } = this.#context;
    let gfn = -1;
    try {
      gfn = window.take(pages);
      if (populateHoles(hypervisor, DOM0_SLOT, gfn, pages) === 0) return gfn;
      throw new XenolithError("MEMORY_EXHAUSTED", `the machine has no ${pages} pages left to share`);
    } catch (error) {
      this.#table.give(refs);
      if (gfn >= 0) {
        depopulateRun(hypervisor, DOM0_SLOT, gfn, pages);
        window.give(gfn, pages);
      }
      throw error;
    }
  }

  /** Maps page by page, or in batches where that is possible. Returns the first that failed; `handles` has the others. */
  #mapAll(
    domid: number,
    refs: readonly number[],
    options: GrantMapOptions,
    place: MappedPlace,
    handles: Map<number, number>,
  ): { index: number; status: number } | undefined {
    const isRevokable = options.revokable === true;
    const flags =
      (place.gfn < 0 ? 0 : GNTMAP_host_map) |
      (place.deviceGfn < 0 ? 0 : GNTMAP_device_map) |
      (options.readOnly === true ? GNTMAP_readonly : 0);
    for (let from = 0; from < refs.length; from += BATCH_MAX) {
      const part = refs.slice(from, from + BATCH_MAX);
      const results = isRevokable ? part.map((ref, at) => this.#mapRevokable(domid, ref, flags, from + at, place)) : [];
      if (!isRevokable) this.#mapBatch(domid, part, flags, from, place);
      for (let at = 0; at < part.length; at += 1) {
        const status = isRevokable ? results[at]!.status : batch.status[at]!;
        const handle = isRevokable ? results[at]!.handle : batch.handle[at]!;
        if (status === GNTST_okay) handles.set(from + at, handle);
      }
      const failed = part.findIndex((_, at) => !handles.has(from + at));
      if (failed >= 0) {
        return { index: from + failed, status: isRevokable ? results[failed]!.status : batch.status[failed]! };
      }
    }
    return undefined;
  }

  #mapBatch(domid: number, refs: readonly number[], flags: number, first: number, place: MappedPlace): void {
    for (const [at, ref] of refs.entries()) {
      batch.granter[at] = domid;
      batch.ref[at] = ref;
      batch.flags[at] = flags;
      batch.gfn[at] = Math.max(0, place.gfn) + first + at;
      batch.deviceGfn[at] = Math.max(0, place.deviceGfn) + first + at;
    }
    mapBatch(this.#context.hypervisor, DOM0_SLOT, batch, refs.length);
  }

  #mapRevokable(
    domid: number,
    ref: number,
    flags: number,
    index: number,
    place: MappedPlace,
  ): { status: number; handle: number } {
    request.granter = domid;
    request.ref = ref;
    request.flags = flags;
    request.gfn = Math.max(0, place.gfn) + index;
    request.deviceGfn = Math.max(0, place.deviceGfn) + index;
    request.isRevokable = true;
    request.lgfn = LOCAL_PROVIDED;
    const status = mapGrant(this.#context.hypervisor, DOM0_SLOT, request);
    return { status, handle: request.handle };
  }

  /** Serial of the domain that has this number now. */
  #generation(domid: number): number {
    const { domains } = this.#context.hypervisor;
    const slot = Number.isInteger(domid) ? domains.slotOf(domid) : -1;
    const isAlive = slot >= 0 && !["dying", "dead"].includes(domains.stateOf(slot));
    if (isAlive) return domains.generation[slot]!;
    throw new XenolithError("DOMAIN_NOT_FOUND", `there is no domain ${domid}`);
  }

  #defer(shared: GrantedPages): void {
    this.#deferred.delete(shared);
    this.#deferred.add(shared);
    if (this.#isClosed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#retry();
    }, RETRY_MS).unref();
  }

  /** Looks again at pages that were in use when access to them was to end; those that still are go to the end. */
  #retry(): void {
    let looked = 0;
    for (const shared of [...this.#deferred]) {
      if (looked >= RETRY_PAGES) break;
      looked += shared.retry();
    }
    if (this.#deferred.size === 0) clearTimeout(this.#timer);
    if (this.#deferred.size === 0) this.#timer = undefined;
  }

  #requireOpen(): void {
    if (this.#isClosed) throw new XenolithError("HOST_CLOSED", "the host is closed");
  }
}

const checkRefs = (domid: number, refs: readonly number[]): void => {
  if (refs.length < 1 || refs.length > MAP_PAGES_MAX) {
    throw new XenolithError("INVALID_SIZE", `${refs.length} references, it must be 1 to ${MAP_PAGES_MAX}`);
  }
  const isRange = (value: number, max: number): boolean => Number.isInteger(value) && value >= 0 && value <= max;
  if (!isRange(domid, 0xffff)) throw new XenolithError("INVALID_ARGUMENT", `domid is ${domid}, it must be 0 to 65535`);
  const wrong = refs.find((ref) => !isRange(ref, 0xffff_ffff));
  if (wrong === undefined) return;
  throw new XenolithError("INVALID_ARGUMENT", `reference is ${wrong}, it must be a whole number below 2^32`);
};

/** Addresses for `count` pages in the views where they are wanted. */
const takePlace = (context: HostContext, count: number, isHost: boolean, isDevice: boolean): MappedPlace => {
  const gfn = isHost ? context.window.take(count) : -1;
  try {
    return { gfn, deviceGfn: isDevice ? context.dmaView.take(count) : -1 };
  } catch (error) {
    if (gfn >= 0) context.window.give(gfn, count);
    throw error;
  }
};
