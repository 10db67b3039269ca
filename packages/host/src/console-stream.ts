/**
 * What a guest prints with console_io and into its console ring, as an async iterable of text, and what is typed to it.
 * Output that nobody reads is thrown away beyond the
 * ring's size by the hypervisor, which counts it; a slow reader never stops a guest.
 */
import { XenolithError } from "@xenolith/abi";
import { CONSOLE_RING_BYTES, type Hypervisor } from "@xenolith/core";
import { ConsoleRing } from "./console-ring.ts";
import type { Dom0Events } from "./dom0-events.ts";
import type { RingFrame } from "./ring-frame.ts";

/** Characters kept here for a reader that has not come yet. */
export const KEPT_CHARACTERS_MAX = 16 * CONSOLE_RING_BYTES;

/** One domain's console. */
export class ConsoleStream implements AsyncIterable<string> {
  readonly #hypervisor: Hypervisor;
  readonly #slot: number;
  readonly #decoder = new TextDecoder();
  #kept = "";
  #finished = false;
  #waiting: (() => void)[] = [];
  #ring: ConsoleRing | undefined;
  #closeRing = (): void => {};

  constructor(hypervisor: Hypervisor, slot: number) {
    this.#hypervisor = hypervisor;
    this.#slot = slot;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string, void, undefined> {
    for (;;) {
      if (this.#kept !== "") {
        const text = this.#kept;
        this.#kept = "";
        yield text;
      } else if (this.#finished) {
        return;
      } else {
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    }
  }

  /** Everything printed until the domain is destroyed. */
  async text(): Promise<string> {
    let text = "";
    for await (const piece of this) text += piece;
    return text;
  }

  /**
   * Types to a guest that has a console ring; settles when the ring has taken it all.
   *
   * @throws XenolithError `DOMAIN_STATE`: the guest has no console ring, or is gone.
   */
  async write(data: string | Uint8Array): Promise<void> {
    if (this.#ring === undefined) {
      throw new XenolithError("DOMAIN_STATE", "write to the console: the guest has no console ring");
    }
    await this.#ring.write(typeof data === "string" ? new TextEncoder().encode(data) : data);
  }

  /**
   * Joins the guest's console ring, whose channel is `remotePort` of the guest.
   *
   * @throws XenolithError `HYPERCALL_FAILED`. The frame is the ring's from here on.
   */
  attach(frame: RingFrame, events: Dom0Events, remotePort: number): void {
    let port: number;
    try {
      port = events.bindInterdomain(this.#hypervisor.domains.domid[this.#slot]!, remotePort);
    } catch (error) {
      frame.close();
      throw error;
    }
    const ring = new ConsoleRing({ frame, notify: () => events.send(port), print: (bytes) => this.#print(bytes) });
    this.#ring = ring;
    this.#closeRing = () => {
      ring.close();
      events.close(port);
    };
    events.on(port, ring.serve);
  }

  /** Takes what was printed last: the guest has ended. */
  drain(): void {
    this.#ring?.serve();
    this.poke();
  }

  /** Takes what the guest has printed out of the hypervisor's ring. */
  poke(): void {
    if (this.#finished) return;
    const { consoles } = this.#hypervisor;
    if (consoles.readable(this.#slot) === 0) return;
    const text = this.#decoder.decode(consoles.take(this.#slot), { stream: true });
    if (this.#kept.length + text.length <= KEPT_CHARACTERS_MAX) this.#kept += text;
    this.#wake();
  }

  /** The domain prints no more; takes the rest, a line without an end included. */
  finish(): void {
    if (this.#finished) return;
    this.#closeRing();
    this.#hypervisor.consoles.finish(this.#slot, this.#hypervisor.platform.now());
    this.poke();
    this.#finished = true;
    this.#wake();
  }

  /** Prints as console_io does: filtered, in lines, bounded in rate. False: something was thrown away. */
  #print(bytes: Uint8Array): boolean {
    const { consoles, locks, platform } = this.#hypervisor;
    const lostBefore = consoles.dropped[this.#slot]!;
    const now = platform.now();
    const lock = locks.id("domain", this.#slot);
    locks.acquire(lock);
    for (const byte of bytes) consoles.put(this.#slot, byte, now);
    locks.release(lock);
    this.poke();
    return consoles.dropped[this.#slot] === lostBefore;
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
