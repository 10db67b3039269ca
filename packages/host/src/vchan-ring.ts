/**
 * The memory of a vchan, as one end sees it: where things stand in the control page, and moving bytes through the two
 * rings. Knows nothing of grants and events. The protocol, its revokable mode and the rules R1 to R5 are written down in
 * guest/include/xenolith/vchan.h.
 *
 *     byte  0 left.cons   4 left.prod   8 right.cons   12 right.prod      left: client to server, right: server to client
 *          16 left_order u16           18 right_order u16
 *          20 cli_live    21 srv_live  22 cli_notify   23 srv_notify      (one byte each)
 *          24 references of the pages of the left ring, then of the right; in revokable mode then epoch, guard's reference
 *
 * Source: xen/include/public/io/libxenvchan.h.
 */

/** Bytes of a page. */
export const PAGE_BYTES = 4096;
export const ORDER_MIN = 10;
export const ORDER_MAX = 20;
/** Rings below this order stand in the control page. */
export const ORDER_PAGES = 12;
/** Order of a page. */
const PAGE_ORDER = 12;

export const LEFT_ORDER = 16;
export const RIGHT_ORDER = 18;
export const CLI_LIVE = 20;
export const SRV_LIVE = 21;
export const CLI_NOTIFY = 22;
export const SRV_NOTIFY = 23;
/** Index of the first reference, in words. */
export const GRANTS_WORD = 6;

/** Bits of a notify byte: tell me when you have written, when you have read. */
export const NOTIFY_WRITE = 1;
export const NOTIFY_READ = 2;

/** The client has not come yet. */
export const LIVE_WAITING = 2;

/** What is wrong with a channel that is closed for good. */
export type ChannelFault = "closed" | "broken";

/** Pages of a ring outside the control page. */
export const pagesOfOrder = (order: number): number => (order < ORDER_PAGES ? 0 : 2 ** (order - PAGE_ORDER));

/** Whether a channel can have rings of these orders: two small ones cannot stand at the same place. */
export const areOrdersPossible = (left: number, right: number): boolean =>
  [left, right].every((order) => order >= ORDER_MIN && order <= ORDER_MAX) && (left !== right || left >= ORDER_PAGES);

/** Orders of the rings for so many bytes at least, as libxenvchan chooses them; undefined: more than 1 MiB. */
export const chooseOrders = (leftBytes: number, rightBytes: number): { left: number; right: number } | undefined => {
  const limit = 2 ** ORDER_MAX;
  const pages = (bytes: number): number => Math.max(ORDER_PAGES, Math.ceil(Math.log2(bytes)));
  if (leftBytes > limit || rightBytes > limit) return undefined;
  if (leftBytes <= 1024 && rightBytes <= 2048) return { left: 10, right: 11 };
  if (leftBytes <= 2048 && rightBytes <= 1024) return { left: 11, right: 10 };
  if (leftBytes <= 2048) return { left: 11, right: pages(rightBytes) };
  return { left: pages(leftBytes), right: rightBytes <= 2048 ? 11 : pages(rightBytes) };
};

/** One direction. */
interface Ring {
  /** Words of the control page that hold its indices. */
  readonly consWord: number;
  readonly prodWord: number;
  readonly data: Uint8Array<SharedArrayBuffer>;
  /** This end's own index; the one in the control page is a copy for the other end. */
  index: number;
}

/** What a channel end is made of. */
export interface VchanMemory {
  readonly isServer: boolean;
  /** The control page. */
  readonly control: Uint8Array<SharedArrayBuffer>;
  /** The rings' own pages; empty for orders 10 and 11. */
  readonly left: Uint8Array<SharedArrayBuffer>;
  readonly right: Uint8Array<SharedArrayBuffer>;
  readonly leftOrder: number;
  readonly rightOrder: number;
  /** For the client of a revokable channel: the epoch, where it stands in the control page (word), and the guard page. */
  readonly epoch?: { readonly value: number; readonly word: number; readonly guard: Uint8Array<SharedArrayBuffer> };
}

const wordsOf = (bytes: Uint8Array<SharedArrayBuffer>): Int32Array =>
  new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);

/** Both rings of one end. Every number of the other end is read once and judged before it is used. */
export class VchanRings {
  readonly #memory: VchanMemory;
  readonly #words: Int32Array;
  readonly #guard: Int32Array | undefined;
  readonly #incoming: Ring;
  readonly #outgoing: Ring;
  #fault: ChannelFault | undefined;

  /** A server begins with empty rings, a client where the control page says. */
  constructor(memory: VchanMemory) {
    const { isServer, control, epoch } = memory;
    this.#memory = memory;
    this.#words = wordsOf(control);
    this.#guard = epoch === undefined ? undefined : wordsOf(epoch.guard);
    const place = (order: number, pages: Uint8Array<SharedArrayBuffer>): Uint8Array<SharedArrayBuffer> =>
      order < ORDER_PAGES ? control.subarray(2 ** order, 2 ** (order + 1)) : pages.subarray(0, 2 ** order);
    const left = { consWord: 0, prodWord: 1, data: place(memory.leftOrder, memory.left), index: 0 };
    const right = { consWord: 2, prodWord: 3, data: place(memory.rightOrder, memory.right), index: 0 };
    this.#incoming = isServer ? left : right;
    this.#outgoing = isServer ? right : left;
    if (isServer) return;
    this.#incoming.index = this.#load(this.#incoming.consWord);
    this.#outgoing.index = this.#load(this.#outgoing.prodWord);
  }

  /** Why the channel is closed for good, if it is. */
  get fault(): ChannelFault | undefined {
    return this.#fault;
  }

  /** Bytes of the ring that this end reads. */
  get incomingBytes(): number {
    return this.#incoming.data.length;
  }

  /** Bytes of the ring that this end writes. */
  get outgoingBytes(): number {
    return this.#outgoing.data.length;
  }

  /** The other end's life byte: 0 gone, 1 there, of a client 2: not there yet. 0 too when its pages were taken back. */
  get peerLive(): number {
    if (this.#fault !== undefined || !this.#isFresh()) return 0;
    return Atomics.load(this.#memory.control, this.#memory.isServer ? CLI_LIVE : SRV_LIVE);
  }

  /** Bytes that can be read now; -1: the channel is closed for good. */
  get readable(): number {
    const ring = this.#incoming;
    return this.#judge((this.#load(ring.prodWord) - ring.index) >>> 0, ring);
  }

  /** Bytes that can be written now; -1: the channel is closed for good. */
  get writable(): number {
    const ring = this.#outgoing;
    const used = this.#judge((ring.index - this.#load(ring.consWord)) >>> 0, ring);
    return used < 0 ? used : ring.data.length - used;
  }

  /** Takes `into.length` bytes, which are there. False: some may not be the server's any more, so there are none. */
  take(into: Uint8Array): boolean {
    const ring = this.#incoming;
    const { data } = ring;
    const at = ring.index % data.length;
    const first = Math.min(into.length, data.length - at);
    into.set(data.subarray(at, at + first));
    if (first < into.length) into.set(data.subarray(0, into.length - first), first);
    if (!this.#isFresh()) {
      this.#fail("closed");
      return false;
    }
    ring.index = (ring.index + into.length) >>> 0;
    Atomics.store(this.#words, ring.consWord, ring.index | 0);
    return true;
  }

  /** Puts bytes for which there is room. */
  put(bytes: Uint8Array): void {
    const ring = this.#outgoing;
    const { data } = ring;
    const at = ring.index % data.length;
    const first = Math.min(bytes.length, data.length - at);
    data.set(first === bytes.length ? bytes : bytes.subarray(0, first), at);
    if (first < bytes.length) data.set(bytes.subarray(first), 0);
    ring.index = (ring.index + bytes.length) >>> 0;
    Atomics.store(this.#words, ring.prodWord, ring.index | 0);
  }

  /** Asks the other end for an event; what is looked at afterwards is newer than the request. */
  request(bit: number): void {
    Atomics.or(this.#memory.control, this.#memory.isServer ? CLI_NOTIFY : SRV_NOTIFY, bit);
  }

  /** Whether the other end had asked for an event; it has to ask again for the next one. */
  takeRequest(bit: number): boolean {
    const at = this.#memory.isServer ? SRV_NOTIFY : CLI_NOTIFY;
    return (Atomics.and(this.#memory.control, at, ~bit & 0xff) & bit) !== 0;
  }

  /** Closes the channel for good. */
  close(): void {
    this.#fail("closed");
  }

  #load(word: number): number {
    return Atomics.load(this.#words, word) >>> 0;
  }

  /** R4: an index is judged after the epochs. */
  #judge(count: number, ring: Ring): number {
    if (this.#fault === "broken") return -1;
    if (!this.#isFresh()) this.#fail("closed");
    else if (count <= ring.data.length) return count;
    else this.#fail("broken");
    return -1;
  }

  /** R3: whether all that was read from shared pages until now was read from the server's. */
  #isFresh(): boolean {
    const { epoch } = this.#memory;
    if (epoch === undefined) return true;
    return this.#load(epoch.word) === epoch.value && Atomics.load(this.#guard!, 0) >>> 0 === epoch.value;
  }

  #fail(fault: ChannelFault): void {
    this.#fault ??= fault;
  }
}
