import { XenolithError } from "@xenolith/abi";
import { once } from "node:events";
import { chmod, lstat, mkdtemp, rename, rm, unlink } from "node:fs/promises";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { dirname, join } from "node:path";
import type { ByteChannel, ChannelState } from "./channel.ts";
import { ChunkQueue } from "./chunk-queue.ts";
import type { Connection } from "./connection.ts";
import type { XenstoreServer } from "./server.ts";

const INPUT_BYTES_MAX = 64 * 1024;
const OUTPUT_BYTES_MAX = 256 * 1024;

/** The daemon's end of one client's socket: reads no more than it can use, and writes no more than the client takes. */
class SocketChannel implements ByteChannel {
  readonly stopped = false;
  readonly #socket: Socket;
  readonly #input = new ChunkQueue();
  #state: ChannelState = "open";

  constructor(socket: Socket, wake: () => void) {
    this.#socket = socket;
    socket.on("data", (chunk) => {
      this.#input.push(chunk);
      if (this.#input.bytes >= INPUT_BYTES_MAX) socket.pause();
      wake();
    });
    socket.on("drain", wake);
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#state = "closed";
      wake();
    });
  }

  state(): ChannelState {
    return this.#state;
  }

  read(target: Uint8Array): number {
    const count = this.#input.read(target);
    if (this.#socket.isPaused() && this.#input.bytes < INPUT_BYTES_MAX / 2) this.#socket.resume();
    return count;
  }

  write(bytes: Uint8Array): number {
    if (this.#socket.destroyed || this.#socket.writableLength >= OUTPUT_BYTES_MAX) return 0;
    this.#socket.write(bytes);
    return bytes.length;
  }

  flush(): void {}

  fail(): void {
    this.close();
  }

  close(): void {
    this.#state = "closed";
    this.#socket.destroy();
  }
}

/** A Unix socket over which processes of the same user are the control domain. */
export interface XenstoreSocket extends AsyncDisposable {
  readonly path: string;
  /** Ends all its connections and removes the socket. May be called again. */
  close(): Promise<void>;
}

/**
 * Serves a store at a path, with mode 0600: whoever may connect is the control domain. What a daemon that is gone left
 * there is replaced. `SYSTEM_CALL` if another daemon listens there, something else than a socket is in the way, or the
 * directory cannot be written.
 */
export const listenXenstore = async (server: XenstoreServer, path: string): Promise<XenstoreSocket> => {
  const connections = new Map<Socket, Connection>();
  const listener = createServer((socket) => {
    const channel = new SocketChannel(socket, () => {
      const connection = connections.get(socket);
      if (connection !== undefined) server.wakeConnection(connection);
    });
    connections.set(socket, server.connectControl(channel));
    socket.on("close", () => connections.delete(socket));
  });
  await checkFree(path);
  try {
    await bindPrivately(listener, path);
  } catch (cause) {
    listener.close();
    throw new XenolithError("SYSTEM_CALL", `listen at ${path}: ${messageOf(cause)}`, { cause });
  }
  const { ino } = await lstat(path);
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
    for (const connection of connections.values()) server.disconnect(connection);
    await closed;
    const left = await lstat(path).catch(() => undefined);
    if (left?.ino === ino) await unlink(path).catch(() => {});
  };
  const closeOnce = (): Promise<void> => (closing ??= close());
  return { path, close: closeOnce, [Symbol.asyncDispose]: closeOnce };
};

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** In a directory of its own until the mode is set, so that nobody else can connect in between. */
const bindPrivately = async (listener: Server, path: string): Promise<void> => {
  const directory = await mkdtemp(join(dirname(path), ".xs"));
  try {
    const hidden = join(directory, "s");
    listener.listen(hidden);
    await once(listener, "listening");
    await chmod(hidden, 0o600);
    await rename(hidden, path);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
};

const checkFree = async (path: string): Promise<void> => {
  const found = await lstat(path).catch(() => undefined);
  if (found === undefined) return;
  if (!found.isSocket()) throw new XenolithError("SYSTEM_CALL", `listen at ${path}: something else is there`);
  const probe = createConnection(path);
  try {
    await once(probe, "connect");
  } catch {
    return; // Nobody listens: a daemon that is gone left it.
  } finally {
    probe.destroy();
  }
  throw new XenolithError("SYSTEM_CALL", `listen at ${path}: another daemon listens there`);
};
