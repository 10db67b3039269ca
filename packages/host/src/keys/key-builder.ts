/**
 * Who builds a key that somebody asked for and that is not there: a function of the program, or a program of its own. Either
 * is told by the key service who asks; nothing that a guest says of itself is passed on as a fact.
 */
import { errno, type ErrnoName } from "@xenolith/abi";
import type { Answer, KeyService, Upcall, UpcallActor } from "@xenolith/keys";
import type { Secret } from "@xenolith/secrets";
import { type DomainFacts, refusal } from "./domain-keyrings.ts";

/** A key that is wanted. */
export interface KeyRequest {
  /** Serial number of the key that is to be built. */
  readonly key: number;
  readonly type: string;
  readonly description: string;
  /** What whoever asks says about the key: for a guest, hostile bytes. Wiped when the request is over. */
  readonly callout: Uint8Array;
  /** The domain that asks; undefined: the program itself. */
  readonly domain: DomainFacts | undefined;
  /** User number of whoever asks: a domain's own. */
  readonly uid: number;
  /** The arguments and the environment that a helper of the kernel gets. Source: request-key(8). */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Fires when nobody wants the key any more: the domain is gone, the request took too long, the host is closed. */
  readonly signal: AbortSignal;
}

/** A payload. Bytes are wiped, a secret is released when the key has it. */
export type KeyPayload = Uint8Array | Secret;

/** A key that was built, and for how many seconds it is good. */
export interface BuiltKey {
  readonly payload: KeyPayload;
  readonly seconds?: number;
}

/** A key that is refused: the error that whoever asks for it is told for so many seconds, without a builder being asked. */
export interface RefusedKey {
  readonly error: ErrnoName;
  readonly seconds: number;
}

/** What a builder answers; undefined refuses with ENOKEY for 60 seconds, as a builder that throws does. */
export type KeyReply = KeyPayload | BuiltKey | RefusedKey | undefined;

/** Builds keys. */
export type KeyBuilder = (request: KeyRequest) => KeyReply | Promise<KeyReply>;

const CALLOUT_BYTES_MAX = 4095;
const DESCRIPTION_BYTES_MAX = 4200;
const ASSUMED_KEY = -7;
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const settle = async (answer: Answer): Promise<number> => (typeof answer === "number" ? answer : await answer.settled);

const done = (what: string, result: number): void => {
  if (result < 0) throw refusal(what, result);
};

/** What a builder is called with. */
export interface BuilderParts {
  readonly service: () => KeyService;
  /** The domain with this user number. */
  readonly domainOf: (uid: number) => DomainFacts | undefined;
  /** Told that a builder failed, or gave what cannot be a key. */
  readonly onFailure: (error: unknown, request: KeyRequest) => void;
}

/** Has keys built by a builder. */
export class BuilderActor implements UpcallActor {
  readonly #build: KeyBuilder;
  readonly #service: () => KeyService;
  readonly #domainOf: (uid: number) => DomainFacts | undefined;
  readonly #onFailure: BuilderParts["onFailure"];

  constructor(build: KeyBuilder, parts: BuilderParts) {
    this.#build = build;
    this.#service = parts.service;
    this.#domainOf = parts.domainOf;
    this.#onFailure = parts.onFailure;
  }

  async run(upcall: Upcall): Promise<number> {
    const assumed = await settle(this.#service().assumeAuthority(upcall.helper, upcall.target));
    if (assumed < 0) return assumed;
    const callout = await this.#read(upcall, ASSUMED_KEY, CALLOUT_BYTES_MAX);
    try {
      const request = await this.#requestOf(upcall, callout);
      if (request !== undefined) await this.#buildFor(upcall, request);
      // Whatever came of it: a key that is not built is refused.
      return 0;
    } finally {
      callout.fill(0);
    }
  }

  async #buildFor(upcall: Upcall, request: KeyRequest): Promise<void> {
    try {
      const reply = await this.#build(request);
      // The helper's record is gone then.
      if (upcall.signal.aborted) discard(reply);
      else await this.#answer(upcall, reply);
    } catch (error) {
      if (!upcall.signal.aborted) this.#onFailure(error, request);
    }
  }

  /** What the builder is told; undefined for texts that are not UTF-8, and so nothing that a builder could know. */
  async #requestOf(upcall: Upcall, callout: Uint8Array): Promise<KeyRequest | undefined> {
    const { helper, target, argv, env, signal } = upcall;
    const text = new Uint8Array(DESCRIPTION_BYTES_MAX);
    const size = await settle(this.#service().describe(helper, target, text));
    if (size < 0) return undefined;
    let described: string;
    try {
      described = utf8.decode(text.subarray(0, size - 1));
    } catch {
      return undefined;
    }
    const [, type = "", description = ""] = /^([^;]*);[^;]*;[^;]*;[^;]*;([^]*)$/.exec(described) ?? [];
    const uid = Number(argv[2]);
    return { key: target, type, description, callout, domain: this.#domainOf(uid), uid, argv, env, signal };
  }

  async #read({ helper }: Upcall, id: number, bytesMax: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(bytesMax);
    const size = await settle(this.#service().read(helper, id, bytes));
    return bytes.subarray(0, Math.max(0, size));
  }

  async #answer(upcall: Upcall, reply: KeyReply): Promise<void> {
    const { helper, target } = upcall;
    const service = this.#service();
    if (reply === undefined) return;
    if (isRefusal(reply)) {
      const { seconds, error } = reply;
      done("refuse a key", await settle(service.reject(helper, target, { seconds, error: errno[error], ring: 0 })));
      return;
    }
    const { payload, seconds = 0 } = isBuilt(reply) ? reply : { payload: reply };
    // Before it is built: afterwards the authority is gone.
    if (seconds > 0) await settle(service.setTimeout(helper, target, seconds));
    const answer = usePayload(payload, (bytes) => service.instantiate(helper, target, bytes, 0));
    done("build a key", await settle(answer));
  }
}

const isRefusal = (reply: NonNullable<KeyReply>): reply is RefusedKey => "error" in reply;
const isBuilt = (reply: KeyPayload | BuiltKey): reply is BuiltKey => "payload" in reply;

/** Hands the bytes of a payload over, and ends it: bytes are wiped, a secret is released. */
export const usePayload = (payload: KeyPayload, use: (bytes: Uint8Array) => Answer): Answer => {
  if (payload instanceof Uint8Array) {
    try {
      return use(payload);
    } finally {
      payload.fill(0);
    }
  }
  try {
    return payload.withBytes((bytes) => ({ answer: use(bytes) })).answer;
  } finally {
    payload[Symbol.dispose]();
  }
};

const discard = (reply: KeyReply): void => {
  if (reply !== undefined && !isRefusal(reply)) usePayload(isBuilt(reply) ? reply.payload : reply, () => 0);
};
