/**
 * What happened, for whoever listens: the latest events, and readers with a bounded queue each. A reader that does not
 * read loses the oldest of its events and is told how many; it never costs more than its queue.
 */
import { XenolithError } from "@xenolith/abi";
import type { ServiceEvent } from "./api-types.ts";
import type { StreamReader } from "./reader-stream.ts";

/** Events that a reader who comes back late can still have. */
export const EVENTS_KEPT_MAX = 1024;
/** Events that wait for one reader. */
export const QUEUE_LENGTH_MAX = 256;
/** Readers at once. */
export const READER_COUNT_MAX = 64;

/** What is told of an event; number and time are added. */
export type EventFacts = Omit<ServiceEvent, "id" | "timeMs">;

/** All events of one service. */
export class EventLog {
  readonly #now: () => number;
  #kept: ServiceEvent[] = [];
  #lastId = 0;
  readonly #readers = new Set<EventReader>();

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** Readers now. */
  get readerCount(): number {
    return this.#readers.size;
  }

  /** Tells all readers, and keeps the event for a while. */
  tell(facts: EventFacts): void {
    this.#lastId += 1;
    const event: ServiceEvent = { id: this.#lastId, timeMs: this.#now(), ...facts };
    this.#kept.push(event);
    if (this.#kept.length > 2 * EVENTS_KEPT_MAX) this.#kept = this.#kept.slice(-EVENTS_KEPT_MAX);
    for (const reader of this.#readers) reader.push(event);
  }

  /**
   * A new reader: of what comes from now on, or of everything after event `afterId`, as far as it is kept.
   *
   * @throws XenolithError `CLIENT_LIMIT`.
   */
  read(afterId?: number): EventReader {
    if (this.#readers.size >= READER_COUNT_MAX)
      throw new XenolithError("CLIENT_LIMIT", `${READER_COUNT_MAX} readers follow the events already`);
    const reader = new EventReader(this.#now, () => this.#readers.delete(reader));
    this.#readers.add(reader);
    if (afterId === undefined || afterId >= this.#lastId) return reader;
    const kept = this.#kept.slice(-EVENTS_KEPT_MAX).filter(({ id }) => id > afterId);
    reader.lose(this.#lastId - afterId - kept.length, afterId);
    for (const event of kept) reader.push(event);
    return reader;
  }

  /** Ends all readers. */
  close(): void {
    for (const reader of this.#readers) reader.close();
  }
}

/** One reader's queue. */
export class EventReader implements StreamReader<ServiceEvent> {
  readonly #now: () => number;
  readonly #onClose: () => void;
  #queue: ServiceEvent[] = [];
  #lostCount = 0;
  #lostBefore = 0;
  #waiting: (() => void) | undefined;
  #isClosed = false;

  /** Only `EventLog` makes these. */
  constructor(now: () => number, onClose: () => void) {
    this.#now = now;
    this.#onClose = onClose;
  }

  /** The next event, first of all how many are missing; undefined at the end. */
  async next(): Promise<ServiceEvent | undefined> {
    for (;;) {
      const event = this.#take();
      if (event !== undefined || this.#isClosed) return event;
      await new Promise<void>((resolve) => (this.#waiting = resolve));
    }
  }

  /** Adds an event; the oldest one goes when there is no room. */
  push(event: ServiceEvent): void {
    this.#queue.push(event);
    if (this.#queue.length > QUEUE_LENGTH_MAX) this.lose(1, this.#queue.shift()!.id);
    this.#waiting?.();
  }

  /** Notes that `count` events up to `id` will not come. */
  lose(count: number, id: number): void {
    this.#lostCount += count;
    this.#lostBefore = id;
  }

  /** No more events. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#onClose();
    this.#waiting?.();
  }

  #take(): ServiceEvent | undefined {
    if (this.#lostCount === 0) return this.#queue.shift();
    const count = this.#lostCount;
    this.#lostCount = 0;
    return { id: this.#lostBefore, timeMs: this.#now(), type: "lost", count };
  }
}
