/**
 * Who has how much: a tree of accounts, each with limits of its own. What an owner takes is charged to it and to
 * everybody above it. It is a category of its own, neither rlimit nor control group: of this pool, by name.
 */
import { XenolithError } from "@xenolith/abi";
import { PAGE_BYTES } from "@xenolith/sys";
import { SecretRefusal } from "./refusal.ts";

/** What an owner may have at most; what is not given is not limited. Owners below it count too. */
export interface SecretQuota {
  /** Secret memory, in bytes: a secret takes its slot (64 bytes for up to 48, then the next power of two), or pages. */
  readonly bytes?: number;
  /** Secrets and regions. */
  readonly slots?: number;
  /** Chunks of 2 MiB in which it has something. */
  readonly chunks?: number;
}

/** How deep owners may be nested. */
const DEPTH_MAX = 16;
const NAME_MAX = 128;

/** One owner's figures. For this package; programs see `SecretOwner`. */
export class Account {
  readonly path: string;
  /** It, and those above it. */
  readonly #line: readonly Account[];
  readonly depth: number;
  readonly privileged: boolean;
  readonly bytesMax: number;
  readonly slotsMax: number;
  readonly chunksMax: number;
  bytes = 0;
  /** What it has mapped beside that, once for each mapping. */
  mappedBytes = 0;
  slots = 0;
  chunks = 0;
  bytesHigh = 0;
  refusals = 0;
  /** How many things it has in each chunk. */
  readonly #perChunk: Uint32Array;

  constructor(name: string, quota: SecretQuota, privileged: boolean, chunkCount: number, parent?: Account) {
    if (typeof name !== "string" || !/^[\x21-\x7e]+$/.test(name) || name.includes("/") || name.length > NAME_MAX) {
      throw new XenolithError(
        "INVALID_ARGUMENT",
        `an owner's name is 1 to ${NAME_MAX} visible ASCII characters without "/": ${JSON.stringify(name)}`,
      );
    }
    this.path = parent === undefined || parent.depth === 0 ? name : `${parent.path}/${name}`;
    this.#line = parent === undefined ? [this] : [this, ...parent.#line];
    this.depth = parent === undefined ? 0 : parent.depth + 1;
    if (this.depth > DEPTH_MAX) {
      throw new XenolithError("INVALID_ARGUMENT", `owners are nested more than ${DEPTH_MAX} deep: ${this.path}`);
    }
    this.privileged = privileged;
    this.bytesMax = limitIn("bytes", quota.bytes);
    this.slotsMax = limitIn("slots", quota.slots);
    this.chunksMax = limitIn("chunks", quota.chunks);
    this.#perChunk = new Uint32Array(chunkCount);
  }

  /** Why so much more is too much for it or for somebody above it. */
  refusal(bytes: number): SecretRefusal | undefined {
    for (const at of this.#line) {
      if (at.bytes + bytes > at.bytesMax) return at.#refuse("bytes", at.bytes, bytes, at.bytesMax);
      if (at.slots >= at.slotsMax) return at.#refuse("slots", at.slots, 1, at.slotsMax);
    }
    return undefined;
  }

  /** Why it may not have so much more mapped: that has the limit that memory has. */
  mappingRefusal(bytes: number): SecretRefusal | undefined {
    for (const at of this.#line) {
      if (at.mappedBytes + bytes > at.bytesMax) return at.#refuse("mapped bytes", at.mappedBytes, bytes, at.bytesMax);
    }
    return undefined;
  }

  /** Enters what it has mapped more, or less. */
  chargeMapping(bytes: number): void {
    for (const at of this.#line) at.mappedBytes += bytes;
  }

  /** Whether it or somebody above it is in as many chunks as allowed; then only those are left to it. */
  get isChunkBound(): boolean {
    for (const at of this.#line) {
      if (at.chunks >= at.chunksMax) return true;
    }
    return false;
  }

  /** Whether it may take something in this chunk. */
  mayUse(chunk: number): boolean {
    for (const at of this.#line) {
      if (at.chunks >= at.chunksMax && at.#perChunk[chunk] === 0) return false;
    }
    return true;
  }

  chunkRefusal(): SecretRefusal {
    for (const at of this.#line) {
      if (at.chunks >= at.chunksMax) return at.#refuse("chunks", at.chunks, 1, at.chunksMax);
    }
    throw new Error("no account is bound to its chunks");
  }

  /** Enters what was taken; `chunk` is -1 for a region, which has a file of its own. */
  charge(bytes: number, chunk: number): void {
    for (const at of this.#line) {
      at.bytes += bytes;
      at.slots += 1;
      if (at.bytes > at.bytesHigh) at.bytesHigh = at.bytes;
      if (chunk < 0) continue;
      if (at.#perChunk[chunk] === 0) at.chunks += 1;
      at.#perChunk[chunk]! += 1;
    }
  }

  discharge(bytes: number, chunk: number): void {
    for (const at of this.#line) {
      at.bytes -= bytes;
      at.slots -= 1;
      if (chunk < 0) continue;
      at.#perChunk[chunk]! -= 1;
      if (at.#perChunk[chunk] === 0) at.chunks -= 1;
    }
  }

  #refuse(what: string, used: number, more: number, most: number): SecretRefusal {
    return new SecretRefusal(
      "SECRET_QUOTA",
      `owner ${this.path} has ${used} of ${most} ${what}, and wants ${more} more`,
    );
  }
}

const limitIn = (what: string, value = Number.POSITIVE_INFINITY): number => {
  if (value === Number.POSITIVE_INFINITY || (Number.isSafeInteger(value) && value >= 0)) return value;
  throw new XenolithError("INVALID_ARGUMENT", `quota of ${what} is ${String(value)}, not a whole number of 0 or more`);
};

/** Pages that a secret or region of so many bytes takes. */
export const pagesOf = (bytes: number): number => Math.ceil(bytes / PAGE_BYTES);
