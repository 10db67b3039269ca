/**
 * A guest's xenstore page as the daemon in this process sees it, and the measure of work by which a guest that only sends
 * events is served less often.
 */
import { XENSTORE_RING_SIZE, xenstore_domain_interface } from "@xenolith/abi";
import type { RingPage } from "@xenolith/xenstore";
import type { RingFrame } from "./ring-frame.ts";

const layout = xenstore_domain_interface;

/**
 * The page of one connection. Work is what the guest cannot pretend: bytes of requests that came, bytes of replies that
 * it took. Both sums only grow, and no further than the daemon's own indices let them, so a guest that moves its indices
 * to and fro brings no work after the first time.
 */
export class XenstorePage implements RingPage {
  readonly #frame: RingFrame;
  readonly #send: () => void;
  /** The daemon's indices, as it last read or wrote them. */
  #requestConsumer = 0;
  #responseProducer = 0;
  /** Bytes that the daemon has read and written. */
  #readBytes = 0;
  #writtenBytes = 0;
  /** Most bytes that the guest had sent and taken when it was last looked at. */
  #sentSeen = 0;
  #takenSeen = 0;

  /** Takes over the frame. `send` sends the event of the page's channel, and does not throw. */
  constructor(frame: RingFrame, send: () => void) {
    this.#frame = frame;
    this.#send = send;
  }

  /** Whether the guest has asked for anything yet. */
  get hasRequest(): boolean {
    return this.#frame.loadU32(layout.req_prod.offset) !== this.#frame.loadU32(layout.req_cons.offset);
  }

  /** Whether the guest has sent or taken anything since the last call. */
  takeWork(): boolean {
    const waiting = (this.#frame.loadU32(layout.req_prod.offset) - this.#requestConsumer) >>> 0;
    const untaken = (this.#responseProducer - this.#frame.loadU32(layout.rsp_cons.offset)) >>> 0;
    const sent = waiting > XENSTORE_RING_SIZE ? 0 : this.#readBytes + waiting;
    const taken = untaken > XENSTORE_RING_SIZE ? 0 : this.#writtenBytes - untaken;
    const any = sent > this.#sentSeen || taken > this.#takenSeen;
    this.#sentSeen = Math.max(sent, this.#sentSeen);
    this.#takenSeen = Math.max(taken, this.#takenSeen);
    return any;
  }

  loadU32(offset: number): number {
    const value = this.#frame.loadU32(offset);
    // The daemon asks for its own indices once, when it begins.
    if (offset === layout.req_cons.offset) this.#requestConsumer = value;
    if (offset === layout.rsp_prod.offset) this.#responseProducer = value;
    return value;
  }

  storeU32(offset: number, value: number): void {
    if (offset === layout.req_cons.offset) this.#requestConsumer = value;
    if (offset === layout.rsp_prod.offset) this.#responseProducer = value;
    this.#frame.storeU32(offset, value);
  }

  readBytes(offset: number, target: Uint8Array): void {
    this.#readBytes += target.length;
    this.#frame.readBytes(offset, target);
  }

  writeBytes(offset: number, bytes: Uint8Array): void {
    this.#writtenBytes += bytes.length;
    this.#frame.writeBytes(offset, bytes);
  }

  notify(): void {
    this.#send();
  }

  close(): void {
    this.#frame.close();
  }
}
