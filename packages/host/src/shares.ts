/**
 * All shares of a host: how they are made, and who hears of the end of a domain.
 */
import { XenolithError } from "@xenolith/abi";
import { depopulateRun, DOM0_SLOT, type Hypervisor, mapExtent, unmapExtent } from "@xenolith/core";
import type { Domain } from "./domain.ts";
import { populateHoles } from "./guest-heap.ts";
import type { HostContext } from "./host-context.ts";
import { SPACE_BYTES } from "./machine.ts";
import { FRAME_BYTES } from "./mmu.ts";
import { PLACE_END_GFN, Share } from "./share.ts";
import { checkAddress, createPieces, type Piece, refusal } from "./share-pieces.ts";

/** Most bytes of one share: what is left of a guest's address space when a page above and below is spared. */
const SHARE_BYTES_MAX = SPACE_BYTES - 2 ** 28;

/** p2m entries of one page, and for how many a domain is prepared. */
const ENTRIES_PER_PAGE = FRAME_BYTES / Uint32Array.BYTES_PER_ELEMENT;
const PREPARED_FRAMES_MAX = 64 * ENTRIES_PER_PAGE;

/** What the memory of a share can be made from. */
export type ShareSource = number | ArrayBufferLike | ArrayBufferView;

/** The shares of one host. */
export class Shares {
  readonly #context: HostContext;
  readonly #domains: ReadonlyMap<number, Domain>;
  readonly #open = new Set<Share>();
  readonly #places = new WeakMap<Domain, number>();

  /** `domains` are those that exist, by slot. */
  constructor(context: HostContext, domains: ReadonlyMap<number, Domain>) {
    this.#context = context;
    this.#domains = domains;
  }

  /** See `Host.share`. */
  create(source: ShareSource): Share {
    const lengthBytes = typeof source === "number" ? source : source.byteLength;
    const count = this.#framesOf(lengthBytes);
    const { hypervisor, window } = this.#context;
    const gfn = window.take(count);
    if (populateHoles(hypervisor, DOM0_SLOT, gfn, count) !== 0) {
      window.give(gfn, count);
      throw new XenolithError("MEMORY_EXHAUSTED", `the machine has no ${lengthBytes} bytes left for a share`);
    }
    const bytes = window.bytes(gfn, lengthBytes);
    if (typeof source !== "number") bytes.set(bytesOf(source));
    const release = (): void => {
      depopulateRun(hypervisor, DOM0_SLOT, gfn, count);
      window.give(gfn, count);
    };
    try {
      return this.#add({ lengthBytes, bytes, pieces: createPieces(hypervisor, DOM0_SLOT, gfn, count), release });
    } catch (error) {
      release();
      throw error;
    }
  }

  /** See `Host.shareFrom`. */
  createFrom(domain: Domain, address: number, lengthBytes: number): Share {
    const slot = this.#slotOf(domain);
    if (slot < 0) throw new XenolithError("DOMAIN_STATE", `domain ${domain.domid} is not a living domain of this host`);
    const count = this.#framesOf(lengthBytes);
    if (lengthBytes % FRAME_BYTES !== 0) {
      throw new XenolithError(
        "INVALID_SIZE",
        `a share of guest memory is ${lengthBytes} bytes, it must be whole pages`,
      );
    }
    const { hypervisor, window } = this.#context;
    const pieces = createPieces(hypervisor, slot, checkAddress(address, lengthBytes), count);
    const gfn = window.take(count);
    const names: number[] = [];
    const release = (): void => {
      for (const name of names) unmapExtent(hypervisor, name);
      window.give(gfn, count);
    };
    const share = this.#add({ lengthBytes, bytes: window.bytes(gfn, lengthBytes), pieces, release });
    const failed = mapOwn(hypervisor, pieces, gfn, names);
    if (failed === 0) return share;
    share.close();
    throw refusal(failed, DOM0_SLOT, lengthBytes, gfn * FRAME_BYTES);
  }

  /**
   * Makes the pages of the domain's p2m present in which the next share will stand: to map 64 MiB takes less time than
   * the kernel takes for them. Nothing is done while nobody uses shares.
   */
  prepare(domain: Domain): void {
    let longest = 0;
    for (const share of this.#open) if (!share.closed) longest = Math.max(longest, share.lengthBytes);
    const slot = this.#slotOf(domain);
    if (longest === 0 || slot < 0) return;
    const { p2m } = this.#context.hypervisor;
    const end = this.#places.get(domain) ?? PLACE_END_GFN;
    const begin = Math.max(0, end - Math.min(Math.ceil(longest / FRAME_BYTES) + 1, PREPARED_FRAMES_MAX));
    for (let gfn = begin; gfn < end; gfn += ENTRIES_PER_PAGE) Atomics.or(p2m.entries, p2m.at(slot, gfn), 0);
    Atomics.or(p2m.entries, p2m.at(slot, end - 1), 0);
  }

  /** A domain is gone. */
  look(): void {
    for (const share of this.#open) share.look();
  }

  /** Closes all of them. */
  close(): void {
    for (const share of this.#open) share.close();
  }

  #add(parts: {
    lengthBytes: number;
    bytes: Uint8Array<SharedArrayBuffer>;
    pieces: readonly Piece[];
    release: () => void;
  }): Share {
    const { lengthBytes, bytes, pieces, release } = parts;
    const share: Share = new Share({
      context: this.#context,
      lengthBytes,
      bytes,
      pieces,
      places: this.#places,
      slotOf: (domain) => this.#slotOf(domain),
      onClosed: release,
      onIdle: () => void this.#open.delete(share),
    });
    this.#open.add(share);
    for (const domain of this.#domains.values()) this.prepare(domain);
    return share;
  }

  /** Slot of a domain of this host that is alive, or -1. */
  #slotOf(domain: Domain): number {
    const { domains } = this.#context.hypervisor;
    const slot = domains.slotOf(domain.domid);
    const isAlive = !["free", "dying", "dead"].includes(domain.state);
    return slot >= 0 && isAlive && this.#domains.get(slot) === domain ? slot : -1;
  }

  #framesOf(lengthBytes: number): number {
    const { machineFrames } = this.#context.hypervisor.geometry;
    const limit = Math.min(SHARE_BYTES_MAX, machineFrames * FRAME_BYTES);
    if (Number.isSafeInteger(lengthBytes) && lengthBytes > 0 && lengthBytes <= limit) {
      return Math.ceil(lengthBytes / FRAME_BYTES);
    }
    throw new XenolithError("INVALID_SIZE", `a share is ${lengthBytes} bytes, it must be 1 to ${limit}`);
  }
}

/** Maps a guest's extents into dom0's own window, for reading. 0 or an errno; `names` is what was mapped. */
const mapOwn = (hypervisor: Hypervisor, pieces: readonly Piece[], gfn: number, names: number[]): number => {
  let at = gfn;
  for (const { extent, count } of pieces) {
    const name = mapExtent(hypervisor, extent, { slot: DOM0_SLOT, gfn: at, isWritable: false });
    if (name < 0) return name;
    names.push(name);
    at += count;
  }
  return 0;
};

const bytesOf = (source: ArrayBufferLike | ArrayBufferView): Uint8Array =>
  ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    : new Uint8Array(source);
