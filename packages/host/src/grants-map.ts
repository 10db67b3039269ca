/**
 * Pages of another domain that the control domain has mapped: the counterpart of gntdev for dom0. They stand in its
 * window, in the DMA view of its devices, or in both. Made by `HostGrants.map`.
 *
 * Nothing here ever faults. When the other domain takes a revokable page back, a page of the control domain's own stands
 * in its place, in both views; when the other domain dies, plain pages stay until they are unmapped.
 */
import { EventEmitter } from "node:events";
import { GNTST_okay, XenolithError } from "@xenolith/abi";
import {
  BATCH_MAX,
  DOM0_SLOT,
  dropMapping,
  type Hypervisor,
  MAPPING_SEVERED,
  UnmapBatch,
  unmapBatch,
} from "@xenolith/core";
import { type EndNotice, revokableRefusal, type TakenNotice, takeNotice } from "./grants-notify.ts";
import { statusName } from "./grants-status.ts";
import type { HostContext } from "./host-context.ts";
import { FRAME_BYTES } from "./mmu.ts";

/** What mapped pages tell their listeners. */
export interface MappedGrantsEventMap {
  /** The other domain took the page with this index back. */
  revoked: [index: number];
  /** The other domain is gone. Pages that were not revokable stay as they are until `unmap`, and so does its number. */
  orphaned: [];
}

/** Where runs of pages stand; -1: not there. */
export interface MappedPlace {
  readonly gfn: number;
  readonly deviceGfn: number;
}

/** What mapped pages are made of. Not for users of the library. */
export interface MappedGrantsParts {
  readonly context: HostContext;
  /** The domain whose pages they are, and which of all that ever have its number. */
  readonly domid: number;
  readonly generation: number;
  readonly refs: readonly number[];
  /** The mapping of each page. */
  readonly handles: readonly number[];
  readonly place: MappedPlace;
  readonly isReadOnly: boolean;
  readonly isRevokable: boolean;
  readonly onUnmapped: (grants: MappedGrants) => void;
}

/** Kept and used again: an operation of this thread fills and empties it. */
const batch = new UnmapBatch();

/** Pages of one domain. */
export class MappedGrants implements Disposable {
  /** The domain whose pages they are. */
  readonly domid: number;
  /** Its references, in the order of the pages. */
  readonly refs: readonly number[];
  /**
   * The pages, in the control domain's window; empty when they are mapped for devices only. It can be used for ever:
   * after `unmap` it shows zeros. What is written to read-only pages stays in this view.
   */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  /** Where devices find them: the bus address of the first page; undefined: not mapped for devices. */
  readonly deviceAddress: number | undefined;
  /** What devices see there. */
  readonly deviceBytes: Uint8Array<SharedArrayBuffer> | undefined;
  readonly isReadOnly: boolean;
  readonly isRevokable: boolean;
  /** Tells of `revoked` and `orphaned`. */
  readonly events = new EventEmitter<MappedGrantsEventMap>();
  readonly #parts: MappedGrantsParts;
  /** Mappings that there still are, by page. */
  readonly #handles: Map<number, number>;
  readonly #revoked = new Set<number>();
  #notice: TakenNotice | undefined;
  #isOrphaned = false;

  /** Only `HostGrants` makes them. */
  constructor(parts: MappedGrantsParts) {
    const { context, refs, place } = parts;
    const lengthBytes = refs.length * FRAME_BYTES;
    const isDevice = place.deviceGfn >= 0;
    this.#parts = parts;
    this.#handles = new Map(parts.handles.entries());
    this.domid = parts.domid;
    this.refs = refs;
    this.bytes = place.gfn >= 0 ? context.window.bytes(place.gfn, lengthBytes) : context.window.bytes(0, 0);
    this.deviceAddress = isDevice ? place.deviceGfn * FRAME_BYTES : undefined;
    this.deviceBytes = isDevice ? context.dmaView.bytes(place.deviceGfn, lengthBytes) : undefined;
    this.isReadOnly = parts.isReadOnly;
    this.isRevokable = parts.isRevokable;
  }

  /** Whether they are mapped. */
  get isMapped(): boolean {
    return this.#handles.size > 0;
  }

  /**
   * Whether the other domain has taken the page with this index back. If not, it may do so the next moment.
   *
   * @throws XenolithError `INVALID_ARGUMENT`.
   */
  isRevoked(index: number): boolean {
    if (!Number.isInteger(index) || index < 0 || index >= this.refs.length) {
      throw new XenolithError("INVALID_ARGUMENT", `page is ${index}, it must be 0 to ${this.refs.length - 1}`);
    }
    if (this.#revoked.has(index)) return true;
    const { maptrack } = this.#parts.context.hypervisor;
    const handle = this.#handles.get(index);
    if (handle === undefined) return false;
    return Atomics.load(maptrack.state, maptrack.row(DOM0_SLOT, handle)) === MAPPING_SEVERED;
  }

  /**
   * From now on, at `unmap` and however else the mapping ends, a byte becomes 0 just before its page is unmapped, and an
   * event goes out when all of them are. Replaces an earlier request.
   *
   * @throws XenolithError `INVALID_ARGUMENT`: the pages are revokable, or read-only and a byte is named, no such byte,
   * the port is not connected, or nothing is mapped any more.
   */
  unmapNotify(notice: EndNotice): void {
    if (this.isRevokable) throw revokableRefusal();
    if (!this.isMapped) throw new XenolithError("INVALID_ARGUMENT", "the pages are not mapped any more");
    const { context, handles } = this.#parts;
    const parts = { hypervisor: context.hypervisor, targets: handles, isRef: false, before: this.#notice };
    this.#notice = takeNotice(parts, notice);
  }

  /**
   * Unmaps all of them. Harmless when repeated, and for pages that were taken back.
   *
   * @throws XenolithError `HYPERCALL_FAILED` when the kernel refuses; the pages that are left can be unmapped later.
   */
  unmap(): void {
    if (!this.isMapped) return;
    for (const index of this.#handles.keys()) if (this.isRevoked(index)) this.#revoked.add(index);
    const failed = unmapAll(this.#parts.context.hypervisor, this.#order(), this.#handles, this.#parts.place);
    if (failed !== undefined) {
      throw new XenolithError(
        "HYPERCALL_FAILED",
        `reference ${this.refs[failed.index]} of domain ${this.domid} cannot be unmapped: ${statusName(failed.status)}`,
      );
    }
    const { context, place, refs } = this.#parts;
    givePlace(context, place, refs.length);
    this.#parts.onUnmapped(this);
  }

  [Symbol.dispose](): void {
    this.unmap();
  }

  /** Pages were taken back, or a domain is gone: perhaps this one's. For `HostGrants`. */
  look(): void {
    if (this.isRevokable) {
      for (const index of this.#handles.keys()) {
        if (this.#revoked.has(index) || !this.isRevoked(index)) continue;
        this.#revoked.add(index);
        this.#tell("revoked", index);
      }
    }
    if (this.#isOrphaned || this.#isThere()) return;
    this.#isOrphaned = true;
    this.#tell("orphaned");
  }

  /** Whether the domain whose pages they are is alive. */
  #isThere(): boolean {
    const { context, domid, generation } = this.#parts;
    const { domains } = context.hypervisor;
    const slot = domains.slotOf(domid);
    const isSame = slot >= 0 && domains.generation[slot] === generation;
    return isSame && !["dying", "dead"].includes(domains.stateOf(slot));
  }

  /** Indices in the order in which they are unmapped: the page with the notification last, so that its event is. */
  #order(): number[] {
    const last = this.#notice?.index;
    const indices = [...this.#handles.keys()].filter((index) => index !== last);
    return last === undefined || !this.#handles.has(last) ? indices : [...indices, last];
  }

  /** Calls listeners in a turn of their own: what one of them throws must not stop what is being done. */
  #tell<Event extends keyof MappedGrantsEventMap>(event: Event, ...values: MappedGrantsEventMap[Event]): void {
    const emitter: EventEmitter = this.events;
    queueMicrotask(() => emitter.emit(event, ...values));
  }
}

/** Gives addresses back at which nothing stands any more. */
export const givePlace = ({ window, dmaView }: HostContext, place: MappedPlace, count: number): void => {
  if (place.gfn >= 0) window.give(place.gfn, count);
  if (place.deviceGfn >= 0) dmaView.give(place.deviceGfn, count);
};

/**
 * Unmaps the pages `order` of those that stand at `place`, and takes their mappings out of `handles`. What the page table
 * refuses at first may work in another order, or at the expense of the reserve. Returns a page that is left, and why.
 */
export const unmapAll = (
  hypervisor: Hypervisor,
  order: readonly number[],
  handles: Map<number, number>,
  place: MappedPlace,
): { readonly index: number; readonly status: number } | undefined => {
  let failed: { index: number; status: number } | undefined;
  for (let from = 0; from < order.length; from += BATCH_MAX) {
    const part = order.slice(from, from + BATCH_MAX);
    for (const [at, index] of part.entries()) {
      batch.handle[at] = handles.get(index)!;
      batch.hostLow[at] = place.gfn < 0 ? 0 : (place.gfn + index) * FRAME_BYTES;
      batch.otherLow[at] = place.deviceGfn < 0 ? 0 : (place.deviceGfn + index) * FRAME_BYTES;
      batch.hostHigh[at] = 0;
      batch.otherHigh[at] = 0;
    }
    batch.isReplace = false;
    unmapBatch(hypervisor, DOM0_SLOT, batch, part.length);
    for (const [at, index] of part.entries()) {
      let status = batch.status[at]!;
      if (status !== GNTST_okay) status = dropMapping(hypervisor, DOM0_SLOT, handles.get(index)!, true);
      if (status === GNTST_okay) handles.delete(index);
      else failed ??= { index, status };
    }
  }
  return failed;
};
