import * as abi from "@xenolith/abi";
import { XenolithError } from "@xenolith/abi";
import { XenstoreError, isXenstoreError } from "./client-error.ts";
import { type ClientStream, openInProcess, openSocket } from "./client-stream.ts";
import { type XenstoreErrorName } from "./refusal.ts";
import type { XenstoreServer } from "./server.ts";
import { type Ask, type NodePermission, TreeAccess } from "./tree-access.ts";
import { Watcher } from "./watcher.ts";
import { encodeMessage, joinStrings, latinText, type Message, MessageReader, splitStrings } from "./wire.ts";

/** A request without a reply yet. */
interface Pending {
  readonly action: string;
  readonly path: string;
  readonly resolve: (payload: Uint8Array) => void;
  readonly reject: (error: unknown) => void;
}

/** How to watch. */
export interface WatchOptions {
  /** Levels below the node that fire too; all without it. */
  readonly depth?: number;
  /** Ends the watch: its iteration throws `ABORTED`. */
  readonly signal?: AbortSignal;
}

/** How to run a transaction. */
export interface TransactionOptions {
  /** How often the transaction is run before `TIMEOUT`; 100. */
  readonly attemptCountMax?: number;
  readonly signal?: AbortSignal;
}

const errorNames: ReadonlySet<string> = new Set(abi.xsd_errors);
const isErrorName = (name: string): name is XenstoreErrorName => errorNames.has(name);

/**
 * The control domain's client, over a Unix socket or to a server in the same thread. Requests may overlap; the daemon
 * answers them in order. What it refuses is thrown as `XenstoreError`; after the connection ended everything fails with
 * `HOST_CLOSED`.
 */
export class XenstoreClient implements AsyncDisposable {
  readonly #stream: ClientStream;
  readonly #reader = new MessageReader();
  readonly #pending = new Map<number, Pending>();
  readonly #watchers = new Map<string, Watcher>();
  readonly #tree: TreeAccess;
  #lastRequestId = 0;
  #lastToken = 0;
  #closed: XenolithError | undefined;

  /** Takes a stream that nothing was sent over yet. */
  constructor(stream: ClientStream) {
    this.#stream = stream;
    this.#tree = new TreeAccess(this.#ask, 0);
    stream.start({ bytes: (chunk) => this.#receive(chunk), closed: (cause) => this.#end(cause) });
  }

  /** Connects to the Unix socket of a daemon. `SYSTEM_CALL` when nobody listens there; `ABORTED`. */
  static async connect(path: string, options: { readonly signal?: AbortSignal } = {}): Promise<XenstoreClient> {
    return new XenstoreClient(await openSocket(path, options.signal));
  }

  /** Connects to a server in the same thread. */
  static inProcess(server: XenstoreServer): XenstoreClient {
    return new XenstoreClient(openInProcess(server));
  }

  /** Requests without a reply yet. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** @see TreeAccess.readBytes */
  readBytes(path: string): Promise<Uint8Array> {
    return this.#tree.readBytes(path);
  }

  /** @see TreeAccess.read */
  read(path: string): Promise<string> {
    return this.#tree.read(path);
  }

  /** @see TreeAccess.readIfPresent */
  readIfPresent(path: string): Promise<string | undefined> {
    return this.#tree.readIfPresent(path);
  }

  /** @see TreeAccess.write */
  write(path: string, value: string | Uint8Array): Promise<void> {
    return this.#tree.write(path, value);
  }

  /** @see TreeAccess.mkdir */
  mkdir(path: string): Promise<void> {
    return this.#tree.mkdir(path);
  }

  /** @see TreeAccess.rm */
  rm(path: string): Promise<void> {
    return this.#tree.rm(path);
  }

  /** @see TreeAccess.directory */
  directory(path: string): Promise<string[]> {
    return this.#tree.directory(path);
  }

  /** @see TreeAccess.getPermissions */
  getPermissions(path: string): Promise<NodePermission[]> {
    return this.#tree.getPermissions(path);
  }

  /** @see TreeAccess.setPermissions */
  setPermissions(path: string, entries: readonly NodePermission[]): Promise<void> {
    return this.#tree.setPermissions(path, entries);
  }

  /**
   * Watches a node and what is below it, or a special path. The daemon knows of the watch before the first event, which
   * comes at once; what it refuses is thrown by the iteration.
   */
  watch(path: string, { depth, signal }: WatchOptions = {}): Watcher {
    this.#lastToken += 1;
    const token = String(this.#lastToken);
    const abort = (): void => {
      watcher.end(new XenolithError("ABORTED", `the watch of ${path} was aborted`, { cause: signal?.reason }));
      watcher.close().catch(() => {});
    };
    const watcher = new Watcher(path, async () => {
      signal?.removeEventListener("abort", abort);
      if (this.#watchers.delete(token)) await this.#unwatch(path, token);
    });
    if (signal?.aborted === true) abort();
    else this.#addWatch(watcher, token, depth);
    signal?.addEventListener("abort", abort, { once: true });
    return watcher;
  }

  /**
   * Runs `body` in a transaction, again from the start for as long as the commit finds that what it read or wrote has
   * changed. An exception of `body` aborts the transaction and passes on. `TIMEOUT` after too many attempts; `ABORTED`.
   */
  async transaction<T>(body: (tree: TreeAccess) => Promise<T>, options: TransactionOptions = {}): Promise<T> {
    const { attemptCountMax = 100, signal } = options;
    for (let attempt = 0; attempt < attemptCountMax; attempt += 1) {
      if (signal?.aborted === true) {
        throw new XenolithError("ABORTED", "the transaction was aborted", { cause: signal.reason });
      }
      const outcome = await this.#attempt(body);
      if (outcome !== undefined) return outcome.value;
    }
    throw new XenolithError("TIMEOUT", `the transaction met changes of others in each of ${attemptCountMax} attempts`);
  }

  /** Where relative paths of a domain begin. */
  async getDomainPath(domid: number): Promise<string> {
    return this.#text(abi.XS_GET_DOMAIN_PATH, "get the path of domain", [domid]);
  }

  /** Has the daemon serve a domain's ring page. `ENOSYS` where the daemon cannot reach one. */
  async introduce(domid: number, gfn: number, port: number): Promise<void> {
    await this.#text(abi.XS_INTRODUCE, "introduce domain", [domid, gfn, port]);
  }

  /** Ends a domain's connection. `ENOENT`. */
  async release(domid: number): Promise<void> {
    await this.#text(abi.XS_RELEASE, "release domain", [domid]);
  }

  /** Says that a domain runs again after a suspend that it survived. `ENOENT`. */
  async resume(domid: number): Promise<void> {
    await this.#text(abi.XS_RESUME, "resume domain", [domid]);
  }

  /** Whether the store serves this domain. */
  async isDomainIntroduced(domid: number): Promise<boolean> {
    return (await this.#text(abi.XS_IS_DOMAIN_INTRODUCED, "look for domain", [domid])) === "T";
  }

  /** Gives a domain the rights of another. `ENOENT`. */
  async setTarget(domid: number, target: number): Promise<void> {
    await this.#text(abi.XS_SET_TARGET, "set the target of domain", [domid, target]);
  }

  /** The default limit of this name, or that of one domain. `EINVAL`, `ENOENT`. */
  async getQuota(name: string, domid?: number): Promise<number> {
    return Number(await this.#text(abi.XS_GET_QUOTA, "get quota", domid === undefined ? [name] : [domid, name]));
  }

  /** Sets the default limit of this name, or that of one domain. `EINVAL`, `ENOENT`. */
  async setQuota(name: string, value: number, domid?: number): Promise<void> {
    const words = domid === undefined ? [name, value] : [domid, name, value];
    await this.#text(abi.XS_SET_QUOTA, "set quota", words);
  }

  /** The daemon's own commands: `help` lists them. */
  async control(...words: string[]): Promise<string> {
    return this.#text(abi.XS_CONTROL, "control", words);
  }

  /** Ends the connection: watches end, requests without a reply fail. May be called again. */
  close(): void {
    this.#stream.close();
    this.#end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  readonly #ask: Ask = ({ type, action, path, payload, transactionId }) =>
    new Promise((resolve, reject) => {
      if (this.#closed !== undefined) throw this.#closed;
      if (payload.length > abi.XENSTORE_PAYLOAD_MAX) {
        const limit = `${payload.length} bytes, over the limit of ${abi.XENSTORE_PAYLOAD_MAX}`;
        throw new XenolithError("INVALID_SIZE", `xenstore: ${action} ${path.slice(0, 80)}: a request of ${limit}`);
      }
      do this.#lastRequestId = (this.#lastRequestId + 1) >>> 0;
      while (this.#pending.has(this.#lastRequestId));
      this.#pending.set(this.#lastRequestId, { action, path, resolve, reject });
      this.#stream.send(encodeMessage({ type, requestId: this.#lastRequestId, transactionId, payload }));
    });

  async #text(type: number, action: string, words: readonly (string | number)[]): Promise<string> {
    const strings = words.map(String);
    const payload = joinStrings(strings);
    const reply = await this.#ask({ type, action, path: strings.join(" "), payload, transactionId: 0 });
    return latinText(reply).replace(/\0$/, "");
  }

  async #attempt<T>(body: (tree: TreeAccess) => Promise<T>): Promise<{ readonly value: T } | undefined> {
    const transactionId = Number(await this.#text(abi.XS_TRANSACTION_START, "start a transaction", [""]));
    const end = (verdict: "T" | "F"): Promise<Uint8Array> =>
      this.#ask({
        type: abi.XS_TRANSACTION_END,
        action: "end transaction",
        path: String(transactionId),
        payload: joinStrings([verdict]),
        transactionId,
      });
    let value: T;
    try {
      value = await body(new TreeAccess(this.#ask, transactionId));
    } catch (error) {
      await end("F").catch(() => {});
      if (isXenstoreError(error, "EAGAIN")) return undefined;
      throw error;
    }
    try {
      await end("T");
    } catch (error) {
      if (isXenstoreError(error, "EAGAIN")) return undefined;
      throw error;
    }
    return { value };
  }

  #addWatch(watcher: Watcher, token: string, depth: number | undefined): void {
    const { path } = watcher;
    this.#watchers.set(token, watcher);
    const payload = joinStrings([path, token, ...(depth === undefined ? [] : [String(depth)])]);
    this.#ask({ type: abi.XS_WATCH, action: "watch", path, payload, transactionId: 0 }).catch((error: unknown) => {
      this.#watchers.delete(token);
      watcher.end(error);
    });
  }

  async #unwatch(path: string, token: string): Promise<void> {
    const payload = joinStrings([path, token]);
    try {
      await this.#ask({ type: abi.XS_UNWATCH, action: "unwatch", path, payload, transactionId: 0 });
    } catch (error) {
      if (this.#closed === undefined && !isXenstoreError(error, "ENOENT")) throw error;
    }
  }

  #receive(chunk: Uint8Array): void {
    for (let left = chunk; left.length > 0 && this.#closed === undefined;) {
      const { room } = this.#reader;
      const part = left.subarray(0, room.length);
      room.set(part);
      this.#reader.advance(part.length);
      left = left.subarray(part.length);
      const message = this.#reader.take();
      if (message !== undefined) this.#dispatch(message);
      else if (this.#reader.broken) this.close();
    }
  }

  #dispatch({ type, requestId, payload }: Message): void {
    if (type === abi.XS_WATCH_EVENT) {
      const [path, token] = splitStrings(payload) ?? [];
      if (path !== undefined && token !== undefined) this.#watchers.get(token)?.push(path);
      return;
    }
    const pending = this.#pending.get(requestId);
    if (pending === undefined) return;
    this.#pending.delete(requestId);
    if (type !== abi.XS_ERROR) {
      pending.resolve(payload);
      return;
    }
    const name = latinText(payload).replace(/\0$/, "");
    const { action, path } = pending;
    pending.reject(new XenstoreError({ action, path, error: isErrorName(name) ? name : "EIO" }));
  }

  #end(cause?: unknown): void {
    if (this.#closed !== undefined) return;
    this.#closed = new XenolithError("HOST_CLOSED", "the connection to xenstore ended", { cause });
    for (const { reject } of this.#pending.values()) reject(this.#closed);
    this.#pending.clear();
    for (const watcher of this.#watchers.values()) watcher.end(this.#closed);
    this.#watchers.clear();
  }
}
