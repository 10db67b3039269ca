/** A server whose work is done when a test asks for it, guests on fake rings, and the control domain as one more peer. */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { FakeRingPage, XenstoreServer, type XenstoreServerOptions } from "../src/index.ts";
import type { ByteChannel } from "../src/channel.ts";
import { ChunkQueue } from "../src/chunk-queue.ts";
import type { Connection } from "../src/connection.ts";
import { encodeMessage, joinStrings, latinText, type Message, MessageReader, splitStrings } from "../src/wire.ts";

/** What a request came to: its payload as text, or the name of the error with an exclamation mark. */
export type Answer = string;

export interface Event {
  readonly path: string;
  readonly token: string;
}

/** Whoever speaks the wire protocol. */
export abstract class Peer {
  #lastRequestId = 0;
  readonly events: Event[] = [];
  protected abstract exchange(message: Message): Message[];

  /** Sends a request and gives its answer; events that come with it are kept. */
  ask(type: number, payload: Uint8Array | readonly string[], transactionId = 0): Answer {
    this.#lastRequestId += 1;
    const requestId = this.#lastRequestId;
    const bytes = payload instanceof Uint8Array ? payload : joinStrings(payload);
    const messages = this.exchange({ type, requestId, transactionId, payload: bytes });
    const replies = this.keepEvents(messages);
    assert.equal(replies.length, 1, "one reply to each request");
    const [reply] = replies;
    assert.equal(reply!.requestId, requestId);
    if (reply!.type === abi.XS_ERROR) return `!${latinText(reply!.payload).slice(0, -1)}`;
    assert.equal(reply!.type, type);
    return latinText(reply!.payload);
  }

  keepEvents(messages: readonly Message[]): Message[] {
    for (const { type, requestId, transactionId, payload } of messages) {
      if (type !== abi.XS_WATCH_EVENT) continue;
      assert.deepEqual([requestId, transactionId], [0, 0]);
      const [path, token] = splitStrings(payload)!;
      this.events.push({ path: path!, token: token! });
    }
    return messages.filter(({ type }) => type !== abi.XS_WATCH_EVENT);
  }

  read = (path: string, transaction = 0): Answer => this.ask(abi.XS_READ, [path], transaction);
  write = (path: string, value: string, transaction = 0): Answer =>
    this.ask(abi.XS_WRITE, joinStrings([path, value]).slice(0, -1), transaction);
  mkdir = (path: string, transaction = 0): Answer => this.ask(abi.XS_MKDIR, [path], transaction);
  rm = (path: string, transaction = 0): Answer => this.ask(abi.XS_RM, [path], transaction);
  list = (path: string, transaction = 0): Answer =>
    this.ask(abi.XS_DIRECTORY, [path], transaction).replace(/\0$/, "").replaceAll("\0", " ");
  permissions = (path: string, transaction = 0): Answer =>
    this.ask(abi.XS_GET_PERMS, [path], transaction).replace(/\0$/, "").replaceAll("\0", " ");
  chmod = (path: string, permissions: string, transaction = 0): Answer =>
    this.ask(abi.XS_SET_PERMS, [path, ...permissions.split(" ")], transaction);
  watch = (path: string, token: string, ...depth: string[]): Answer => this.ask(abi.XS_WATCH, [path, token, ...depth]);
  unwatch = (path: string, token: string): Answer => this.ask(abi.XS_UNWATCH, [path, token]);
  begin = (): number => Number(this.ask(abi.XS_TRANSACTION_START, [""]).slice(0, -1));
  commit = (transaction: number): Answer => this.ask(abi.XS_TRANSACTION_END, ["T"], transaction);
  abort = (transaction: number): Answer => this.ask(abi.XS_TRANSACTION_END, ["F"], transaction);

  /** The events since the last call, as "path token". */
  takeEvents(): string[] {
    this.poll();
    return this.events.splice(0).map(({ path, token }) => `${path} ${token}`);
  }

  protected abstract poll(): void;
}

/** A domain on a ring page. */
export class Guest extends Peer {
  readonly page = new FakeRingPage();
  readonly domid: number;
  readonly #server: XenstoreServer;

  constructor(server: XenstoreServer, domid: number, start = 0) {
    super();
    this.#server = server;
    this.domid = domid;
    this.page.startAt(start);
    server.introduceDomain(domid, this.page);
    server.runUntilIdle();
  }

  readonly pump = (): void => {
    this.#server.wake(this.domid);
    this.#server.runUntilIdle();
  };

  /** Has the server look, and gives whole messages that came. */
  messages(): Message[] {
    this.pump();
    return this.page.receive(this.pump);
  }

  protected exchange(message: Message): Message[] {
    this.page.send(message, this.pump);
    return this.messages();
  }

  protected poll(): void {
    this.keepEvents(this.messages());
  }
}

/** The control domain over queues. */
export class ControlPeer extends Peer {
  readonly input = new ChunkQueue();
  readonly connection: Connection;
  readonly #server: XenstoreServer;
  readonly #reader = new MessageReader();
  readonly #received: Message[] = [];

  constructor(server: XenstoreServer) {
    super();
    this.#server = server;
    const channel: ByteChannel = {
      stopped: false,
      state: () => "open",
      read: (target) => this.input.read(target),
      write: (bytes) => this.#take(bytes),
      flush() {},
      fail: () => server.disconnect(this.connection),
      close() {},
    };
    this.connection = server.connectControl(channel);
  }

  protected exchange(message: Message): Message[] {
    this.input.push(encodeMessage(message));
    this.#server.wakeConnection(this.connection);
    this.#server.runUntilIdle();
    return this.#received.splice(0);
  }

  protected poll(): void {
    this.#server.runUntilIdle();
    this.keepEvents(this.#received.splice(0));
  }

  #take(bytes: Uint8Array): number {
    for (let left = bytes; left.length > 0;) {
      const { room } = this.#reader;
      const part = left.subarray(0, room.length);
      room.set(part);
      this.#reader.advance(part.length);
      left = left.subarray(part.length);
      const message = this.#reader.take();
      if (message !== undefined) this.#received.push(message);
    }
    return bytes.length;
  }
}

/** A server that works only when told, with the control domain connected. */
export const setUp = (options: XenstoreServerOptions = {}): { server: XenstoreServer; dom0: ControlPeer } => {
  const server = new XenstoreServer({ defer: () => {}, ...options });
  return { server, dom0: new ControlPeer(server) };
};

/** A guest with a home of its own, as a toolstack makes it. */
export const addGuest = (server: XenstoreServer, dom0: ControlPeer, domid: number, start = 0): Guest => {
  const guest = new Guest(server, domid, start);
  dom0.mkdir(`/local/domain/${domid}`);
  dom0.chmod(`/local/domain/${domid}`, `n${domid}`);
  return guest;
};

export const OK = "OK\0";
