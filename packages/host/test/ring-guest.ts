// The guest's side of a domain's rings, played by the test: what a guest would do with its own pages and ports.
import assert from "node:assert/strict";
import {
  HVM_PARAM_CONSOLE_EVTCHN,
  HVM_PARAM_STORE_EVTCHN,
  XENSTORE_RING_SIZE,
  XS_ERROR,
  XS_WATCH_EVENT,
  xenstore_domain_interface as layout,
} from "@xenolith/abi";
import { sendPort } from "@xenolith/core";
import type { Domain, Host } from "../src/index.ts";
import { eventually, guest } from "./support.ts";

export const STORE_PAGE = 0xffff_a000;
export const CONSOLE_PAGE = 0xffff_b000;

/** A Xen-style guest that does nothing. */
export const quiet = guest(`(module (memory (export "memory") 1) (func (export "xen_start") (param i32)))`);

/** A reply. */
export interface Reply {
  readonly type: number;
  readonly text: string;
}

/** One domain, never started: its rings are used from outside as it would use them itself. */
export class RingGuest {
  readonly domain: Domain;
  readonly slot: number;
  readonly events: string[] = [];
  readonly #host: Host;

  constructor(host: Host, domain: Domain) {
    this.#host = host;
    this.domain = domain;
    this.slot = host.hypervisor.domains.slotOf(domain.domid);
  }

  static async create(host: Host, options: object = {}): Promise<RingGuest> {
    return new RingGuest(host, await host.createDomain({ image: quiet, memoryBytesMax: 2 ** 20, ...options }));
  }

  get domid(): number {
    return this.domain.domid;
  }

  /** The guest's port of its xenstore ring, or of its console. */
  port(parameter: number = HVM_PARAM_STORE_EVTCHN): number {
    return Number(this.#host.hypervisor.hvmParams.get(this.slot, parameter));
  }

  word(offset: number, page: number = STORE_PAGE): number {
    return new DataView(this.domain.read(page + offset, 4).buffer).getUint32(0, true);
  }

  setWord(offset: number, value: number, page: number = STORE_PAGE): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    this.domain.write(page + offset, bytes);
  }

  notify(): void {
    assert.equal(sendPort(this.#host.hypervisor, this.slot, this.port()), 0);
  }

  notifyConsole(): void {
    assert.equal(sendPort(this.#host.hypervisor, this.slot, this.port(HVM_PARAM_CONSOLE_EVTCHN)), 0);
  }

  /** Puts bytes into the request ring, waiting for room, and sends an event. */
  async put(bytes: Uint8Array): Promise<void> {
    for (const byte of bytes) {
      const producer = this.word(layout.req_prod.offset);
      const isFull = (): boolean => (producer - this.word(layout.req_cons.offset)) >>> 0 >= XENSTORE_RING_SIZE;
      if (isFull()) {
        this.notify();
        await eventually(() => !isFull());
      }
      this.domain.write(STORE_PAGE + layout.req.offset + (producer % XENSTORE_RING_SIZE), Uint8Array.of(byte));
      this.setWord(layout.req_prod.offset, producer + 1);
    }
    this.notify();
  }

  /** Takes `count` bytes out of the reply ring, waiting for them. */
  async take(count: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(count);
    for (let at = 0; at < count; at += 1) {
      const consumer = this.word(layout.rsp_cons.offset);
      await eventually(() => this.word(layout.rsp_prod.offset) !== consumer);
      bytes[at] = this.domain.read(STORE_PAGE + layout.rsp.offset + (consumer % XENSTORE_RING_SIZE), 1)[0]!;
      this.setWord(layout.rsp_cons.offset, consumer + 1);
    }
    this.notify();
    return bytes;
  }

  /** Sends a request without waiting. */
  async send(type: number, payload: string): Promise<void> {
    await this.put(message(type, payload));
  }

  /** The next message that comes. */
  async receive(): Promise<Reply> {
    const head = new DataView((await this.take(16)).buffer);
    const payload = await this.take(head.getUint32(12, true));
    return { type: head.getUint32(0, true), text: new TextDecoder().decode(payload) };
  }

  /** Asks; a refusal is its name. Events that come before the answer go to `events`. */
  async ask(type: number, ...words: string[]): Promise<string> {
    await this.send(type, words.join("\0"));
    let reply = await this.receive();
    for (; reply.type === XS_WATCH_EVENT; reply = await this.receive()) this.events.push(reply.text);
    if (reply.type !== XS_ERROR) assert.equal(reply.type, type);
    return reply.text.replace(/\0$/, "");
  }
}

/** A message. */
export const message = (type: number, payload: string, lengthBytes?: number): Uint8Array => {
  const body = new TextEncoder().encode(payload);
  const bytes = new Uint8Array(16 + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, 7, true);
  view.setUint32(12, lengthBytes ?? body.length, true);
  bytes.set(body, 16);
  return bytes;
};
