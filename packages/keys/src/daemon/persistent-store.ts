import { createHash } from "node:crypto";
import { XenolithError } from "@xenolith/abi/error";
import type { KeyService } from "../service.ts";
import type { Log } from "./log.ts";
import { restorePersistent, savePersistent } from "./persistent.ts";
import { DamagedRecord, decodeKeys, encodeKeys, type SavedKeys } from "./persistent-record.ts";
import { readWhole, replaceFile, seal, unseal } from "./sealed-file.ts";

/** How often what has changed is saved. A crash loses no more than that. */
const SAVE_MS = 5000;

/** Keeps persistent keyrings in an encrypted file. */
export class PersistentStore {
  readonly #service: KeyService;
  readonly #path: string;
  readonly #key: Buffer;
  readonly #log: Log;
  /** Of what was saved last: nothing is written that is there already. */
  #digest = "";
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> = Promise.resolve();

  constructor(service: KeyService, options: { readonly path: string; readonly key: Buffer; readonly log: Log }) {
    this.#service = service;
    this.#path = options.path;
    this.#key = options.key;
    this.#log = options.log;
  }

  /** Restores what was saved, and saves from now on. `CONFIG_INVALID` for a file that the key does not open, `SYSTEM_CALL`. */
  async start(): Promise<void> {
    const bytes = await readWhole(this.#path);
    if (bytes !== undefined) this.#restore(bytes);
    this.#timer = setInterval(() => void this.#saveOrComplain(), SAVE_MS);
    this.#timer.unref();
  }

  /** Saves what has changed. `SYSTEM_CALL`. */
  save(): Promise<void> {
    this.#saving = this.#saving.catch(() => {}).then(() => this.#save());
    return this.#saving;
  }

  /** Saves for the last time, and forgets the key. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#saveOrComplain();
    this.#key.fill(0);
  }

  #restore(bytes: Buffer): void {
    const plain = unseal(this.#key, bytes);
    if (plain === undefined) {
      throw new XenolithError("CONFIG_INVALID", `${this.#path} was not written with this key, or is damaged`);
    }
    try {
      const missing = this.#service.trusted.withState((state) => restorePersistent(state, this.#decode(plain)));
      if (missing > 0) this.#log.event("warning", "keys not restored", { count: missing });
      this.#digest = digestOf(plain);
    } finally {
      plain.fill(0);
    }
  }

  #decode(plain: Buffer): SavedKeys {
    try {
      return decodeKeys(plain);
    } catch (cause) {
      if (!(cause instanceof DamagedRecord)) throw cause;
      throw new XenolithError("CONFIG_INVALID", `${this.#path}: ${cause.message}`, { cause });
    }
  }

  async #save(): Promise<void> {
    const saved = this.#service.trusted.withState(savePersistent);
    const plain = encodeKeys(saved);
    try {
      const digest = digestOf(plain);
      if (digest === this.#digest || (saved.roots === 0 && this.#digest === "")) return;
      await replaceFile(this.#path, seal(this.#key, plain));
      this.#digest = digest;
    } finally {
      plain.fill(0);
      for (const { payload } of saved.keys) payload.fill(0);
    }
  }

  async #saveOrComplain(): Promise<void> {
    try {
      await this.save();
    } catch (error) {
      this.#log.event("error", "persistent keyrings not saved", { reason: String(error) });
    }
  }
}

/** Not of the keys in the clear: a digest of a short payload would tell it. */
const digestOf = (plain: Uint8Array): string => createHash("sha256").update(salt).update(plain).digest("hex");

const salt = crypto.getRandomValues(new Uint8Array(32));
