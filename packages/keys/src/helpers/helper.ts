import { KeyConnection } from "../client/connection.ts";
import { defaultKeySocket } from "../client/socket-path.ts";
import type { HelperKeys } from "../request-key/act.ts";
import { remoteKeys } from "../request-key/remote-keys.ts";

/** Largest payload of a key of type user, in bytes. */
export const PAYLOAD_BYTES_MAX = 32_767;

/** EKEYREJECTED and ENOKEY: how keys are refused. */
const REJECTED = 129;
const MISSING = 126;

/** Why a helper does not build its key: what the requester is answered with, and for how long. */
export class NotBuilt extends Error {
  override readonly name = "NotBuilt";
  readonly errno: number;
  readonly seconds: number;

  constructor(
    reason: string,
    how: { readonly errno: number; readonly seconds: number },
    options?: { readonly cause?: unknown },
  ) {
    super(reason, options);
    this.errno = how.errno;
    this.seconds = how.seconds;
  }
}

/** There is no such secret: nobody needs to ask again for a while. */
export const missing = (reason: string): NotBuilt => new NotBuilt(reason, { errno: MISSING, seconds: 60 });
/** The requester may not have it. */
export const rejected = (reason: string): NotBuilt => new NotBuilt(reason, { errno: REJECTED, seconds: 30 });
/** It could not be got just now. */
export const failed = (reason: string, cause?: unknown): NotBuilt =>
  new NotBuilt(reason, { errno: MISSING, seconds: 1 }, { cause });

/** What a helper makes: a payload, and perhaps how long it is good for. */
export interface Built {
  readonly payload: Uint8Array;
  /** Seconds until the key expires; undefined for never. */
  readonly seconds?: number | undefined;
}

/** What a helper works with: it looks up what it needs itself in the keyrings of whoever asked. */
export interface Work {
  /** The name behind the first colon of the description: "db:orders" asks for "orders". */
  readonly name: string;
  readonly options: Readonly<Record<string, string>>;
  readonly rest: readonly string[];
  /** The content of a key of the requester's; `spec` is type:description. */
  readonly requesterKey: (spec: string) => Promise<Buffer>;
}

/** The content of a key that the requester has. It is found, through the authority, as the requester would find it. */
export const readRequesterKey = async (keys: HelperKeys, spec: string): Promise<Buffer> => {
  const colon = spec.indexOf(":");
  if (colon < 1 || colon === spec.length - 1) throw failed(`${spec}: not TYPE:DESCRIPTION`);
  const found = await keys.find(spec.slice(0, colon), spec.slice(colon + 1));
  const bytes = found < 0 ? found : await keys.read(found);
  if (typeof bytes === "number") throw rejected(`the requester has no key ${spec}: error ${-bytes}`);
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
};

/** Builds one key: settles it with what `make` returns or throws. Returns the exit code. */
export const buildKey = async (
  key: number,
  make: (keys: HelperKeys) => Promise<Built>,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<number> => {
  await using connection = await KeyConnection.connect(defaultKeySocket(environment));
  const keys = remoteKeys(connection);
  const assumed = await keys.assumeAuthority(key);
  if (assumed < 0) throw failed(`no authority over key ${key}: error ${-assumed}`);
  try {
    const { payload, seconds } = await make(keys);
    try {
      if (payload.length === 0 || payload.length > PAYLOAD_BYTES_MAX) {
        throw failed(`a payload of ${payload.length} bytes, not 1 to ${PAYLOAD_BYTES_MAX}`);
      }
      if (seconds !== undefined) await connection.result("setTimeout", [key, seconds]);
      const result = await keys.instantiate(key, payload);
      if (result < 0) throw failed(`instantiate: error ${-result}`);
    } finally {
      payload.fill(0);
    }
    return 0;
  } catch (error) {
    const { errno, seconds } = error instanceof NotBuilt ? error : failed("unexpected", error);
    await connection.result("reject", [key, seconds, errno, 0]);
    throw error;
  }
};
