import { inspect } from "node:util";
import type { KeyConnection } from "./connection.ts";
import { KeyError } from "./key-error.ts";

/** What a key says of itself. */
export interface KeyDescription {
  readonly type: string;
  readonly uid: number;
  readonly gid: number;
  /** Possessor, user, group and other, a byte each from the highest on. */
  readonly permissions: number;
  readonly description: string;
}

/** A keyring: one of the caller's own, or one by its serial. */
export type Ring = "thread" | "process" | "session" | "user" | "user-session" | "requestor" | KeyHandle | number;

const special: Readonly<Record<Exclude<Ring, KeyHandle | number>, number>> = {
  thread: -1,
  process: -2,
  session: -3,
  user: -4,
  "user-session": -5,
  requestor: -8,
};

/** The number of a keyring. */
export const ringNumber = (ring: Ring): number =>
  typeof ring === "number" ? ring : ring instanceof KeyHandle ? ring.serial : special[ring];

const DESCRIPTION_BYTES_MAX = 4096 + 64;
const KEEP = -1;

/**
 * A key that the daemon keeps: its number, not its bytes. Those are read into a buffer of the caller's, who wipes it
 * when they have served. All methods reject with `KeyError` when the daemon refuses, and with the errors of the
 * connection.
 */
export class KeyHandle {
  readonly serial: number;
  readonly #connection: KeyConnection;

  constructor(connection: KeyConnection, serial: number) {
    this.#connection = connection;
    this.serial = serial;
  }

  /**
   * Reads the payload into a buffer. Fulfils with its size in bytes; when that is more than the buffer holds, nothing is
   * copied. Waits for a key that is being built.
   */
  async read(target: Uint8Array, options: { readonly signal?: AbortSignal } = {}): Promise<number> {
    const given = [this.serial, target.length] as const;
    const { result } = await this.#connection.call("read", given, { target, signal: options.signal });
    return check("read", result);
  }

  /** Replaces the payload; an expiry is gone with it. */
  async update(payload: Uint8Array): Promise<void> {
    check("update", await this.#connection.result("update", [this.serial, payload]));
  }

  /** Type, owner, permissions and description. */
  async describe(): Promise<KeyDescription> {
    const { result, bytes } = await this.#connection.call("describe", [this.serial, DESCRIPTION_BYTES_MAX]);
    check("describe", result);
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length - 1).toString("utf8");
    const [, type = "", uid, gid, mask = "0", description = ""] =
      /^([^;]*);(-?\d+);(-?\d+);([0-9a-f]+);([^]*)$/.exec(text) ?? [];
    return { type, uid: Number(uid), gid: Number(gid), permissions: Number.parseInt(mask, 16), description };
  }

  /** Sets who may do what: a byte each for possessor, user, group and other. */
  async setPermissions(mask: number): Promise<void> {
    check("setPermissions", await this.#connection.result("setPermissions", [this.serial, mask]));
  }

  /** Gives the key to another user, or group. */
  async chown(ids: { readonly uid?: number; readonly gid?: number }): Promise<void> {
    const given = [this.serial, ids.uid ?? KEEP, ids.gid ?? KEEP] as const;
    check("chown", await this.#connection.result("chown", given));
  }

  /** The key expires after this many seconds; 0 for never. */
  async setTimeout(seconds: number): Promise<void> {
    check("setTimeout", await this.#connection.result("setTimeout", [this.serial, seconds]));
  }

  /** Links the key in another keyring too. */
  async link(ring: Ring): Promise<void> {
    check("link", await this.#connection.result("link", [this.serial, ringNumber(ring)]));
  }

  /** Removes the key's link from a keyring. Without links or users a key ends. */
  async unlink(ring: Ring): Promise<void> {
    check("unlink", await this.#connection.result("unlink", [this.serial, ringNumber(ring)]));
  }

  /** Ends the use of the key: every operation on it is refused from now on, and its payload is wiped. */
  async revoke(): Promise<void> {
    check("revoke", await this.#connection.result("revoke", [this.serial]));
  }

  /** Ends the key as if it had never been: it is found no more, and the next request builds another. */
  async invalidate(): Promise<void> {
    check("invalidate", await this.#connection.result("invalidate", [this.serial]));
  }

  [inspect.custom](): string {
    return `KeyHandle { ${this.serial} }`;
  }
}

/** A result that is no refusal. */
export const check = (operation: string, result: number): number => {
  if (result < 0) throw new KeyError(operation, result);
  return result;
};
