import { KeyConnection } from "./connection.ts";
import { check, KeyHandle, type Ring, ringNumber } from "./key-handle.ts";
import { defaultKeySocket } from "./socket-path.ts";

/** How a key is asked for. */
export interface RequestOptions {
  /** What a helper is told that builds the key; without it the key is only looked for. May be empty. */
  readonly callout?: string | Uint8Array;
  /** Where the key is linked; by default where the caller's keys go: its thread, process or session keyring. */
  readonly destination?: Ring;
  /** Ends the wait for the key. A helper that has been started goes on. */
  readonly signal?: AbortSignal;
}

/** Where the daemon is, and how long to look for it. */
export interface ConnectOptions {
  /** Path of its socket; `$XKEYD_SOCKET`, the machine's or the user's by default. */
  readonly socket?: string;
  readonly signal?: AbortSignal;
}

/**
 * Keys for a program: what keyctl(2) offers, as promises. The daemon knows the program by its process, so the program's
 * own keyrings are those that the shell or service manager gave it.
 *
 * ```ts
 * await using keys = await KeyClient.connect();
 * const key = await keys.request("user", "db:orders", { callout: "read-only" });
 * const password = Buffer.alloc(256);
 * const size = await key.read(password);
 * ```
 */
export class KeyClient implements AsyncDisposable {
  /** The operations themselves, for whatever this class has no method for. */
  readonly connection: KeyConnection;

  constructor(connection: KeyConnection) {
    this.connection = connection;
  }

  /** Connects to the daemon: `DAEMON_UNREACHABLE`, `DAEMON_ANSWER`, `ABORTED`. */
  static async connect({ socket = defaultKeySocket(), signal }: ConnectOptions = {}): Promise<KeyClient> {
    return new KeyClient(await KeyConnection.connect(socket, { signal }));
  }

  /**
   * A key by its type and description: from the program's keyrings if it is there; with a callout, built by a helper
   * otherwise, once, however many ask for it. Rejects with `KeyError`: ENOKEY when there is none, EKEYREJECTED or
   * another error when the helper refused; with `ABORTED`.
   */
  async request(
    type: string,
    description: string,
    { callout, destination, signal }: RequestOptions = {},
  ): Promise<KeyHandle> {
    const ring = destination === undefined ? 0 : ringNumber(destination);
    const given = [type, description, callout ?? null, ring] as const;
    return this.#handle("request", await this.connection.result("requestKey", given, { signal }));
  }

  /** Adds a key to a keyring, or gives the one of that name a new payload. */
  async add(type: string, description: string, payload: Uint8Array, ring: Ring): Promise<KeyHandle> {
    const given = [type, description, payload, ringNumber(ring)] as const;
    return this.#handle("add", await this.connection.result("addKey", given));
  }

  /** Adds a keyring to a keyring. */
  async addRing(name: string, ring: Ring): Promise<KeyHandle> {
    const given = ["keyring", name, null, ringNumber(ring)] as const;
    return this.#handle("addRing", await this.connection.result("addKey", given));
  }

  /** Looks for a key in one keyring and those below it. */
  async search(ring: Ring, type: string, description: string): Promise<KeyHandle> {
    const given = [ringNumber(ring), type, description, 0] as const;
    return this.#handle("search", await this.connection.result("search", given));
  }

  /** One of the program's own keyrings, made if there is none. */
  async ring(ring: Ring): Promise<KeyHandle> {
    return this.#handle("ring", await this.connection.result("getKeyringId", [ringNumber(ring), 1]));
  }

  /** The keys that a keyring links. */
  async list(ring: Ring): Promise<KeyHandle[]> {
    for (let room = 4096; ;) {
      const { result, bytes } = await this.connection.call("read", [ringNumber(ring), room]);
      check("list", result);
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      if (result <= room) {
        return Array.from(
          { length: result / 4 },
          (_, at) => new KeyHandle(this.connection, view.getInt32(at * 4, true)),
        );
      }
      room = result;
    }
  }

  /** Begins a new session keyring for this program and what it starts: one without a name, or of that name. */
  async joinSession(name?: string): Promise<KeyHandle> {
    return this.#handle("joinSession", await this.connection.result("joinSession", [name ?? null]));
  }

  /** Ends the connection; what still waits rejects with `CHANNEL_CLOSED`. */
  async close(): Promise<void> {
    await this.connection.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #handle(operation: string, result: number): KeyHandle {
    return new KeyHandle(this.connection, check(operation, result));
  }
}
