import { listenAtPath } from "@xenolith/sys/unix-socket";
import { createServer, type Socket } from "node:net";
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
 * there is replaced. `SERVICE_RUNNING` if another daemon listens there, `SYSTEM_CALL` if something else than a socket is in
 * the way, or the directory cannot be written.
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
  const remove = await listenAtPath(listener, path, 0o600);
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
    for (const connection of connections.values()) server.disconnect(connection);
    await closed;
    await remove();
  };
  const closeOnce = (): Promise<void> => (closing ??= close());
  return { path, close: closeOnce, [Symbol.asyncDispose]: closeOnce };
};
