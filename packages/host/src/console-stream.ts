/**
 * What a guest prints with console_io, as an async iterable of text. Output that nobody reads is thrown away beyond the
 * ring's size by the hypervisor, which counts it; a slow reader never stops a guest.
 */
import { CONSOLE_RING_BYTES, type Hypervisor } from "@xenolith/core";

/** Characters kept here for a reader that has not come yet. */
const KEPT_CHARACTERS_MAX = 16 * CONSOLE_RING_BYTES;

/** One domain's console. */
export class ConsoleStream implements AsyncIterable<string> {
  readonly #hypervisor: Hypervisor;
  readonly #slot: number;
  readonly #decoder = new TextDecoder();
  #kept = "";
  #finished = false;
  #waiting: (() => void)[] = [];

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
    this.#hypervisor.consoles.finish(this.#slot, this.#hypervisor.platform.now());
    this.poke();
    this.#finished = true;
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
