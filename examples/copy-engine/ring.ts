/**
 * The device's side of the ring page that it shares with a driver: laid out like Xen's rings, 32 slots of 32 bytes that
 * hold a request and then its response. `copy-engine.h` says the same in C.
 *
 *     word 0   req_prod    requests that the driver has written         driver
 *     word 1   req_event   tell the device when req_prod gets there     device
 *     word 2   rsp_prod    responses that the device has written        device
 *     word 3   rsp_event   tell the driver when rsp_prod gets there     driver
 *     byte 64  slots
 *
 * The driver may write anything there at any time. Its index and each request are read once, into private memory; an
 * index that cannot be is the end of the ring. What has been answered is known here, not read from the page.
 */
export const SLOT_COUNT = 32;
export const SLOT_BYTES = 32;
const SLOTS_OFFSET = 64;
const REQ_PROD = 0;
const REQ_EVENT = 1;
const RSP_PROD = 2;
const RSP_EVENT = 3;

/** The device's end of a ring. */
export class BackRing {
  readonly #words: Uint32Array;
  readonly #slots: Uint8Array;
  #consumed = 0;
  #answered = 0;
  #pushed = 0;

  /** `page` is the ring page, zeroed by the driver. */
  constructor(page: Uint8Array) {
    this.#words = new Uint32Array(page.buffer, page.byteOffset, SLOTS_OFFSET / 4);
    this.#slots = new Uint8Array(page.buffer, page.byteOffset + SLOTS_OFFSET, SLOT_COUNT * SLOT_BYTES);
  }

  /** Requests that wait to be taken; -1: there cannot be so many, the driver is broken. */
  get waiting(): number {
    const produced = Atomics.load(this.#words, REQ_PROD);
    const isPossible = (produced - this.#answered) >>> 0 <= SLOT_COUNT;
    const count = (produced - this.#consumed) >>> 0;
    return isPossible && count <= SLOT_COUNT ? count : -1;
  }

  /** Takes the next request, which waits: a private copy of the whole slot. */
  take(): DataView {
    const copy = this.#slots.slice(this.#offset(this.#consumed), this.#offset(this.#consumed) + SLOT_BYTES);
    this.#consumed = (this.#consumed + 1) >>> 0;
    return new DataView(copy.buffer);
  }

  /** Answers the oldest request that was taken and not answered: `response` fills the whole slot. */
  answer(response: Uint8Array): void {
    this.#slots.set(response, this.#offset(this.#answered));
    this.#answered = (this.#answered + 1) >>> 0;
  }

  /** Publishes the answers; returns whether the driver wants to be told. */
  push(): boolean {
    const before = this.#pushed;
    this.#pushed = this.#answered;
    Atomics.store(this.#words, RSP_PROD, this.#answered);
    const event = Atomics.load(this.#words, RSP_EVENT);
    return (this.#answered - event) >>> 0 < (this.#answered - before) >>> 0;
  }

  /** Asks to be told of the next request. What came meanwhile is `waiting` now. */
  sleep(): void {
    Atomics.store(this.#words, REQ_EVENT, (this.#consumed + 1) >>> 0);
  }

  #offset(index: number): number {
    return (index % SLOT_COUNT) * SLOT_BYTES;
  }
}
