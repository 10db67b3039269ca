import type { ByteChannel } from "./channel.ts";
import type { DomainRecord } from "./domain-table.ts";
import { OutputQueue } from "./output-queue.ts";
import type { Store } from "./store.ts";
import type { Transaction } from "./transaction.ts";
import type { Watch, WatchIndex, WatchOwner } from "./watch-index.ts";
import { watchPath } from "./watch-dispatch.ts";
import { MessageReader } from "./wire.ts";

const GUEST_OUTPUT = { eventsPerWatch: 64, eventBytes: 256 * 1024 };
const CONTROL_OUTPUT = { eventsPerWatch: 4096, eventBytes: 8 * 2 ** 20 };
/** Requests of a privileged connection whose replies it has not taken. */
const CONTROL_OUTSTANDING_MAX = 256;
const WATCH_BYTES = 256;

/** What a watch costs the domain that set it. */
const watchBytes = (watch: Watch): number => WATCH_BYTES + 2 * watch.written.length + watch.token.length;

/** One peer: its stream, its watches and its transactions. */
export class Connection implements WatchOwner {
  readonly caller: DomainRecord;
  readonly channel: ByteChannel;
  readonly reader = new MessageReader();
  readonly output: OutputQueue;
  readonly watches = new Map<string, Watch>();
  readonly transactions = new Map<number, Transaction>();
  /** Commits that failed one after the other because of others, and who those were. */
  conflictCount = 0;
  readonly culprits = new Set<number>();
  readonly #store: Store;
  readonly #wake: (connection: Connection) => void;
  #newWatch: Watch | undefined;
  #lastTransactionId = 0;

  constructor(store: Store, caller: DomainRecord, channel: ByteChannel, wake: (connection: Connection) => void) {
    this.#store = store;
    this.caller = caller;
    this.channel = channel;
    this.#wake = wake;
    this.output = new OutputQueue(caller.privileged ? CONTROL_OUTPUT : GUEST_OUTPUT);
  }

  /** The peer must take replies before it may ask more. */
  get saturated(): boolean {
    const limit = this.caller.privileged
      ? CONTROL_OUTSTANDING_MAX
      : this.#store.domains.limit(this.caller, "outstanding");
    return this.output.outstanding >= limit;
  }

  /** Queues the event of a watch. */
  queueEvent(watch: Watch, path: string): void {
    this.output.event(watch, path);
    this.#wake(this);
  }

  /** Adds a watch of this connection; its first event follows the next reply. */
  addWatch(key: string, watch: Watch): void {
    this.watches.set(key, watch);
    this.#newWatch = watch;
    this.#indexOf(watch).add(watch);
    this.caller.watchCount += 1;
    this.caller.watchBytes += watchBytes(watch);
  }

  /** Queues a reply, and behind it the event that a new watch gets whatever it may see. */
  reply(message: Uint8Array): void {
    this.output.reply(message);
    const watch = this.#newWatch;
    this.#newWatch = undefined;
    if (watch !== undefined) this.output.event(watch, watchPath(watch));
  }

  /** Removes a watch of this connection; whether there was one. */
  removeWatch(key: string): boolean {
    const watch = this.watches.get(key);
    if (watch === undefined) return false;
    this.watches.delete(key);
    this.#indexOf(watch).remove(watch);
    this.output.forget(watch);
    this.caller.watchCount -= 1;
    this.caller.watchBytes -= watchBytes(watch);
    return true;
  }

  /** Keeps a transaction under a number that no other of this connection has. */
  addTransaction(transaction: Transaction): number {
    do this.#lastTransactionId = (this.#lastTransactionId + 1) >>> 0;
    while (this.#lastTransactionId === 0 || this.transactions.has(this.#lastTransactionId));
    this.transactions.set(this.#lastTransactionId, transaction);
    return this.#lastTransactionId;
  }

  /** Ends all transactions and watches. May be called at any time and again. */
  dropState(): void {
    for (const transaction of this.transactions.values()) this.#store.abort(transaction);
    this.transactions.clear();
    for (const key of [...this.watches.keys()]) this.removeWatch(key);
    this.conflictCount = 0;
    this.culprits.clear();
  }

  /** As after connecting: also what was on its way in either direction is gone. */
  reset(): void {
    this.dropState();
    this.reader.reset();
    this.output.clear();
  }

  #indexOf(watch: Watch): WatchIndex {
    return watch.special ? this.#store.specialWatches : this.#store.watches;
  }
}
