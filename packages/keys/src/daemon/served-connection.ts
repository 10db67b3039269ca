import type { Socket } from "node:net";
import { FrameInput } from "../client/frame-input.ts";
import { FrameOutput } from "../client/frame-output.ts";
import { NO_REQUEST, type OperationName, PROTOCOL_MAGIC, PROTOCOL_VERSION } from "../client/protocol.ts";
import { EINVAL, ENOMEM, EOPNOTSUPP } from "../errno.ts";
import type { KeyService } from "../service.ts";
import type { Answer, Pending } from "../pending.ts";
import { type Call, type CallName, carryOut } from "./calls.ts";
import type { Caller } from "./caller.ts";
import type { DaemonMetrics } from "./metrics.ts";
import { withOwnBuffer } from "./own-buffer.ts";
import { decodeArguments, pointsIntoFrame, requestId, requestOperation } from "./request.ts";

/** Replies that wait for a client that does not read; above it the daemon reads no further requests of that client. */
const OUTPUT_BYTES_MAX = 256 * 1024;
const FLUSH_BYTES = 64 * 1024;
/** Operations of one connection that may wait for keys under construction. */
const WAITS_MAX = 4096;
/** How long a last reply may take to leave. */
const LINGER_MS = 1000;

/** What a connection needs of its server. */
export interface Surroundings {
  readonly service: KeyService;
  readonly metrics: DaemonMetrics;
  /** Called when a client broke the protocol, with what it did. */
  readonly onBroken: (caller: Caller, reason: string) => void;
  readonly onClosed: (connection: ServedConnection) => void;
}

/**
 * The daemon's end of one connection. Requests are carried out in the order of their arrival; one that has to wait for a
 * key under construction does not hold up those behind it.
 */
export class ServedConnection {
  readonly caller: Caller;
  readonly #socket: Socket;
  readonly #surroundings: Surroundings;
  readonly #input = new FrameInput();
  readonly #output = new FrameOutput();
  readonly #waits = new Map<number, Pending>();
  readonly #call: Call;
  #greeted = false;
  #flushDue = false;
  #closed = false;

  /** Nothing has been read from the accepted socket. */
  constructor(accepted: Socket, caller: Caller, surroundings: Surroundings) {
    this.caller = caller;
    this.#surroundings = surroundings;
    this.#call = {
      service: surroundings.service,
      process: caller.process,
      parent: () => caller.parent(),
      bytes: undefined,
    };
    const socket = withOwnBuffer(accepted, (piece) => {
      this.#input.push(piece);
      surroundings.metrics.receivedBytes += piece.length;
      this.#receive();
    });
    this.#socket = socket;
    socket.on("drain", () => this.#receive());
    socket.on("error", () => {});
    socket.on("close", () => this.#ended());
  }

  /** Hangs up; what waits is interrupted. */
  close(): void {
    this.#socket.destroy();
    this.#ended();
  }

  /** Carries out what has arrived, as far as the client takes the replies. */
  #receive(): void {
    while (!this.#closed && this.#hasRoom()) {
      const frame = this.#input.next();
      if (frame === undefined) break;
      if (frame === "broken") this.#break("a frame of impossible length");
      else this.#take(frame);
    }
    this.#flush();
    if (this.#closed) return;
    if (this.#hasRoom()) this.#socket.resume();
    else this.#socket.pause();
  }

  #hasRoom(): boolean {
    return this.#socket.writableLength + this.#output.bytes < OUTPUT_BYTES_MAX;
  }

  #take(frame: Buffer): void {
    const name = requestOperation(frame);
    if (!this.#greeted) this.#greet(frame, name);
    else if (name === undefined) this.#reply(requestId(frame), -EOPNOTSUPP);
    else if (name === "hello") this.#break("greeted twice");
    else if (name === "cancel") this.#cancel(frame);
    else this.#perform(frame, name);
  }

  #greet(frame: Buffer, name: OperationName | undefined): void {
    const values = name === "hello" ? decodeArguments(frame, name) : "malformed";
    if (typeof values === "string" || typeof values === "number" || values[0] !== PROTOCOL_MAGIC) {
      this.#break("not greeted");
      return;
    }
    this.#reply(requestId(frame), PROTOCOL_VERSION);
    this.#greeted = true;
    if (values[1] !== PROTOCOL_VERSION) this.#hangUp();
  }

  #cancel(frame: Buffer): void {
    const values = decodeArguments(frame, "cancel");
    if (typeof values === "string" || typeof values === "number") this.#break("malformed cancel");
    else this.#waits.get(values[0])?.interrupt();
  }

  #perform(view: Buffer, name: CallName): void {
    const { metrics } = this.#surroundings;
    const id = requestId(view);
    metrics.count(name);
    if (this.#waits.has(id)) {
      this.#break(`request ${id} is still waiting`);
      return;
    }
    // Texts and payloads must stay as they are while an operation waits; the input buffer does not.
    const frame = pointsIntoFrame(name) ? Buffer.from(view) : view;
    const values = decodeArguments(frame, name);
    if (values === "malformed") {
      this.#break(`malformed ${name}`);
    } else if (typeof values === "number") {
      this.#reply(id, values);
    } else if (this.#waits.size >= WAITS_MAX) {
      this.#reply(id, -ENOMEM);
    } else {
      const answer = carryOut(this.#call, name, values);
      if (typeof answer !== "number") {
        const again = (): Answer | undefined => (name === "read" ? carryOut(this.#call, name, values) : undefined);
        this.#wait(id, answer, { frame: frame === view ? undefined : frame, again });
        return;
      }
      this.#reply(id, answer);
    }
    if (frame !== view) frame.fill(0);
  }

  #wait(id: number, pending: Pending, rest: Rest): void {
    const { metrics } = this.#surroundings;
    this.#waits.set(id, pending);
    metrics.waiting += 1;
    const settled = (result: number): void => {
      metrics.waiting -= 1;
      this.#waits.delete(id);
      const answer = this.#closed || result < 0 ? result : (rest.again() ?? result);
      if (typeof answer !== "number") {
        this.#wait(id, answer, rest);
        return;
      }
      rest.frame?.fill(0);
      this.#reply(id, answer);
      this.#flushSoon();
    };
    void pending.settled.then(settled);
  }

  #reply(id: number, result: number): void {
    const { bytes } = this.#call;
    this.#call.bytes = undefined;
    if (result < 0) this.#surroundings.metrics.countError(result);
    if (!this.#closed) {
      this.#output.begin(id, result);
      if (bytes !== undefined) this.#output.raw(bytes);
      this.#output.end();
      if (this.#output.bytes >= FLUSH_BYTES) this.#flush();
    }
    bytes?.fill(0);
  }

  #flushSoon(): void {
    if (this.#flushDue) return;
    this.#flushDue = true;
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#flushDue = false;
    if (this.#output.bytes === 0 || this.#closed) return;
    const sent = this.#output.take();
    this.#surroundings.metrics.sentBytes += sent.length;
    this.#socket.write(sent, () => this.#output.recycle(sent));
  }

  /** The client does not keep to the protocol: it is told so, and no more is read of it. */
  #break(reason: string): void {
    this.#surroundings.metrics.brokenConnections += 1;
    this.#surroundings.onBroken(this.caller, reason);
    this.#output.begin(NO_REQUEST, -EINVAL);
    this.#output.raw(Buffer.from(reason, "latin1"));
    this.#output.end();
    this.#hangUp();
  }

  #hangUp(): void {
    this.#flush();
    this.#socket.setTimeout(LINGER_MS, () => this.#socket.destroy());
    this.#socket.destroySoon();
    this.#ended();
  }

  #ended(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#input.clear();
    for (const pending of [...this.#waits.values()]) pending.interrupt();
    this.#surroundings.onClosed(this);
  }
}

/** What a waiting operation needs when it goes on. */
interface Rest {
  /** Holds its texts and payload, if it has any. */
  readonly frame: Buffer | undefined;
  /** Whether it is carried out once more to get its bytes. */
  readonly again: () => Answer | undefined;
}
