/**
 * What Node reads from a socket it copies to a buffer for us, and frees the one that it read into as it is: the payload of the
 * last request would stay there. A socket that is made with a buffer of ours (`onread`) is read into that and nothing else; servers
 * make their sockets without, so the connection moves to a socket of our own.
 */
import { Socket } from "node:net";

/** Read into by all connections: each takes what is there, and wipes it, before another one is read. */
const shared = Buffer.alloc(65_536);

/** What a socket consists of that Node does not document. `descriptorOf` in `server.ts` needs it too. */
interface Held {
  _handle: object | null;
}

/** Options that Node has and its types do not. */
interface OwnOptions {
  readonly handle: object;
  readonly onread: { readonly buffer: Uint8Array; readonly callback: (count: number, buffer: Uint8Array) => boolean };
}

/**
 * Goes on with an accepted connection, which must not have been read from yet (`pauseOnConnect`), in a socket that hands each
 * piece to `receive` and wipes it afterwards. The accepted socket is not to be used any more.
 */
export const withOwnBuffer = (accepted: Socket, receive: (piece: Uint8Array) => void): Socket => {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const held = accepted as unknown as Held;
  const { _handle: handle } = held;
  // It ended before anybody looked.
  if (handle === null) return accepted;
  const callback = (count: number): boolean => {
    const piece = shared.subarray(0, count);
    try {
      receive(piece);
    } finally {
      piece.fill(0);
    }
    return true;
  };
  const options: OwnOptions = { handle, onread: { buffer: shared, callback } };
  // The server counts the accepted socket as a connection until it ends, which must not end this one.
  held._handle = null;
  accepted.destroy();
  return new Socket(options as object);
};
