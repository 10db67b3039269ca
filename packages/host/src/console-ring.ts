/**
 * The console ring of a Xen-style guest (xen/include/public/io/console.h): what it prints there joins what it prints with
 * console_io, and it can be typed to. Each of the four indices has one writer; those of the control domain live here, the
 * guest's are read once per use, and nothing moves while they are impossible.
 */
import { xencons_interface, XenolithError } from "@xenolith/abi";
import type { RingFrame } from "./ring-frame.ts";

const layout = xencons_interface;
const IN_BYTES = layout.in.sizeBytes;
const OUT_BYTES = layout.out.sizeBytes;

/** What a console ring talks to. */
export interface ConsoleRingParts {
  readonly frame: RingFrame;
  /** Sends the event of the ring's channel, and does not throw. */
  readonly notify: () => void;
  /** Takes what the guest printed; whether nothing was lost because it prints too much. The array is used again. */
  readonly print: (bytes: Uint8Array) => boolean;
}

interface PendingInput {
  readonly bytes: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: XenolithError) => void;
}

/** The control domain's end of one console ring. */
export class ConsoleRing {
  readonly #parts: ConsoleRingParts;
  readonly #printed = new Uint8Array(OUT_BYTES);
  readonly #input: PendingInput[] = [];
  #outConsumer: number;
  #inProducer: number;
  #isClosed = false;

  constructor(parts: ConsoleRingParts) {
    this.#parts = parts;
    this.#outConsumer = parts.frame.loadU32(layout.out_cons.offset);
    this.#inProducer = parts.frame.loadU32(layout.in_prod.offset);
  }

  /**
   * Takes what was printed, at most one ring full, and gives what waits to be typed. Whether there was work that counts:
   * who prints more than a console takes is served less often.
   */
  readonly serve = (): boolean => {
    if (this.#isClosed) return false;
    const printed = this.#takeOutput();
    const hasTyped = this.#giveInput();
    if (printed !== "nothing" || hasTyped) this.#parts.notify();
    return printed === "all" || hasTyped;
  };

  /** Types; settles when the guest's ring has taken it all. Throws XenolithError `DOMAIN_STATE` when the guest is gone. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) throw gone();
      this.#input.push({ bytes, resolve, reject });
      if (this.#giveInput()) this.#parts.notify();
    });
  }

  /** Takes the last output and lets go of the page. May be called again. */
  close(): void {
    if (this.#isClosed) return;
    this.#takeOutput();
    this.#isClosed = true;
    this.#parts.frame.close();
    for (const { reject } of this.#input.splice(0)) reject(gone());
  }

  #takeOutput(): "nothing" | "some" | "all" {
    const { frame, print } = this.#parts;
    const count = (frame.loadU32(layout.out_prod.offset) - this.#outConsumer) >>> 0;
    if (count === 0 || count > OUT_BYTES) return "nothing";
    const start = this.#outConsumer % OUT_BYTES;
    const first = Math.min(count, OUT_BYTES - start);
    frame.readBytes(layout.out.offset + start, this.#printed.subarray(0, first));
    if (first < count) frame.readBytes(layout.out.offset, this.#printed.subarray(first, count));
    this.#outConsumer = (this.#outConsumer + count) >>> 0;
    frame.storeU32(layout.out_cons.offset, this.#outConsumer);
    return print(this.#printed.subarray(0, count)) ? "all" : "some";
  }

  #giveInput(): boolean {
    let any = false;
    for (let next = this.#input[0]; next !== undefined; next = this.#input[0]) {
      const count = this.#put(next.bytes);
      any ||= count > 0;
      if (count < next.bytes.length) {
        this.#input[0] = { ...next, bytes: next.bytes.subarray(count) };
        return any;
      }
      this.#input.shift();
      next.resolve();
    }
    return any;
  }

  /** Puts as much into the ring as there is room for. */
  #put(bytes: Uint8Array): number {
    const { frame } = this.#parts;
    const used = (this.#inProducer - frame.loadU32(layout.in_cons.offset)) >>> 0;
    const count = used > IN_BYTES ? 0 : Math.min(bytes.length, IN_BYTES - used);
    const start = this.#inProducer % IN_BYTES;
    const first = Math.min(count, IN_BYTES - start);
    frame.writeBytes(layout.in.offset + start, bytes.subarray(0, first));
    if (first < count) frame.writeBytes(layout.in.offset, bytes.subarray(first, count));
    this.#inProducer = (this.#inProducer + count) >>> 0;
    if (count > 0) frame.storeU32(layout.in_prod.offset, this.#inProducer);
    return count;
  }
}

const gone = (): XenolithError => new XenolithError("DOMAIN_STATE", "write to the console: the domain is gone");
