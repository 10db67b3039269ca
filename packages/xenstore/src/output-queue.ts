import { XS_WATCH_EVENT } from "@xenolith/abi";
import type { ByteChannel } from "./channel.ts";
import { shownPath, watchPath } from "./watch-dispatch.ts";
import type { PendingEvent, Watch } from "./watch-index.ts";
import { encodeMessage, joinStrings } from "./wire.ts";

/** How much may wait for a peer that does not read. */
export interface OutputLimits {
  /** Events of one watch; when more wait they become one, for the watched path itself. */
  readonly eventsPerWatch: number;
  /** Bytes of all events; above it each watch keeps one. */
  readonly eventBytes: number;
}

const EVENT_BYTES = 64;

const bytesOf = ({ watch, path }: Pick<PendingEvent, "watch" | "path">): number =>
  EVENT_BYTES + path.length + watch.token.length;

/**
 * What a connection has to send, in the order in which it came about: replies as they are, events as a note that is
 * made into a message when its turn comes. An event that waits already is not noted again. Whole messages only.
 */
export class OutputQueue {
  readonly #limits: OutputLimits;
  readonly #replies: Uint8Array[] = [];
  readonly #events = new Set<PendingEvent>();
  #eventBytes = 0;
  #repliesQueued = 0;
  #repliesTaken = 0;
  #current: Uint8Array | undefined;
  #currentIsReply = false;
  #sent = 0;

  constructor(limits: OutputLimits) {
    this.#limits = limits;
  }

  /** Replies that the peer has not taken whole. */
  get outstanding(): number {
    return this.#replies.length + (this.#current !== undefined && this.#currentIsReply ? 1 : 0);
  }

  get eventCount(): number {
    return this.#events.size;
  }

  get eventBytes(): number {
    return this.#eventBytes;
  }

  reply(message: Uint8Array): void {
    this.#replies.push(message);
    this.#repliesQueued += 1;
  }

  event(watch: Watch, path: string): void {
    if (watch.pending.has(path)) return;
    const bytes = bytesOf({ watch, path });
    const full =
      watch.pending.size >= this.#limits.eventsPerWatch || this.#eventBytes + bytes > this.#limits.eventBytes;
    if (full) this.#mergeEvents(watch);
    else this.#add({ watch, path, afterReplies: this.#repliesQueued });
  }

  /** Forgets the events of a watch. */
  forget(watch: Watch): void {
    for (const event of watch.pending.values()) this.#drop(event);
    watch.pending.clear();
  }

  /** Forgets everything. */
  clear(): void {
    for (const { watch } of this.#events) watch.pending.clear();
    this.#events.clear();
    this.#eventBytes = 0;
    this.#replies.length = 0;
    this.#repliesTaken = this.#repliesQueued;
    this.#current = undefined;
    this.#sent = 0;
  }

  /** Sends as much as the channel takes. True when it took something. */
  sendTo(channel: ByteChannel): boolean {
    let any = false;
    for (let message = this.#next(); message !== undefined; message = this.#next()) {
      const count = channel.write(this.#sent === 0 ? message : message.subarray(this.#sent));
      if (count === 0) return any;
      any = true;
      this.#sent += count;
      if (this.#sent < message.length) continue;
      this.#current = undefined;
      this.#sent = 0;
    }
    return any;
  }

  #next(): Uint8Array | undefined {
    this.#current ??= this.#take();
    return this.#current;
  }

  #take(): Uint8Array | undefined {
    const [event] = this.#events;
    if (event !== undefined && event.afterReplies <= this.#repliesTaken) {
      this.#currentIsReply = false;
      return this.#encode(event);
    }
    const reply = this.#replies.shift();
    if (reply === undefined) return undefined;
    this.#currentIsReply = true;
    this.#repliesTaken += 1;
    return reply;
  }

  #encode(event: PendingEvent): Uint8Array {
    const { watch, path } = event;
    watch.pending.delete(path);
    this.#drop(event);
    const payload = joinStrings([shownPath(watch, path), watch.token]);
    return encodeMessage({ type: XS_WATCH_EVENT, requestId: 0, transactionId: 0, payload });
  }

  #add(event: PendingEvent): void {
    event.watch.pending.set(event.path, event);
    this.#events.add(event);
    this.#eventBytes += bytesOf(event);
  }

  #drop(event: PendingEvent): void {
    if (this.#events.delete(event)) this.#eventBytes -= bytesOf(event);
  }

  /** "Something below": the peer has to look again itself, which it must be ready for anyway. */
  #mergeEvents(watch: Watch): void {
    this.forget(watch);
    this.#add({ watch, path: watchPath(watch), afterReplies: this.#repliesQueued });
  }
}
