import * as abi from "@xenolith/abi";
import { XenolithError } from "@xenolith/abi";
import { isXenstoreError } from "./client-error.ts";
import type { Access } from "./permissions.ts";
import { joinStrings, latinBytes, splitStrings } from "./wire.ts";

/** Sends one request and gets the payload of its reply. */
export type Ask = (request: {
  readonly type: number;
  readonly action: string;
  readonly path: string;
  readonly payload: Uint8Array;
  readonly transactionId: number;
}) => Promise<Uint8Array>;

/** One entry of a node's list: what a domain may do; of the first, who owns the node and what all others may. */
export interface NodePermission {
  readonly domid: number;
  readonly access: Access;
}

const utf8 = new TextDecoder();
const bytesOf = (value: string | Uint8Array): Uint8Array =>
  typeof value === "string" ? new TextEncoder().encode(value) : value;

const parseEntry = (text: string): NodePermission => {
  const [, access, domid] = /^([nrwb])(\d+)$/.exec(text) ?? [];
  if (access !== "n" && access !== "r" && access !== "w" && access !== "b") {
    throw new XenolithError("INVALID_ARGUMENT", `the daemon sent "${text}" as a permission`);
  }
  return { domid: Number(domid), access };
};

/**
 * What can be done to the tree, inside one transaction or outside any. Paths without a slash in front begin in the
 * control domain's home. Whatever the daemon refuses is thrown as `XenstoreError`.
 */
export class TreeAccess {
  readonly #ask: Ask;
  readonly #transactionId: number;

  constructor(ask: Ask, transactionId: number) {
    this.#ask = ask;
    this.#transactionId = transactionId;
  }

  /** The value of a node. `ENOENT`. */
  async readBytes(path: string): Promise<Uint8Array> {
    return this.#send(abi.XS_READ, "read", path, []);
  }

  /** The value of a node as text. `ENOENT`. */
  async read(path: string): Promise<string> {
    return utf8.decode(await this.readBytes(path));
  }

  /** The value of a node as text; `undefined` if there is no such node. */
  async readIfPresent(path: string): Promise<string | undefined> {
    try {
      return await this.read(path);
    } catch (error) {
      if (isXenstoreError(error, "ENOENT")) return undefined;
      throw error;
    }
  }

  /** Sets a value of at most 4096 bytes less the path; makes the node and its parents. */
  async write(path: string, value: string | Uint8Array): Promise<void> {
    await this.#send(abi.XS_WRITE, "write", path, bytesOf(value));
  }

  /** Makes a node and its parents. */
  async mkdir(path: string): Promise<void> {
    await this.#send(abi.XS_MKDIR, "mkdir", path, []);
  }

  /** Removes a node, if it is there, and all below it. `ENOENT` if its parent is missing. */
  async rm(path: string): Promise<void> {
    await this.#send(abi.XS_RM, "rm", path, []);
  }

  /** Names of the children, however many, in order. `ENOENT`. */
  async directory(path: string): Promise<string[]> {
    try {
      return splitStrings(await this.#send(abi.XS_DIRECTORY, "directory", path, [])) ?? [];
    } catch (error) {
      if (!isXenstoreError(error, "E2BIG")) throw error;
      return this.#longDirectory(path);
    }
  }

  /** The list of permissions of a node, the owner first. `ENOENT`. */
  async getPermissions(path: string): Promise<NodePermission[]> {
    const reply = await this.#send(abi.XS_GET_PERMS, "get permissions of", path, []);
    return (splitStrings(reply) ?? []).map(parseEntry);
  }

  /** Replaces the list. `EINVAL`, `ENOENT`. */
  async setPermissions(path: string, entries: readonly NodePermission[]): Promise<void> {
    const strings = joinStrings(entries.map(({ access, domid }) => `${access}${domid}`));
    await this.#send(abi.XS_SET_PERMS, "set permissions of", path, strings);
  }

  /** In parts, from the beginning again whenever the list changes meanwhile. */
  async #longDirectory(path: string): Promise<string[]> {
    let names: string[] = [];
    let generation: string | undefined;
    for (let offset = 0; ;) {
      const reply = await this.#send(abi.XS_DIRECTORY_PART, "directory", path, joinStrings([String(offset)]));
      const [current, ...part] = splitStrings(reply) ?? [];
      const isLast = part.at(-1) === "";
      if (generation !== undefined && current !== generation) {
        [names, generation, offset] = [[], undefined, 0];
        continue;
      }
      generation = current;
      const found = isLast ? part.slice(0, -1) : part;
      names.push(...found);
      offset += found.reduce((bytes, name) => bytes + name.length + 1, 0);
      if (isLast) return names;
      if (found.length === 0) throw new XenolithError("INVALID_ARGUMENT", `the daemon lists ${path} without an end`);
    }
  }

  #send(type: number, action: string, path: string, rest: Uint8Array | readonly number[]): Promise<Uint8Array> {
    const head = latinBytes(`${path}\0`);
    const payload = new Uint8Array(head.length + rest.length);
    payload.set(head);
    payload.set(rest, head.length);
    return this.#ask({ type, action, path, payload, transactionId: this.#transactionId });
  }
}
