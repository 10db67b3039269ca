import * as abi from "@xenolith/abi";
import type { ByteChannel, ChannelState } from "./channel.ts";

/**
 * A xenstore page, which the guest can write at any time. Offsets are those of `xenstore_domain_interface`. Words are
 * loaded and stored whole and in order with respect to bytes (`Atomics`). None of these throws.
 */
export interface RingPage {
  loadU32(offset: number): number;
  storeU32(offset: number, value: number): void;
  /** Fills `target` from the page. */
  readBytes(offset: number, target: Uint8Array): void;
  writeBytes(offset: number, bytes: Uint8Array): void;
  /** Sends the event of the page's channel. */
  notify(): void;
  /** The connection is over: the page is not used again. */
  close?(): void;
}

const layout = abi.xenstore_domain_interface;
const RING_BYTES = abi.XENSTORE_RING_SIZE;

/**
 * The daemon's end of a xenstore page. Its own two indices live here, not in the page; the guest's two are read once per
 * use, and a distance above the size of a ring stops the connection with error word 2 until the guest asks for a new
 * one. Source: xs_wire.h, xenstore-ring.txt.
 */
export class RingChannel implements ByteChannel {
  readonly #page: RingPage;
  readonly #features: number;
  #requestConsumer: number;
  #responseProducer: number;
  #moved = false;
  #state: Exclude<ChannelState, "reset"> = "open";

  constructor(page: RingPage, features: number) {
    this.#page = page;
    this.#features = features;
    this.#requestConsumer = page.loadU32(layout.req_cons.offset);
    this.#responseProducer = page.loadU32(layout.rsp_prod.offset);
    page.storeU32(layout.server_features.offset, features);
    this.#setError(abi.XENSTORE_ERROR_NONE);
    if (this.#offers(abi.XENSTORE_SERVER_FEATURE_RECONNECTION)) {
      page.storeU32(layout.connection.offset, abi.XENSTORE_CONNECTED);
    }
  }

  state(): ChannelState {
    if (this.#state === "closed" || !this.#offers(abi.XENSTORE_SERVER_FEATURE_RECONNECTION)) return this.#state;
    if (this.#page.loadU32(layout.connection.offset) !== abi.XENSTORE_RECONNECT) return this.#state;
    this.#reconnect();
    return "reset";
  }

  get stopped(): boolean {
    return this.#state === "stopped";
  }

  read(target: Uint8Array): number {
    if (this.#state !== "open") return 0;
    const producer = this.#page.loadU32(layout.req_prod.offset);
    const available = (producer - this.#requestConsumer) >>> 0;
    if (available > RING_BYTES) return this.#stop(abi.XENSTORE_ERROR_RINGIDX);
    const count = Math.min(available, target.length);
    if (count === 0) return 0;
    const start = this.#requestConsumer % RING_BYTES;
    const first = Math.min(count, RING_BYTES - start);
    this.#page.readBytes(layout.req.offset + start, target.subarray(0, first));
    if (first < count) this.#page.readBytes(layout.req.offset, target.subarray(first, count));
    this.#requestConsumer = (this.#requestConsumer + count) >>> 0;
    this.#page.storeU32(layout.req_cons.offset, this.#requestConsumer);
    this.#moved = true;
    return count;
  }

  write(bytes: Uint8Array): number {
    if (this.#state !== "open") return 0;
    const consumer = this.#page.loadU32(layout.rsp_cons.offset);
    const used = (this.#responseProducer - consumer) >>> 0;
    if (used > RING_BYTES) return this.#stop(abi.XENSTORE_ERROR_RINGIDX);
    const count = Math.min(RING_BYTES - used, bytes.length);
    if (count === 0) return 0;
    const start = this.#responseProducer % RING_BYTES;
    const first = Math.min(count, RING_BYTES - start);
    this.#page.writeBytes(layout.rsp.offset + start, bytes.subarray(0, first));
    if (first < count) this.#page.writeBytes(layout.rsp.offset, bytes.subarray(first, count));
    this.#responseProducer = (this.#responseProducer + count) >>> 0;
    this.#page.storeU32(layout.rsp_prod.offset, this.#responseProducer);
    this.#moved = true;
    return count;
  }

  /** A peer that sent several requests sleeps until there is an answer: it is woken once, by the last. */
  flush(isLast: boolean): void {
    if (!this.#moved || (!isLast && this.#hasRequest)) return;
    this.#moved = false;
    this.#page.notify();
  }

  fail(): void {
    this.#stop(abi.XENSTORE_ERROR_PROTO);
  }

  close(): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#page.close?.();
  }

  get #hasRequest(): boolean {
    return this.#state === "open" && this.#page.loadU32(layout.req_prod.offset) !== this.#requestConsumer;
  }

  #offers(feature: number): boolean {
    return (this.#features & feature) !== 0;
  }

  /** The guest keeps its indices still until the word says connected, so all four begin at nothing. */
  #reconnect(): void {
    this.#requestConsumer = 0;
    this.#responseProducer = 0;
    for (const index of [layout.req_cons, layout.req_prod, layout.rsp_cons, layout.rsp_prod]) {
      this.#page.storeU32(index.offset, 0);
    }
    this.#setError(abi.XENSTORE_ERROR_NONE);
    this.#state = "open";
    this.#page.storeU32(layout.connection.offset, abi.XENSTORE_CONNECTED);
    this.#moved = true;
  }

  #stop(error: number): 0 {
    if (this.#state === "open") {
      this.#state = "stopped";
      this.#setError(error);
      this.#page.notify();
    }
    return 0;
  }

  #setError(error: number): void {
    if (this.#offers(abi.XENSTORE_SERVER_FEATURE_ERROR)) this.#page.storeU32(layout.error.offset, error);
  }
}
