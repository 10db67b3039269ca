import { XENSTORE_PAYLOAD_MAX, xsd_sockmsg } from "@xenolith/abi";
import assert from "node:assert/strict";

/** Bytes of a message's head. */
export const HEAD_BYTES = xsd_sockmsg.sizeBytes;
/** The longest message. */
export const MESSAGE_BYTES_MAX = HEAD_BYTES + XENSTORE_PAYLOAD_MAX;

/** A message without its length. */
export interface Message {
  readonly type: number;
  readonly requestId: number;
  readonly transactionId: number;
  readonly payload: Uint8Array;
}

/** A message as it goes over the wire. The payload must be within the protocol's limit. */
export const encodeMessage = ({ type, requestId, transactionId, payload }: Message): Uint8Array => {
  assert(payload.length <= XENSTORE_PAYLOAD_MAX);
  const bytes = new Uint8Array(HEAD_BYTES + payload.length);
  const view = new DataView(bytes.buffer);
  xsd_sockmsg.type.set(view, 0, type);
  xsd_sockmsg.req_id.set(view, 0, requestId);
  xsd_sockmsg.tx_id.set(view, 0, transactionId);
  xsd_sockmsg.len.set(view, 0, payload.length);
  bytes.set(payload, HEAD_BYTES);
  return bytes;
};

/**
 * Puts messages together out of a byte stream, one at a time and in memory of its own. A length above the limit breaks
 * the stream for good: what follows cannot be told from payload.
 */
export class MessageReader {
  readonly #bytes = new Uint8Array(MESSAGE_BYTES_MAX);
  readonly #view = new DataView(this.#bytes.buffer);
  #filled = 0;
  #needed = HEAD_BYTES;

  /** Where the next bytes of the current message go; empty when it is complete or the stream is broken. */
  get room(): Uint8Array {
    return this.broken ? this.#bytes.subarray(0, 0) : this.#bytes.subarray(this.#filled, this.#needed);
  }

  /** The message's head announces more than the protocol allows. */
  get broken(): boolean {
    return this.#needed > MESSAGE_BYTES_MAX;
  }

  /** A message has begun and is not complete. */
  get partial(): boolean {
    return this.#filled > 0;
  }

  /** Counts bytes that were put into `room`. */
  advance(count: number): void {
    assert(count >= 0 && this.#filled + count <= this.#needed);
    this.#filled += count;
    if (this.#filled === HEAD_BYTES) this.#needed = HEAD_BYTES + xsd_sockmsg.len.get(this.#view, 0);
  }

  /** The current message once it is complete; the next one begins. Its payload is the caller's. */
  take(): Message | undefined {
    if (this.broken || this.#filled < this.#needed || this.#filled < HEAD_BYTES) return undefined;
    const message = {
      type: xsd_sockmsg.type.get(this.#view, 0),
      requestId: xsd_sockmsg.req_id.get(this.#view, 0),
      transactionId: xsd_sockmsg.tx_id.get(this.#view, 0),
      payload: this.#bytes.slice(HEAD_BYTES, this.#needed),
    };
    this.reset();
    return message;
  }

  /** Forgets what has come of the current message, and that the stream is broken. */
  reset(): void {
    this.#filled = 0;
    this.#needed = HEAD_BYTES;
  }
}

/** Bytes of a string of Latin characters, one each. */
export const latinBytes = (string: string): Uint8Array => new Uint8Array(Buffer.from(string, "latin1"));

/** The string of bytes, one character each. */
export const latinText = ({ buffer, byteOffset, length }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, length).toString("latin1");

/** Strings with a terminator each. */
export const joinStrings = (strings: readonly string[]): Uint8Array =>
  latinBytes(strings.map((string) => `${string}\0`).join(""));

/** The strings of a payload, each of which must have its terminator; `undefined` if the last has none. */
export const splitStrings = (payload: Uint8Array): string[] | undefined => {
  if (payload.at(-1) !== 0) return payload.length === 0 ? [] : undefined;
  return latinText(payload.subarray(0, -1)).split("\0");
};
