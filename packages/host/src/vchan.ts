/**
 * One end of a vchan in the control domain: a stream of bytes each way to or from a guest, through memory that the
 * server shares with the client. Made by `HostVchans`.
 */
import { XenolithError } from "@xenolith/abi";
import { type ActionOptions, bounded, checkBounds } from "./action.ts";
import type { Dom0Events } from "./dom0-events.ts";
import { LIVE_WAITING, NOTIFY_READ, NOTIFY_WRITE, type VchanRings } from "./vchan-ring.ts";

/** Whether the other end is there: not yet, now, or no more. */
export type VchanState = "waiting" | "open" | "closed";

/** What an end is made of. Not for users of the library. */
export interface VchanParts {
  readonly rings: VchanRings;
  readonly events: Dom0Events;
  readonly port: number;
  readonly domid: number;
  readonly isRevokable: boolean;
  /** Whether the other end can still reach the pages, as far as the hypervisor knows. */
  readonly isReachable: () => boolean;
  /** Server of a revokable channel: takes all pages back. */
  readonly revoke: (() => void) | undefined;
  /** Withdraws the offer and gives the memory back. */
  readonly release: () => Promise<void>;
}

/** A waiter looks again this often: an end that died may have left no word. */
const LOOK_AGAIN_MS = 500;
/** Bytes that `receive` hands out at most unless told otherwise. */
const RECEIVE_BYTES = 65_536;

/** An end of a channel. Calls of one direction are made one after the other. */
export class Vchan implements AsyncDisposable {
  /** The domain at the other end. */
  readonly domid: number;
  /** Whether the server may take the pages back. */
  readonly isRevokable: boolean;
  readonly #parts: VchanParts;
  /** Resolved and replaced with each event. */
  #change: PromiseWithResolver = withResolver();
  #closing: Promise<void> | undefined;

  /** Only `HostVchans` makes them. */
  constructor(parts: VchanParts) {
    this.#parts = parts;
    this.domid = parts.domid;
    this.isRevokable = parts.isRevokable;
    parts.events.on(parts.port, () => this.#onEvent());
  }

  /** Whether the other end is there. */
  get state(): VchanState {
    const { rings, isReachable } = this.#parts;
    const live = this.#closing === undefined ? rings.peerLive : 0;
    if (live >= LIVE_WAITING) return "waiting";
    return live === 1 && isReachable() ? "open" : "closed";
  }

  /**
   * Bytes that can be read without waiting.
   *
   * @throws XenolithError `CHANNEL_BROKEN`.
   */
  get readableBytes(): number {
    return Math.max(0, this.#readable());
  }

  /**
   * Bytes that can be written without waiting.
   *
   * @throws XenolithError `CHANNEL_BROKEN`.
   */
  get writableBytes(): number {
    return this.state === "closed" ? 0 : Math.max(0, this.#writable());
  }

  /**
   * Reads what is there, at most `into.length` bytes, and returns how many. 0: nothing is there now.
   *
   * @throws XenolithError `CHANNEL_BROKEN`.
   */
  read(into: Uint8Array): number {
    const { rings, events, port } = this.#parts;
    const count = Math.min(into.length, Math.max(0, this.#readable()));
    if (count === 0 || !rings.take(into.subarray(0, count))) return 0;
    if (rings.takeRequest(NOTIFY_READ)) events.send(port);
    return count;
  }

  /**
   * Writes what there is room for and returns how many bytes that were.
   *
   * @throws XenolithError `CHANNEL_CLOSED`, `CHANNEL_BROKEN`.
   */
  write(bytes: Uint8Array): number {
    const { rings, events, port } = this.#parts;
    if (this.state === "closed") throw this.#closed();
    const count = Math.min(bytes.length, Math.max(0, this.#writable()));
    if (count === 0) return 0;
    rings.put(bytes.subarray(0, count));
    if (rings.takeRequest(NOTIFY_WRITE)) events.send(port);
    return count;
  }

  /**
   * Waits for bytes and returns those that are there, at most `lengthMax`; undefined: the other end is gone, and all that
   * it sent has been read.
   *
   * @throws XenolithError `CHANNEL_BROKEN`, `TIMEOUT`, `ABORTED`.
   */
  async receive(options: ActionOptions & { readonly lengthMax?: number } = {}): Promise<Uint8Array | undefined> {
    const { lengthMax = RECEIVE_BYTES } = options;
    checkLength(lengthMax, Infinity);
    const count = await this.#await("receive", () => this.#readable(), 1, NOTIFY_WRITE, options);
    return count < 1 ? undefined : this.#taken(Math.min(count, lengthMax));
  }

  /**
   * Waits for exactly `length` bytes: a packet of known size. undefined: the other end is gone and has sent less.
   *
   * @throws XenolithError `INVALID_SIZE` (more than the ring can hold), `CHANNEL_BROKEN`, `TIMEOUT`, `ABORTED`.
   */
  async receivePacket(length: number, options: ActionOptions = {}): Promise<Uint8Array | undefined> {
    checkLength(length, this.#parts.rings.incomingBytes);
    const count = await this.#await("receive", () => this.#readable(), length, NOTIFY_WRITE, options);
    return count < length ? undefined : this.#taken(length);
  }

  /**
   * Writes all of `bytes`, waiting for room.
   *
   * @throws XenolithError `CHANNEL_CLOSED`, `CHANNEL_BROKEN`, `TIMEOUT`, `ABORTED`: then a part may have been written.
   */
  async send(bytes: Uint8Array, options: ActionOptions = {}): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      const room = await this.#await("send", () => this.#writable(), 1, NOTIFY_READ, options);
      if (room < 1) throw this.#closed();
      done += this.write(bytes.subarray(done));
    }
  }

  /**
   * Writes all of `bytes` at once, when there is room for them: a packet.
   *
   * @throws XenolithError `INVALID_SIZE` (more than the ring can hold), `CHANNEL_CLOSED`, `CHANNEL_BROKEN`, `TIMEOUT`,
   * `ABORTED`: then nothing was written.
   */
  async sendPacket(bytes: Uint8Array, options: ActionOptions = {}): Promise<void> {
    checkLength(bytes.length, this.#parts.rings.outgoingBytes);
    const room = await this.#await("send", () => this.#writable(), bytes.length, NOTIFY_READ, options);
    if (room < bytes.length || this.state === "closed") throw this.#closed();
    this.write(bytes);
  }

  /** What arrives, until the other end is gone. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    for (let chunk = await this.receive(); chunk !== undefined; chunk = await this.receive()) yield chunk;
  }

  /**
   * Waits until the other end is there.
   *
   * @throws XenolithError `CHANNEL_CLOSED`, `TIMEOUT`, `ABORTED`.
   */
  async opened(options: ActionOptions = {}): Promise<void> {
    const isThere = (): number => (this.state === "waiting" ? 0 : 1);
    await this.#await("opening", isThere, 1, NOTIFY_WRITE, options);
    if (this.state !== "open") throw this.#closed();
  }

  /**
   * Server of a revokable channel: takes all pages back. When this returns the client can neither read nor change them.
   * What it had written before can still be read.
   *
   * @throws XenolithError `INVALID_ARGUMENT`: not such an end.
   */
  revoke(): void {
    const { revoke, events, port } = this.#parts;
    if (revoke === undefined) throw new XenolithError("INVALID_ARGUMENT", "only the server of a revokable channel can");
    revoke();
    events.send(port);
    this.#wake();
  }

  /** Ends the channel and gives its memory back; that of a plain one when the other end has let go of it too. */
  close(): Promise<void> {
    this.#closing ??= this.#closeNow();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #closeNow(): Promise<void> {
    const { rings, events, port, release } = this.#parts;
    rings.close();
    const released = release();
    events.send(port);
    events.close(port);
    this.#wake();
    await released;
  }

  /** Looks for `wanted` until it is there, or never will be; returns the last look. */
  async #await(what: string, look: () => number, wanted: number, bit: number, options: ActionOptions): Promise<number> {
    checkBounds(what, options);
    const isGivenUp = { value: false };
    const waited = this.#wait(look, wanted, bit, isGivenUp);
    return bounded(`${what} on the channel with domain ${this.domid}`, waited, options, () => {
      isGivenUp.value = true;
      this.#wake();
    });
  }

  async #wait(look: () => number, wanted: number, bit: number, isGivenUp: { value: boolean }): Promise<number> {
    for (;;) {
      // In this order: what the other end did before it went is seen by the last look.
      const change = this.#change.promise;
      const isOpen = this.state !== "closed";
      let count = look();
      if (count >= wanted) return count;
      this.#parts.rings.request(bit);
      count = look();
      if (count >= wanted || count < 0 || !isOpen || isGivenUp.value) return count;
      await soon(change);
    }
  }

  #taken(count: number): Uint8Array | undefined {
    const bytes = new Uint8Array(count);
    return this.read(bytes) === count ? bytes : undefined;
  }

  #readable(): number {
    return this.#judged(this.#parts.rings.readable);
  }

  #writable(): number {
    return this.#judged(this.#parts.rings.writable);
  }

  #judged(count: number): number {
    if (this.#parts.rings.fault !== "broken") return count;
    const problem = `the other end of the channel, domain ${this.domid}, wrote an index that cannot be`;
    throw new XenolithError("CHANNEL_BROKEN", problem);
  }

  #onEvent(): boolean {
    const hadWaiters = this.#change.isUsed;
    this.#wake();
    return hadWaiters;
  }

  #wake(): void {
    const change = this.#change;
    this.#change = withResolver();
    change.resolve();
  }

  #closed(): XenolithError {
    return new XenolithError("CHANNEL_CLOSED", `the other end of the channel, domain ${this.domid}, is gone`);
  }
}

const checkLength = (length: number, limit: number): void => {
  if (Number.isInteger(length) && length >= 1 && length <= limit) return;
  if (length === Infinity && limit === Infinity) return;
  throw new XenolithError("INVALID_SIZE", `length is ${length} bytes, it must be 1 to ${limit}`);
};

interface PromiseWithResolver {
  /** Reading it says that somebody waits. */
  readonly promise: Promise<void>;
  readonly isUsed: boolean;
  resolve(): void;
}

const withResolver = (): PromiseWithResolver => {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((resolvePromise) => (resolve = resolvePromise));
  let isUsed = false;
  return {
    get promise(): Promise<void> {
      isUsed = true;
      return promise;
    },
    get isUsed(): boolean {
      return isUsed;
    },
    resolve,
  };
};

/** Resolves with `change`, or after a while without it. Keeps the process alive no longer than others do. */
const soon = (change: Promise<void>): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, LOOK_AGAIN_MS).unref();
    void change.then(() => {
      clearTimeout(timer);
      resolve();
    });
  });
