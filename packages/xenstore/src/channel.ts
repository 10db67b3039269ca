/**
 * How a connection is doing:
 *
 *     open     bytes may come and go
 *     reset    the peer began anew: whatever was on its way is void; said once
 *     stopped  the peer broke the protocol; nothing is read until it begins anew
 *     closed   gone for good
 */
export type ChannelState = "open" | "reset" | "stopped" | "closed";

/** A stream of bytes in both directions, which never waits: a ring, a socket, a pair of queues. */
export interface ByteChannel {
  /** Looked at before every use. */
  state(): ChannelState;
  /** The peer broke the protocol: the state is, or with the next look will be, other than open. */
  readonly stopped: boolean;
  /** Fills `target` as far as bytes are there; returns how many. */
  read(target: Uint8Array): number;
  /** Takes as many bytes as there is room for; returns how many. */
  write(bytes: Uint8Array): number;
  /**
   * Tells the peer that something was read or written. `isLast`: nothing more is read before the next look at the channel;
   * else this may wait for the answers to what the peer has sent already.
   */
  flush(isLast: boolean): void;
  /** The peer sent what is not a message: stops, or closes. */
  fail(): void;
  close(): void;
}
