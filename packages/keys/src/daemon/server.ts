import { createServer, type Server, type Socket } from "node:net";
import type { KeyService } from "../service.ts";
import type { PeerIdentity } from "./caller.ts";
import type { Log } from "./log.ts";
import type { DaemonMetrics } from "./metrics.ts";
import type { ProcessRegistry } from "./process-registry.ts";
import { ServedConnection, type Surroundings } from "./served-connection.ts";
import { listenAt, listenInherited } from "./socket-place.ts";

/** What a server is made of. */
export interface KeyServerOptions {
  readonly service: KeyService;
  readonly registry: ProcessRegistry;
  readonly metrics: DaemonMetrics;
  readonly log: Log;
  /** Who is at the other end of the socket with this descriptor, as the kernel recorded it; a negated error number if it does not say. */
  readonly peerCredentials: (descriptor: number) => PeerIdentity | number;
  /** Connections of all users together. */
  readonly connectionsMax?: number;
  /** Connections of one user other than root. */
  readonly connectionsPerUserMax?: number;
}

const CONNECTIONS_MAX = 4096;
const CONNECTIONS_PER_USER_MAX = 512;

/** Serves keys over a Unix socket. */
export class KeyServer implements AsyncDisposable {
  readonly #options: KeyServerOptions;
  readonly #server: Server;
  readonly #connections = new Set<ServedConnection>();
  readonly #perUser = new Map<number, number>();
  readonly #surroundings: Surroundings;
  #remove: () => Promise<void> = () => Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(options: KeyServerOptions) {
    this.#options = options;
    this.#surroundings = {
      service: options.service,
      metrics: options.metrics,
      onBroken: ({ pid, uid }, reason) => options.log.event("warning", "protocol broken", { pid, uid, reason }),
      onClosed: (connection) => this.#closed(connection),
    };
    this.#server = createServer({ pauseOnConnect: true }, (socket) => this.#accept(socket));
  }

  /** Listens at a path with these permissions. `SERVICE_RUNNING`, `SYSTEM_CALL`. */
  async listen(path: string, mode: number): Promise<void> {
    this.#remove = await listenAt(this.#server, path, mode);
  }

  /** Listens on a descriptor that was handed to this process. `SYSTEM_CALL`. */
  async listenOn(descriptor: number): Promise<void> {
    await listenInherited(this.#server, descriptor);
  }

  /** Hangs up on everybody and removes the socket. May be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const connection of [...this.#connections]) connection.close();
    await this.#remove();
    await closed;
  }

  #accept(socket: Socket): void {
    const { metrics, log, registry } = this.#options;
    const peer = this.#peerOf(socket);
    const refusal = typeof peer === "number" ? "the kernel does not say who it is" : this.#isFull(peer);
    const caller = typeof peer === "number" || refusal !== undefined ? undefined : registry.identify(peer);
    if (caller === undefined) {
      metrics.refusedConnections += 1;
      const ids = typeof peer === "number" ? {} : { pid: peer.pid, uid: peer.uid };
      log.event("warning", "connection refused", { ...ids, reason: refusal ?? "its process is gone" });
      socket.destroy();
      return;
    }
    metrics.connections += 1;
    metrics.connectionsTotal += 1;
    this.#perUser.set(caller.uid, (this.#perUser.get(caller.uid) ?? 0) + 1);
    this.#connections.add(new ServedConnection(socket, caller, this.#surroundings));
    log.event("debug", "connected", { pid: caller.pid, uid: caller.uid });
  }

  #peerOf(socket: Socket): PeerIdentity | number {
    const descriptor = descriptorOf(socket);
    return descriptor === undefined ? -1 : this.#options.peerCredentials(descriptor);
  }

  #isFull({ uid }: PeerIdentity): string | undefined {
    const { connectionsMax = CONNECTIONS_MAX, connectionsPerUserMax = CONNECTIONS_PER_USER_MAX } = this.#options;
    if (this.#connections.size >= connectionsMax) return `there are ${connectionsMax} connections`;
    if (uid !== 0 && (this.#perUser.get(uid) ?? 0) >= connectionsPerUserMax) {
      return `its user has ${connectionsPerUserMax} connections`;
    }
    return undefined;
  }

  #closed(connection: ServedConnection): void {
    const { caller } = connection;
    if (!this.#connections.delete(connection)) return;
    this.#options.metrics.connections -= 1;
    const count = this.#perUser.get(caller.uid)! - 1;
    if (count === 0) this.#perUser.delete(caller.uid);
    else this.#perUser.set(caller.uid, count);
    this.#options.registry.disconnected(caller);
    this.#options.log.event("debug", "disconnected", { pid: caller.pid, uid: caller.uid });
  }
}

/** Node does not tell the descriptor of a socket in any other way. */
const descriptorOf = (socket: Socket): number | undefined => {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const { _handle: handle } = socket as unknown as { readonly _handle?: { readonly fd?: number } | null };
  const descriptor = handle?.fd;
  return descriptor === undefined || descriptor < 0 ? undefined : descriptor;
};
