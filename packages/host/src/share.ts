/**
 * Shares: buffers in machine memory that any number of domains have mapped at once, without a copy, and that can be
 * taken back from each of them at any moment while it is using them. Made by `Host.share` and `Host.shareFrom`.
 */
import { EventEmitter } from "node:events";
import { ENOENT, errnoName, XenolithError } from "@xenolith/abi";
import {
  closeExtent,
  extentMappingState,
  findHoles,
  isExtentOpen,
  isHoleRun,
  mapExtent,
  restoreMapping,
  revokeMapping,
  unmapExtent,
} from "@xenolith/core";
import type { Domain } from "./domain.ts";
import type { HostContext } from "./host-context.ts";
import { FRAME_BYTES } from "./mmu.ts";
import { checkAddress, type Piece, refusal } from "./share-pieces.ts";

/** What a domain may do with a share. */
export type ShareAccess = "read-only" | "read-write";

/** How to put a share into a domain. */
export interface MapOptions {
  readonly access: ShareAccess;
  /** Where: a multiple of 4096 behind which nothing stands. By default the highest such place below 0xf0000000. */
  readonly address?: number;
}

/** A share was taken from a domain. */
export interface ShareLoss {
  readonly domain: Domain;
  /** Where it stood there. */
  readonly address: number;
  readonly lengthBytes: number;
}

/** What a share tells its listeners. */
export interface ShareEventMap {
  /** The domain no longer sees the share, but zeros (read-only) or pages of its own (read-write) in its place. */
  revoked: [loss: ShareLoss];
  /** Nothing stands in its place any more. */
  unmapped: [loss: ShareLoss];
}

/** One domain that has the share mapped, or had until it was revoked. */
interface ShareMapping {
  readonly domain: Domain;
  readonly gfn: number;
  /** The mapping of each piece, in order. */
  readonly names: readonly number[];
  readonly isWritable: boolean;
  isRevoked: boolean;
}

/** What a share is made of. Not for users of the library. */
export interface ShareParts {
  readonly context: HostContext;
  readonly lengthBytes: number;
  /** The runs of frames that it consists of, in order. */
  readonly pieces: readonly Piece[];
  /** A view of it for the control domain. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  /** The lowest gfn of each domain at which a share was put without being told where. */
  readonly places: WeakMap<Domain, number>;
  /** Slot of a living domain of this host, or -1. */
  readonly slotOf: (domain: Domain) => number;
  /** The extents are closed: gives the memory back. */
  readonly onClosed: () => void;
  /** Closed and mapped nowhere: nothing will happen to it any more. */
  readonly onIdle: () => void;
}

/** Where mappings go unless the caller says: below the pages that a Xen-style guest has at the top. */
export const PLACE_END_GFN = 0xf000_0000 / FRAME_BYTES;
/** Further down a place is looked for from the top again: memory.grow comes from below. */
const PLACE_BEGIN_GFN = 0x8000_0000 / FRAME_BYTES;

/** One shared buffer. */
export class Share implements Disposable, AsyncDisposable {
  /** Its length; the last page is filled up with zeros. */
  readonly lengthBytes: number;
  /**
   * The buffer itself: what is written here is what the domains see, at once. For a share of a guest's memory it can be
   * read only: what is written stays in this view. It can be used for ever; when the share is closed, or its granter
   * gone, it shows zeros.
   */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  /** Tells of `revoked` and `unmapped`. */
  readonly events = new EventEmitter<ShareEventMap>();
  readonly #parts: ShareParts;
  readonly #mappings = new Map<Domain, ShareMapping>();
  #isClosed = false;

  /** Only `Host` makes shares. */
  constructor(parts: ShareParts) {
    this.#parts = parts;
    this.lengthBytes = parts.lengthBytes;
    this.bytes = parts.bytes;
  }

  /** The domains that see it now. */
  get domains(): readonly Domain[] {
    return [...this.#mappings.values()].filter(({ isRevoked }) => !isRevoked).map(({ domain }) => domain);
  }

  /** Whether it was closed. */
  get closed(): boolean {
    return this.#isClosed;
  }

  /** Where the domain has it mapped, also when it was revoked there; undefined: nowhere. */
  addressIn(domain: Domain): number | undefined {
    const mapping = this.#mappings.get(domain);
    return mapping === undefined ? undefined : mapping.gfn * FRAME_BYTES;
  }

  /**
   * Puts it into the domain's memory in one operation, without a copy, and returns its address there. A domain has it
   * once; where it was revoked, it comes back at the same place with the same access. With read-write access the domain is charged for as many pages: they take its place when it is revoked.
   *
   * @throws XenolithError `INVALID_ARGUMENT`, `GUEST_ADDRESS` (something stands there), `DOMAIN_STATE`, `MEMORY_LIMIT`,
   * `MEMORY_EXHAUSTED`, `VMA_EXHAUSTED`, `SHARE_CLOSED`.
   */
  mapInto(domain: Domain, options: MapOptions): number {
    const { access, address } = options;
    this.#requireOpen();
    if (access !== "read-only" && access !== "read-write") {
      throw new XenolithError("INVALID_ARGUMENT", `access is ${String(access)}, it must be read-only or read-write`);
    }
    const slot = this.#liveSlot(domain);
    const isWritable = access === "read-write";
    const known = this.#mappings.get(domain);
    if (known !== undefined) return this.#mapAgain(known, isWritable, address);
    const gfn =
      address === undefined
        ? this.#mapSomewhere(domain, slot, isWritable)
        : this.#mapAt(domain, slot, checkAddress(address, this.lengthBytes), isWritable);
    return gfn * FRAME_BYTES;
  }

  /**
   * Takes it back from a domain, or from all: before this returns, the domain sees zeros in its place, or with read-write
   * access zeroed pages of its own. It never faults there, not even in the middle of an instruction. Harmless when the
   * domain has it no more.
   *
   * @throws XenolithError `HYPERCALL_FAILED` when the kernel refuses even to take the domain's whole memory away.
   */
  revoke(domain?: Domain): void {
    const all = domain === undefined ? [...this.#mappings.values()] : [this.#mappings.get(domain)];
    for (const mapping of all) if (mapping !== undefined && !mapping.isRevoked) this.#revokeOne(mapping);
  }

  /**
   * Takes it out of a domain's memory: from then on nothing stands there, and a guest that reads there traps. Harmless
   * when the domain does not have it. Possible after `close` for what was revoked.
   *
   * @throws XenolithError as `revoke`.
   */
  unmap(domain: Domain): void {
    const mapping = this.#mappings.get(domain);
    if (mapping === undefined) return;
    for (const name of mapping.names) this.#check("unmap", unmapExtent(this.#hypervisor, name));
    this.#forget(mapping);
  }

  /** Revokes it everywhere and gives its memory back. Harmless when repeated. */
  close(): void {
    if (this.#isClosed) return;
    this.revoke();
    this.#isClosed = true;
    for (const { extent } of this.#parts.pieces) closeExtent(this.#hypervisor, extent);
    this.#parts.onClosed();
    if (this.#mappings.size === 0) this.#parts.onIdle();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  /** A domain is gone, and with it its mappings; perhaps it was the granter. For the host. */
  look(): void {
    for (const mapping of this.#mappings.values()) {
      const states = mapping.names.map((name) => extentMappingState(this.#hypervisor, name));
      if (states.includes("gone")) this.#forget(mapping);
      else if (states.includes("severed") && !mapping.isRevoked) this.#revokeOne(mapping);
    }
    if (!this.#parts.pieces.every(({ extent }) => isExtentOpen(this.#hypervisor, extent))) this.close();
  }

  get #hypervisor(): HostContext["hypervisor"] {
    return this.#parts.context.hypervisor;
  }

  get #frameCount(): number {
    return Math.ceil(this.lengthBytes / FRAME_BYTES);
  }

  #liveSlot(domain: Domain): number {
    const slot = this.#parts.slotOf(domain);
    if (slot >= 0) return slot;
    throw new XenolithError("DOMAIN_STATE", `domain ${domain.domid} is not a living domain of this host`);
  }

  /** Shows it again where it was revoked. All of it, or none. */
  #mapAgain(mapping: ShareMapping, isWritable: boolean, address: number | undefined): number {
    const { domain, gfn, names } = mapping;
    const there = gfn * FRAME_BYTES;
    const isSame = mapping.isWritable === isWritable && (address === undefined || address === there);
    if (!mapping.isRevoked || !isSame) {
      throw new XenolithError("INVALID_ARGUMENT", `domain ${domain.domid} has the share already, at address ${there}`);
    }
    for (const [index, { extent }] of this.#parts.pieces.entries()) {
      const result = restoreMapping(this.#hypervisor, extent, names[index]!);
      if (result === 0) continue;
      for (const name of names) revokeMapping(this.#hypervisor, name);
      throw refusal(result, domain.domid, this.lengthBytes, there);
    }
    mapping.isRevoked = false;
    return there;
  }

  /**
   * Maps it below what was mapped before, or else at the highest place that is free, with one spare gfn above it, so that
   * two shares never touch. Returns its first gfn.
   */
  #mapSomewhere(domain: Domain, slot: number, isWritable: boolean): number {
    const { places } = this.#parts;
    const length = this.#frameCount + 1;
    const next = (places.get(domain) ?? PLACE_END_GFN) - length;
    if (next >= PLACE_BEGIN_GFN && isHoleRun(this.#hypervisor, slot, next, length)) {
      places.set(domain, next);
      return this.#mapAt(domain, slot, next, isWritable);
    }
    const gfn = findHoles(this.#hypervisor, slot, length, PLACE_END_GFN);
    if (gfn >= 0) return this.#mapAt(domain, slot, gfn, isWritable);
    throw new XenolithError(
      "GUEST_ADDRESS",
      `domain ${domain.domid} has no ${this.lengthBytes} bytes of free addresses below 0xf0000000`,
    );
  }

  /** Maps every piece, or none. */
  #mapAt(domain: Domain, slot: number, gfn: number, isWritable: boolean): number {
    const names: number[] = [];
    let at = gfn;
    for (const { extent, count } of this.#parts.pieces) {
      const name = mapExtent(this.#hypervisor, extent, { slot, gfn: at, isWritable });
      if (name < 0) {
        for (const mapped of names) unmapExtent(this.#hypervisor, mapped);
        throw refusal(name, domain.domid, this.lengthBytes, at * FRAME_BYTES);
      }
      names.push(name);
      at += count;
    }
    this.#mappings.set(domain, { domain, gfn, names, isWritable, isRevoked: false });
    return gfn;
  }

  #revokeOne(mapping: ShareMapping): void {
    for (const name of mapping.names) this.#check("revoke", revokeMapping(this.#hypervisor, name));
    mapping.isRevoked = true;
    this.#tell("revoked", mapping);
  }

  #forget(mapping: ShareMapping): void {
    const { places } = this.#parts;
    this.#mappings.delete(mapping.domain);
    if (places.get(mapping.domain) === mapping.gfn) places.set(mapping.domain, mapping.gfn + this.#frameCount + 1);
    if (this.#isClosed && this.#mappings.size === 0) this.#parts.onIdle();
    this.#tell("unmapped", mapping);
  }

  /** Calls listeners in a turn of their own: what one of them throws must not stop what is being done. */
  #tell(event: keyof ShareEventMap, { domain, gfn }: ShareMapping): void {
    const loss = { domain, address: gfn * FRAME_BYTES, lengthBytes: this.lengthBytes };
    queueMicrotask(() => this.events.emit(event, loss));
  }

  #check(operation: string, result: number): void {
    // It may be gone with its domain already.
    if (result < 0 && result !== -ENOENT) {
      throw new XenolithError("HYPERCALL_FAILED", `${operation} of a share failed: ${errnoName(result) ?? result}`);
    }
  }

  #requireOpen(): void {
    if (this.#isClosed) throw new XenolithError("SHARE_CLOSED", "the share is closed");
  }
}
