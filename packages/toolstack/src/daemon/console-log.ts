/**
 * What a domain printed last, and those who follow it. It outlives a restart: the new domain prints behind the old one.
 * A follower that does not read loses the oldest bytes; a guest is never stopped by one.
 */
import { XenolithError } from "@xenolith/abi";
import type { StreamReader } from "./reader-stream.ts";

/** Bytes of output that are kept. */
export const CONSOLE_BYTES_KEPT = 64 * 1024;
/** Bytes typed that a guest has not taken yet. */
export const INPUT_BYTES_MAX = 64 * 1024;
/** Followers of one console at once. */
export const FOLLOWER_COUNT_MAX = 16;

/** Where typed bytes go; settles when the guest has taken them. */
export type ConsoleInput = (bytes: Uint8Array) => Promise<void>;

/** One console. */
export class ConsoleLog {
  #chunks: Uint8Array[] = [];
  #keptBytes = 0;
  /** Bytes printed so far: the position behind the last one. */
  #end = 0;
  readonly #followers = new Set<() => void>();
  #input: ConsoleInput | undefined;
  #pendingBytes = 0;
  #writing: Promise<void> = Promise.resolve();
  #isClosed = false;

  /** Adds output. */
  print(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    this.#chunks.push(bytes);
    this.#keptBytes += bytes.length;
    this.#end += bytes.length;
    while (this.#keptBytes - this.#chunks[0]!.length >= CONSOLE_BYTES_KEPT)
      this.#keptBytes -= this.#chunks.shift()!.length;
    this.#wake();
  }

  /** Everything that is kept. */
  text(): Uint8Array {
    return this.#after(0).bytes;
  }

  /** Whence typed bytes go from now on. */
  connect(input: ConsoleInput | undefined): void {
    this.#input = input;
  }

  /**
   * Types to the guest: the bytes are on their way when this returns, in order.
   *
   * @throws XenolithError `DOMAIN_STATE`: nobody reads here, `CLIENT_LIMIT`: the guest has not read what was typed before.
   */
  type(bytes: Uint8Array): void {
    const input = this.#input;
    if (input === undefined) throw new XenolithError("DOMAIN_STATE", "the domain reads no console");
    if (this.#pendingBytes + bytes.length > INPUT_BYTES_MAX) {
      throw new XenolithError(
        "CLIENT_LIMIT",
        `${this.#pendingBytes} bytes wait for the guest to read them, the limit is ${INPUT_BYTES_MAX}`,
      );
    }
    this.#pendingBytes += bytes.length;
    // A guest that is gone takes nothing: what was typed to it is lost with it.
    const write = async (): Promise<void> => {
      await input(bytes).catch(() => {});
      this.#pendingBytes -= bytes.length;
    };
    this.#writing = this.#writing.then(write);
  }

  /**
   * A reader of what is kept, and then of what comes.
   *
   * @throws XenolithError `CLIENT_LIMIT`.
   */
  follow(): StreamReader<Uint8Array> {
    if (this.#followers.size >= FOLLOWER_COUNT_MAX)
      throw new XenolithError("CLIENT_LIMIT", `${FOLLOWER_COUNT_MAX} readers follow this console already`);
    let at = 0;
    let isOpen = true;
    let waiting: (() => void) | undefined;
    const wake = (): void => waiting?.();
    this.#followers.add(wake);
    const next = async (): Promise<Uint8Array | undefined> => {
      while (isOpen) {
        const { bytes, end } = this.#after(at);
        at = end;
        if (bytes.length > 0) return bytes;
        if (this.#isClosed) return undefined;
        await new Promise<void>((resolve) => (waiting = resolve));
      }
      return undefined;
    };
    const close = (): void => {
      isOpen = false;
      this.#followers.delete(wake);
      wake();
    };
    return { next, close };
  }

  /** Nothing will be printed any more. */
  close(): void {
    this.#isClosed = true;
    this.#input = undefined;
    this.#wake();
  }

  /** What is kept of the output behind position `from`. */
  #after(from: number): { readonly bytes: Uint8Array; readonly end: number } {
    if (from >= this.#end) return { bytes: new Uint8Array(0), end: this.#end };
    const kept = Buffer.concat(this.#chunks);
    const start = Math.max(from, this.#end - Math.min(kept.length, CONSOLE_BYTES_KEPT));
    return { bytes: kept.subarray(kept.length - (this.#end - start)), end: this.#end };
  }

  #wake(): void {
    for (const wake of this.#followers) wake();
  }
}
