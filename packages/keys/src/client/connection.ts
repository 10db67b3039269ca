import { XenolithError } from "@xenolith/abi/error";
import { createConnection, type Socket } from "node:net";
import { FrameInput } from "./frame-input.ts";
import { FrameOutput } from "./frame-output.ts";
import {
  FRAME_BYTES_MAX,
  NO_REQUEST,
  type OperationName,
  operations,
  PROTOCOL_MAGIC,
  PROTOCOL_VERSION,
  type SentArguments,
} from "./protocol.ts";

/** What the daemon answered. */
export interface KeyReply {
  /** A serial, a length or 0; or a negated error number. */
  readonly result: number;
  /** What goes with it; empty for most. The receiver's own copy. */
  readonly bytes: Uint8Array;
}

interface Waiter {
  /** Where the bytes go, instead of a copy of their own. */
  readonly target: Uint8Array | undefined;
  readonly resolve: (reply: KeyReply) => void;
  readonly reject: (error: XenolithError) => void;
}

/** How one operation is called. */
export interface CallOptions {
  /** When it fires, the call rejects with `ABORTED` and the daemon is told to end the wait. */
  readonly signal?: AbortSignal | undefined;
  /** The reply's bytes are put here instead of into memory of their own; what does not fit is dropped. */
  readonly target?: Uint8Array | undefined;
}

const RECEIVE_BYTES = 64 * 1024;
const GATHER_BYTES_MAX = 64 * 1024;
const NOTHING = new Uint8Array(0);
/** EINVAL: what the kernel says of a payload that is too long, before it looks at anything else. */
const TOO_LONG = -22;

/**
 * A connection to `xkeyd`, operation by operation: results are numbers as system calls return them, and the only
 * errors are those of the connection. Calls may be made without waiting for earlier ones; they are carried out in the
 * order in which they were made, and only those wait that have to.
 */
export class KeyConnection implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #input = new FrameInput();
  readonly #output = new FrameOutput();
  readonly #waiters = new Map<number, Waiter>();
  #nextId = 1;
  #flushDue = false;
  #failure: XenolithError | undefined;
  readonly #closed: Promise<void>;

  private constructor(path: string) {
    const buffer = Buffer.alloc(RECEIVE_BYTES);
    this.#socket = createConnection({
      path,
      onread: {
        buffer,
        callback: (count) => {
          this.#input.push(buffer.subarray(0, count));
          buffer.fill(0, 0, count);
          this.#receive();
          return true;
        },
      },
    });
    this.#closed = new Promise((resolve) => {
      this.#socket.on("close", () => {
        this.#fail(new XenolithError("CHANNEL_CLOSED", "the key daemon closed the connection"));
        resolve();
      });
    });
    this.#socket.on("error", (cause) => {
      this.#fail(new XenolithError("DAEMON_UNREACHABLE", `the key daemon at ${path}: ${cause.message}`, { cause }));
    });
  }

  /**
   * Connects to the daemon at this path. `DAEMON_UNREACHABLE`, `ABORTED`, or `DAEMON_ANSWER` when what answers is no
   * key daemon or one of another version.
   */
  static async connect(
    path: string,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<KeyConnection> {
    const connection = new KeyConnection(path);
    try {
      const { result } = await connection.call("hello", [PROTOCOL_MAGIC, PROTOCOL_VERSION], options);
      if (result === PROTOCOL_VERSION) return connection;
      throw new XenolithError(
        "DAEMON_ANSWER",
        `the daemon at ${path} speaks version ${result}, not ${PROTOCOL_VERSION}`,
      );
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  /** Carries out one operation. Rejects with `CHANNEL_CLOSED`, `CHANNEL_BROKEN` or `ABORTED` only. */
  call<Name extends OperationName>(
    name: Name,
    given: SentArguments<Name>,
    { signal, target }: CallOptions = {},
  ): Promise<KeyReply> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (signal?.aborted === true) return Promise.reject(aborted(signal));
    const id = this.#takeId();
    if (!this.#send(id, name, given)) return Promise.resolve({ result: TOO_LONG, bytes: NOTHING });
    return new Promise((resolve, reject) => {
      const waiter: Waiter = { target, resolve, reject };
      this.#waiters.set(id, signal === undefined ? waiter : this.#abortable(id, waiter, signal));
    });
  }

  /** The result of one operation whose reply has no bytes. */
  async result<Name extends OperationName>(
    name: Name,
    given: SentArguments<Name>,
    options: CallOptions = {},
  ): Promise<number> {
    return (await this.call(name, given, options)).result;
  }

  /** Whether the program is kept alive by this connection; true at first. */
  keepAlive(keep: boolean): void {
    if (keep) this.#socket.ref();
    else this.#socket.unref();
  }

  /** Closes the connection; what still waits rejects with `CHANNEL_CLOSED`. May be called again. */
  async close(): Promise<void> {
    this.#fail(new XenolithError("CHANNEL_CLOSED", "the connection to the key daemon was closed"));
    await this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #takeId(): number {
    do this.#nextId = this.#nextId >= NO_REQUEST - 1 ? 1 : this.#nextId + 1;
    while (this.#waiters.has(this.#nextId));
    return this.#nextId;
  }

  /** Puts the request among those that leave together; false when it is longer than a frame may be. */
  #send(id: number, name: OperationName, given: readonly (number | string | Uint8Array | null)[]): boolean {
    const output = this.#output;
    let length = 0;
    for (const value of given) if (typeof value === "object" && value !== null) length += value.length;
    if (length > FRAME_BYTES_MAX) return false;
    output.begin(id, operations[name].code);
    for (const value of given) {
      if (typeof value === "number") output.word(value);
      else output.run(value);
    }
    if (output.end() > FRAME_BYTES_MAX) {
      output.abandon();
      return false;
    }
    if (output.bytes >= GATHER_BYTES_MAX) this.#flush();
    else if (!this.#flushDue) {
      this.#flushDue = true;
      queueMicrotask(() => this.#flush());
    }
    return true;
  }

  #flush(): void {
    this.#flushDue = false;
    if (this.#output.bytes === 0 || this.#failure !== undefined) return;
    const sent = this.#output.take();
    this.#socket.write(sent, () => this.#output.recycle(sent));
  }

  #abortable(id: number, waiter: Waiter, signal: AbortSignal): Waiter {
    const onAbort = (): void => {
      // The reply still comes; until then its number is taken.
      this.#waiters.set(id, { target: undefined, resolve: () => {}, reject: () => {} });
      this.#send(this.#takeId(), "cancel", [id]);
      waiter.reject(aborted(signal));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    const done = (): void => signal.removeEventListener("abort", onAbort);
    return {
      target: waiter.target,
      resolve: (reply) => {
        done();
        waiter.resolve(reply);
      },
      reject: (error) => {
        done();
        waiter.reject(error);
      },
    };
  }

  #receive(): void {
    for (let frame = this.#input.next(); frame !== undefined; frame = this.#input.next()) {
      if (frame === "broken" || frame.readUInt32LE(0) === NO_REQUEST) {
        const reason = frame === "broken" ? "a frame of impossible length" : frame.toString("latin1", 8);
        this.#fail(new XenolithError("CHANNEL_BROKEN", `the key daemon: ${reason}`));
        return;
      }
      const id = frame.readUInt32LE(0);
      const waiter = this.#waiters.get(id);
      this.#waiters.delete(id);
      if (waiter !== undefined)
        waiter.resolve({ result: frame.readInt32LE(4), bytes: copyBytes(frame, waiter.target) });
    }
  }

  #fail(error: XenolithError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    const waiters = [...this.#waiters.values()];
    this.#waiters.clear();
    this.#input.clear();
    this.#socket.destroy();
    for (const waiter of waiters) waiter.reject(error);
  }
}

const REPLY_BYTES_AT = 8;

const copyBytes = (frame: Buffer, target: Uint8Array | undefined): Uint8Array => {
  if (frame.length === REPLY_BYTES_AT) return NOTHING;
  const bytes = frame.subarray(REPLY_BYTES_AT);
  if (target === undefined) return Uint8Array.prototype.slice.call(bytes);
  const kept = target.subarray(0, bytes.length);
  kept.set(bytes.subarray(0, kept.length));
  return kept;
};

const aborted = (signal: AbortSignal): XenolithError =>
  new XenolithError("ABORTED", "the key operation was aborted", { cause: signal.reason });
