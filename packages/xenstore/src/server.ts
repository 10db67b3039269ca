import * as abi from "@xenolith/abi";
import { audit } from "./audit.ts";
import type { ByteChannel } from "./channel.ts";
import { Connection } from "./connection.ts";
import { type DomainRecord, isDomid } from "./domain-table.ts";
import { domainPath, INTRODUCE_DOMAIN, RELEASE_DOMAIN } from "./path.ts";
import type { Quota } from "./quota.ts";
import { type Refusal, refuse } from "./refusal.ts";
import type { Control } from "./request.ts";
import { handleMessage } from "./requests.ts";
import { RingChannel, type RingPage } from "./ring-channel.ts";
import { ServiceQueue } from "./service-queue.ts";
import { Shields } from "./shield.ts";
import { Store } from "./store.ts";

const { XENSTORE_SERVER_FEATURE_RECONNECTION, XENSTORE_SERVER_FEATURE_ERROR, XENSTORE_SERVER_FEATURE_WATCHDEPTH } = abi;

/** How a server is set up; everything has a default. */
export interface XenstoreServerOptions {
  /** Limits of unprivileged domains. */
  readonly quota?: Partial<Quota>;
  /** Requests answered in one turn of the event loop; 64. */
  readonly requestsPerTurn?: number;
  /** Runs the next turn; `setImmediate`. */
  readonly defer?: (turn: () => void) => void;
  /** Milliseconds of a clock that never goes back. */
  readonly now?: () => number;
  /** Reaches the ring page of a domain for an INTRODUCE that comes over the wire; without it those are refused. */
  readonly ringOf?: (domid: number, gfn: number, port: number) => RingPage | undefined;
  /** Hears once of each domain that passes its soft memory limit. */
  readonly onMemoryWarning?: (domid: number, memoryBytes: number) => void;
}

/**
 * The xenstore daemon: one store, any number of connections, each served a request at a time in turn. Guests are
 * connected with `introduceDomain`, the control domain with `connectControl`.
 *
 * A domain begins with `createDomain` (permissions can name it from then on) and ends with `releaseDomain`; a later one
 * of the same number has nothing of it.
 */
export class XenstoreServer {
  readonly store: Store;
  readonly #options: XenstoreServerOptions;
  readonly #queue: ServiceQueue<Connection>;
  readonly #shields: Shields;
  readonly #connections = new Set<Connection>();
  /** Connections of domains. */
  readonly #rings = new Map<number, Connection>();
  readonly #warned = new WeakSet<DomainRecord>();
  readonly #control: Control;

  constructor(options: XenstoreServerOptions = {}) {
    this.#options = options;
    this.store = new Store(options.quota);
    this.#queue = new ServiceQueue({
      serve: (connection) => this.#serve(connection),
      piecesPerTurn: options.requestsPerTurn ?? 64,
      defer: options.defer ?? setImmediate,
    });
    this.#shields = new Shields(options.now ?? (() => performance.now()), (domids) => {
      for (const domid of domids) this.wake(domid);
    });
    this.#control = this.#makeControl();
  }

  /** Connections that there are, those of domains included. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  /** The connection of a domain that was introduced. */
  connectionOf(domid: number): Connection | undefined {
    return this.#rings.get(domid);
  }

  /** Connects the control domain: the stream may ask for everything. */
  connectControl(channel: ByteChannel): Connection {
    return this.#connect(this.store.domains.control, channel);
  }

  /** Makes the domain known, so that permissions can name it. Does nothing for one that is known. */
  createDomain(domid: number): void {
    this.#domain(domid);
  }

  /** Serves a domain over its ring page, from now on or anew, and fires `@introduceDomain`. */
  introduceDomain(domid: number, page: RingPage): void {
    const record = this.#domain(domid);
    this.#disconnect(domid);
    const channel = new RingChannel(page, record.features ?? this.#control.featuresOffered);
    this.#rings.set(domid, this.#connect(record, channel));
    record.introduced = true;
    record.ended = false;
    this.store.fireSpecial(INTRODUCE_DOMAIN, domid);
    this.wake(domid);
  }

  /** The guest moved its producer or consumer index. Cheap, whoever calls it how often. */
  wake(domid: number): void {
    const connection = this.#rings.get(domid);
    if (connection !== undefined) this.#queue.wake(connection);
  }

  /** The domain shut down or crashed: `@releaseDomain` is fired, once. It can still use its ring. */
  domainDied(domid: number): void {
    const record = this.store.domains.find(domid);
    if (record === undefined || record.privileged || record.ended) return;
    record.ended = true;
    this.store.fireSpecial(RELEASE_DOMAIN, domid);
  }

  /** Ends the connection, its watches and transactions; the domain and its nodes stay, as for a kexec. */
  disconnectDomain(domid: number): boolean {
    const record = this.store.domains.find(domid);
    if (record === undefined || record.privileged || !record.introduced) return false;
    record.introduced = false;
    this.#disconnect(domid);
    this.domainDied(domid);
    return true;
  }

  /**
   * Ends the domain: its connection, watches, transactions and nodes, all that permissions say of it, and its home
   * unless `keepHome`. Fires `@releaseDomain` unless `domainDied` has. False if there is no such domain.
   */
  releaseDomain(domid: number, { keepHome = false }: { readonly keepHome?: boolean } = {}): boolean {
    const record = this.store.domains.find(domid);
    if (record === undefined || record.privileged) return false;
    record.introduced = false;
    this.#disconnect(domid);
    if (!keepHome) this.store.remove(this.store.domains.control, domainPath(domid));
    this.store.forget(record);
    if (!record.ended) this.store.fireSpecial(RELEASE_DOMAIN, domid);
    record.ended = true;
    return true;
  }

  /** The domain runs again after a suspend that it survived: its next end is a new one. */
  resumeDomain(domid: number): boolean {
    const record = this.store.domains.find(domid);
    if (record === undefined) return false;
    record.ended = false;
    return true;
  }

  /** Ends one connection. May be called again. */
  disconnect(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    this.#queue.forget(connection);
    connection.reset();
    this.#shields.lower(connection);
    connection.channel.close();
  }

  /** Says that the connection's channel may have work. */
  wakeConnection(connection: Connection): void {
    if (this.#connections.has(connection)) this.#queue.wake(connection);
  }

  /** Serves until nothing is left to do, without giving way to the event loop. */
  runUntilIdle(): void {
    this.#queue.runUntilIdle();
  }

  /** Ends all connections. */
  close(): void {
    for (const connection of this.#connections) this.disconnect(connection);
    this.#rings.clear();
  }

  #domain(domid: number): DomainRecord {
    if (!isDomid(domid) || domid === 0) {
      throw new abi.XenolithError("INVALID_ARGUMENT", `domain ${domid} is not a number from 1 to 32751`);
    }
    return this.store.domains.create(domid);
  }

  #connect(record: DomainRecord, channel: ByteChannel): Connection {
    const connection = new Connection(this.store, record, channel, (woken) => this.wakeConnection(woken));
    this.#connections.add(connection);
    this.#queue.wake(connection);
    return connection;
  }

  #disconnect(domid: number): void {
    const connection = this.#rings.get(domid);
    this.#rings.delete(domid);
    if (connection !== undefined) this.disconnect(connection);
  }

  /** One request at most, and as much output as the channel takes. True if there may be more to do. */
  #serve(connection: Connection): boolean {
    const { channel } = connection;
    const state = channel.state();
    if (state === "closed") this.disconnect(connection);
    if (state === "reset" || state === "stopped") this.#void(connection);
    if (state === "closed" || state === "stopped") return false;
    const sent = connection.output.sendTo(channel);
    const progress = !connection.saturated && !this.#shields.holds(connection) && this.#receive(connection);
    if (progress) connection.output.sendTo(channel);
    channel.flush(!progress || connection.saturated);
    return sent || progress || state === "reset" || channel.stopped;
  }

  #void(connection: Connection): void {
    connection.reset();
    this.#shields.lower(connection);
  }

  /** Reads what there is of one message, and answers it when it is complete. True if anything was read. */
  #receive(connection: Connection): boolean {
    const { channel, reader } = connection;
    let any = false;
    for (let room = reader.room; room.length > 0; room = reader.room) {
      const count = channel.read(room);
      if (count === 0) return any;
      any = true;
      reader.advance(count);
    }
    if (reader.broken) {
      channel.fail();
      return true;
    }
    const message = reader.take();
    if (message !== undefined) {
      handleMessage(message, connection, { store: this.store, control: this.#control });
      this.#warn(connection.caller);
    }
    return true;
  }

  #warn(record: DomainRecord): void {
    if (record.privileged || record.memoryBytes <= this.store.domains.limit(record, "memory-soft")) return;
    if (this.#warned.has(record)) return;
    this.#warned.add(record);
    this.#options.onMemoryWarning?.(record.domid, record.memoryBytes);
  }

  #makeControl(): Control {
    return {
      featuresOffered:
        XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR | XENSTORE_SERVER_FEATURE_WATCHDEPTH,
      introduce: (domid, gfn, port) => {
        const page = this.#options.ringOf?.(domid, gfn, port);
        if (page === undefined) return refuse(this.#options.ringOf === undefined ? "ENOSYS" : "EINVAL");
        this.introduceDomain(domid, page);
        return true;
      },
      release: (domid) => this.disconnectDomain(domid) || refuse("ENOENT"),
      resume: (domid) => this.resumeDomain(domid) || refuse("ENOENT"),
      command: (words) => this.#command(words),
      shield: (connection) => this.#shields.raise(connection),
      unshield: (connection) => this.#shields.lower(connection),
    };
  }

  /** CONTROL: `help`, `check` (a recount of everything), `memreport`. */
  #command([name, ...rest]: readonly string[]): string | Refusal {
    if (rest.length > 0) return refuse("EINVAL");
    if (name === "help") return "check help memreport";
    if (name === "check") return this.audit().join("\n").slice(0, 4000) || "OK";
    if (name !== "memreport") return refuse("ENOSYS");
    const lines = [...this.store.domains].map(
      ({ domid, nodes, watchCount, memoryBytes }) =>
        `domain ${domid} nodes ${nodes.size} watches ${watchCount} bytes ${memoryBytes}`,
    );
    return lines.join("\n").slice(0, 4000);
  }

  /** Everything recounted from scratch; what does not agree. Empty when all is well. */
  audit(): string[] {
    return audit(this.store, this.#connections);
  }
}
