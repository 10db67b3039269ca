import { EINVAL } from "./errno.ts";
import { POSITIVE, type Key } from "./key.ts";
import type { KeyType, Preparsed, TypeContext } from "./key-type.ts";
import type { PayloadTarget } from "./payload-store.ts";

/** Largest payload of the types user and logon. */
const USER_BYTES_MAX = 32_767;
/** Largest payload of the type big_key. */
const BIG_BYTES_MAX = 2 ** 20;
/** What a big key charges, whatever its size: it may be kept outside of memory. */
const BIG_QUOTA_BYTES = 16;

/** A payload of a big key: the handle, and how long it is, which the quota does not say. */
class StoredPayload {
  handle: number;
  readonly sizeBytes: number;

  constructor(handle: number, sizeBytes: number) {
    this.handle = handle;
    this.sizeBytes = sizeBytes;
  }
}

const preparseUpTo =
  (bytesMax: number, quotaBytes: (size: number) => number) =>
  (prepared: Preparsed, context: TypeContext): number => {
    const size = prepared.bytes.length;
    if (size === 0 || size > bytesMax) return -EINVAL;
    const handle = context.payloads.put(prepared.bytes, prepared.uid);
    if (handle < 0) return handle;
    prepared.payload = handle;
    prepared.quotaBytes = quotaBytes(size);
    return 0;
  };

const release = (payload: unknown, context: TypeContext): void => {
  if (typeof payload === "number") context.payloads.release(payload);
  else if (payload instanceof StoredPayload) context.payloads.release(payload.handle);
};

const freePreparse = (prepared: Preparsed, context: TypeContext): void => {
  release(prepared.payload, context);
  prepared.payload = undefined;
};

/** Gives what is kept to a user: 0, or a negated error number, and it is as before. */
const giveTo = (holder: { payload: unknown }, uid: number, { payloads }: TypeContext): number => {
  const { payload } = holder;
  const handle = payload instanceof StoredPayload ? payload.handle : payload;
  if (typeof handle !== "number") return 0;
  const given = payloads.give(handle, uid);
  if (given < 0) return given;
  if (payload instanceof StoredPayload) payload.handle = given;
  else holder.payload = given;
  return 0;
};

const attach = (key: Key, prepared: Preparsed, context: TypeContext): number => {
  // Who updates another's key has its owner pay.
  const isOthers = prepared.uid !== key.user.uid;
  const given = isOthers ? giveTo(prepared, key.user.uid, context) : 0;
  if (given < 0) return given;
  const refusal = context.reserve(key, prepared.quotaBytes);
  if (refusal < 0) return refusal;
  key.payload = prepared.payload;
  prepared.payload = undefined;
  return 0;
};

const update = (key: Key, prepared: Preparsed, context: TypeContext): number => {
  const previous = key.state === POSITIVE ? key.payload : undefined;
  const refusal = attach(key, prepared, context);
  if (refusal < 0) return refusal;
  release(previous, context);
  return 0;
};

const changeUser = (key: Key, uid: number, context: TypeContext): number =>
  key.state === POSITIVE ? giveTo(key, uid, context) : 0;

const drop = (key: Key, context: TypeContext): void => {
  release(key.payload, context);
  key.payload = undefined;
};

const revoke = (key: Key, context: TypeContext): void => {
  context.reserve(key, 0);
  if (key.state === POSITIVE) drop(key, context);
};

const fill = (
  payload: { readonly handle: number; readonly sizeBytes: number },
  target: PayloadTarget | undefined,
  { payloads }: TypeContext,
): number => {
  if (target !== undefined && target.length >= payload.sizeBytes) {
    payloads.copyTo(payload.handle, payload.sizeBytes, target);
  }
  return payload.sizeBytes;
};

const shared = {
  preparse: preparseUpTo(USER_BYTES_MAX, (size) => size),
  freePreparse,
  instantiate: attach,
  update,
  changeUser,
  revoke,
  destroy: drop,
  describe: (key: Key): string =>
    key.state === POSITIVE ? `${key.description}: ${key.payloadBytes}` : key.description,
} satisfies Partial<KeyType>;

/** Bytes of any kind, 1 to 32,767 of them. Source: keyrings(7). */
export const userType: KeyType = {
  name: "user",
  ...shared,
  read: (key, target, context) => {
    const sizeBytes = key.payloadBytes;
    if (typeof key.payload !== "number") return 0;
    if (target !== undefined && target.length >= sizeBytes) context.payloads.copyTo(key.payload, sizeBytes, target);
    return sizeBytes;
  },
};

/** As user, but callers cannot read it; the description names the service: "service:name". Source: keyrings(7). */
export const logonType: KeyType = {
  name: "logon",
  ...shared,
  vetDescription: (description) => (description.indexOf(":") > 0 ? 0 : -EINVAL),
};

/** Bytes of any kind, up to 1 MiB. Source: keyrings(7). */
export const bigKeyType: KeyType = {
  name: "big_key",
  ...shared,
  preparse: (prepared, context) => {
    const refusal = preparseUpTo(BIG_BYTES_MAX, () => BIG_QUOTA_BYTES)(prepared, context);
    if (refusal < 0 || typeof prepared.payload !== "number") return refusal;
    prepared.payload = new StoredPayload(prepared.payload, prepared.bytes.length);
    return 0;
  },
  describe: (key) =>
    key.payload instanceof StoredPayload ? `${key.description}: ${key.payload.sizeBytes} [buff]` : key.description,
  read: (key, target, context) => (key.payload instanceof StoredPayload ? fill(key.payload, target, context) : 0),
};
