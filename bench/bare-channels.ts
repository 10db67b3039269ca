/**
 * What else two threads of a program can talk through: a MessagePort, and a Unix socket. Each function is one end, in a
 * thread of its own; those that answer return nanoseconds.
 */
import { once } from "node:events";
import { createServer, connect as connectSocket, type Socket } from "node:net";
import type { MessagePort } from "node:worker_threads";

/** Messages on their way at once. */
const WINDOW = 16;

const now = (): bigint => process.hrtime.bigint();
const since = (start: bigint): number => Number(now() - start);

/** What arrives while nobody waits for it is kept: the ends of a round do not begin at the same moment. */
class Ear<T> {
  readonly #early: T[] = [];
  #hear: ((heard: T) => void) | undefined;

  readonly push = (heard: T): void => {
    if (this.#hear === undefined) this.#early.push(heard);
    else this.#hear(heard);
  };

  /** Gives everything to `hear` until that calls `done`. */
  listen(hear: (heard: T, done: () => void) => void): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#hear = undefined;
        resolve();
      };
      this.#hear = (heard) => hear(heard, done);
      for (const heard of this.#early.splice(0)) this.#hear(heard);
    });
  }
}

let port: MessagePort;
const portEar = new Ear<unknown>();

/** The end of a channel that the other functions use. */
export const usePort = (end: MessagePort): void => {
  port = end;
  port.on("message", portEar.push);
};

const listen = (hear: (message: unknown, done: () => void) => void): Promise<void> => portEar.listen(hear);

/** Sends pieces; the other end acknowledges each. */
export const portSend = async (pieces: number, bytes: number): Promise<void> => {
  const piece = new Uint8Array(bytes);
  let sent = 0;
  let heard = 0;
  const acknowledged = listen((_, done) => {
    heard += 1;
    if (sent < pieces) {
      sent += 1;
      port.postMessage(piece);
    }
    if (heard === pieces) done();
  });
  for (; sent < Math.min(WINDOW, pieces); sent += 1) port.postMessage(piece);
  await acknowledged;
};

/** The time from the first piece's arrival to the last's. */
export const portReceive = async (pieces: number): Promise<number> => {
  let start = 0n;
  let heard = 0;
  await listen((_, done) => {
    if (heard === 0) start = now();
    heard += 1;
    port.postMessage(0);
    if (heard === pieces) done();
  });
  return since(start);
};

/** The time of all turns but the first. */
export const portPing = async (turns: number, bytes: number): Promise<number> => {
  const message = new Uint8Array(bytes);
  let start = 0n;
  let heard = 0;
  const ended = listen((_, done) => {
    if (heard === 0) start = now();
    heard += 1;
    if (heard > turns) done();
    else port.postMessage(message);
  });
  port.postMessage(message);
  await ended;
  return since(start);
};

export const portPong = async (turns: number): Promise<void> => {
  let heard = 0;
  await listen((message, done) => {
    port.postMessage(message);
    heard += 1;
    if (heard > turns) done();
  });
};

let socket: Socket;
const socketEar = new Ear<number>();

const useSocket = (end: Socket): void => {
  socket = end;
  socket.on("data", (bytes: Uint8Array) => socketEar.push(bytes.length));
};

/** Waits for the other end at `path`. */
export const serveSocket = async (path: string): Promise<void> => {
  const server = createServer();
  server.listen(path);
  const [end] = (await once(server, "connection")) as [Socket];
  useSocket(end);
  server.close();
};

export const openSocket = async (path: string): Promise<void> => {
  for (;;) {
    const candidate = connectSocket(path);
    try {
      await once(candidate, "connect");
      useSocket(candidate);
      return;
    } catch {
      // Nobody listens yet.
      await new Promise((resolve) => void setTimeout(resolve, 5));
    }
  }
};

const take = (hear: (count: number, done: () => void) => void): Promise<void> => socketEar.listen(hear);

export const socketSend = async (pieces: number, bytes: number): Promise<void> => {
  const piece = new Uint8Array(bytes);
  for (let index = 0; index < pieces; index += 1) if (!socket.write(piece)) await once(socket, "drain");
};

export const socketReceive = async (pieces: number, bytes: number): Promise<number> => {
  let start = 0n;
  let first = 0;
  let total = 0;
  await take((count, done) => {
    if (total === 0) [start, first] = [now(), count];
    total += count;
    if (total === pieces * bytes) done();
  });
  // As for the others, the time of all but one piece; the first read brings another number of bytes.
  return (since(start) * (pieces - 1) * bytes) / (total - first);
};

export const socketPing = async (turns: number, bytes: number): Promise<number> => {
  const message = new Uint8Array(bytes);
  let start = 0n;
  let heard = 0;
  let missing = bytes;
  const ended = take((count, done) => {
    missing -= count;
    if (missing > 0) return;
    missing = bytes;
    if (heard === 0) start = now();
    heard += 1;
    if (heard > turns) done();
    else socket.write(message);
  });
  socket.write(message);
  await ended;
  return since(start);
};

export const socketPong = async (turns: number, bytes: number): Promise<void> => {
  const message = new Uint8Array(bytes);
  let heard = 0;
  let missing = bytes;
  await take((count, done) => {
    missing -= count;
    if (missing > 0) return;
    missing = bytes;
    socket.write(message);
    heard += 1;
    if (heard > turns) done();
  });
};
