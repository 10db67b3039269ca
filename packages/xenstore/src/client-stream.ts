import { XenolithError } from "@xenolith/abi";
import { once } from "node:events";
import { createConnection } from "node:net";
import type { ByteChannel, ChannelState } from "./channel.ts";
import { ChunkQueue } from "./chunk-queue.ts";
import type { XenstoreServer } from "./server.ts";

/** A client's end of a connection. */
export interface ClientStream {
  send(bytes: Uint8Array): void;
  /** Called once, before anything is sent: where bytes go, and the end. */
  start(on: { readonly bytes: (chunk: Uint8Array) => void; readonly closed: (cause?: unknown) => void }): void;
  close(): void;
}

type Listener = Parameters<ClientStream["start"]>[0];

/** A connection of the control domain to a server in the same thread. */
export const openInProcess = (server: XenstoreServer): ClientStream => {
  const requests = new ChunkQueue();
  let state: ChannelState = "open";
  let listener: Listener | undefined;
  const close = (): void => {
    if (state === "closed") return;
    state = "closed";
    listener?.closed();
  };
  const channel: ByteChannel = {
    stopped: false,
    state: () => state,
    read: (target) => requests.read(target),
    write(bytes) {
      listener?.bytes(bytes);
      return bytes.length;
    },
    flush() {},
    fail: close,
    close,
  };
  const connection = server.connectControl(channel);
  return {
    send(bytes) {
      requests.push(bytes);
      server.wakeConnection(connection);
    },
    start(on) {
      listener = on;
    },
    close: () => server.disconnect(connection),
  };
};

/** A connection over the Unix socket of a server. `SYSTEM_CALL` when nobody listens there; `ABORTED`. */
export const openSocket = async (path: string, signal?: AbortSignal): Promise<ClientStream> => {
  const socket = createConnection(path);
  try {
    await once(socket, "connect", signal === undefined ? {} : { signal });
  } catch (cause) {
    socket.on("error", () => {}).destroy();
    if (signal?.aborted === true) throw new XenolithError("ABORTED", `connecting to ${path} was aborted`, { cause });
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("SYSTEM_CALL", `connect to ${path}: ${reason}`, { cause });
  }
  return {
    send: (bytes) => void socket.write(bytes),
    start({ bytes, closed }) {
      let cause: unknown;
      socket.on("data", bytes);
      socket.on("error", (error) => (cause = error));
      socket.once("close", () => closed(cause));
    },
    close: () => socket.destroy(),
  };
};
