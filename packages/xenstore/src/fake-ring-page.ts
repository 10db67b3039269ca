import * as abi from "@xenolith/abi";
import type { RingPage } from "./ring-channel.ts";
import { encodeMessage, type Message, MessageReader } from "./wire.ts";

const layout = abi.xenstore_domain_interface;

/** A ring page in ordinary memory with the guest's side of it: for tests, and for guests that are JavaScript. */
export class FakeRingPage implements RingPage {
  readonly bytes = new Uint8Array(4096);
  /** Events that the daemon sent. */
  notifyCount = 0;
  readonly #view = new DataView(this.bytes.buffer);
  readonly #reader = new MessageReader();

  loadU32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  storeU32(offset: number, value: number): void {
    this.#view.setUint32(offset, value, true);
  }

  readBytes(offset: number, target: Uint8Array): void {
    target.set(this.bytes.subarray(offset, offset + target.length));
  }

  writeBytes(offset: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, offset);
  }

  notify(): void {
    this.notifyCount += 1;
  }

  /** Sets all four indices, as a guest does that begins anywhere. */
  startAt(index: number): void {
    for (const word of [layout.req_cons, layout.req_prod, layout.rsp_cons, layout.rsp_prod]) {
      this.storeU32(word.offset, index >>> 0);
    }
  }

  /** The guest puts bytes into the request ring; returns how many there was room for. */
  put(bytes: Uint8Array): number {
    const producer = this.loadU32(layout.req_prod.offset);
    const used = (producer - this.loadU32(layout.req_cons.offset)) >>> 0;
    const count = Math.min(bytes.length, Math.max(0, abi.XENSTORE_RING_SIZE - used));
    for (let index = 0; index < count; index += 1) {
      this.bytes[layout.req.offset + ((producer + index) % abi.XENSTORE_RING_SIZE)] = bytes[index]!;
    }
    this.storeU32(layout.req_prod.offset, (producer + count) >>> 0);
    return count;
  }

  /** The guest takes what is in the response ring. */
  take(): Uint8Array {
    const consumer = this.loadU32(layout.rsp_cons.offset);
    const count = (this.loadU32(layout.rsp_prod.offset) - consumer) >>> 0;
    const bytes = Uint8Array.from({ length: count }, (_, index) => {
      return this.bytes[layout.rsp.offset + ((consumer + index) % abi.XENSTORE_RING_SIZE)]!;
    });
    this.storeU32(layout.rsp_cons.offset, (consumer + count) >>> 0);
    return bytes;
  }

  /** The guest sends a message; `pump` makes the daemon work whenever the ring is full. */
  send(message: Message, pump: () => void): void {
    for (let left = encodeMessage(message); left.length > 0; left = left.subarray(this.put(left))) pump();
    pump();
  }

  /** The guest takes whole messages, for as long as `pump` brings more. */
  receive(pump: () => void): Message[] {
    const messages: Message[] = [];
    for (let bytes = this.take(); bytes.length > 0; bytes = this.take()) {
      for (const byte of bytes) {
        this.#reader.room[0] = byte;
        this.#reader.advance(1);
        const message = this.#reader.take();
        if (message !== undefined) messages.push(message);
      }
      pump();
    }
    return messages;
  }
}
