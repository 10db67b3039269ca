/**
 * What is kept of persistent keyrings: keys and keyrings in a form that means the same in another run of the daemon. Serials
 * do not last; links name the place of a key in the list.
 */

/** One key. */
export interface SavedKey {
  readonly type: string;
  /** A byte string. */
  readonly description: string;
  readonly uid: number;
  /** -1 for none. */
  readonly gid: number;
  readonly permissions: number;
  /** Second from which it is expired; -1 for never. */
  readonly expiry: number;
  /** The payload; empty for a keyring. */
  readonly payload: Uint8Array;
  /** Whether the keyring was restricted; to what does not last, so that it takes nothing more afterwards. */
  readonly isRestricted: boolean;
  /** Places of the keys that a keyring links, in its order. */
  readonly links: readonly number[];
}

/** Everything that lasts: the persistent keyrings themselves stand first. */
export interface SavedKeys {
  readonly roots: number;
  readonly keys: readonly SavedKey[];
}

const MAGIC = 0x5347_4b58;
const VERSION = 1;
/** Words in front of the links of a key, and the lengths behind them. */
const WORDS = 7 + 3;

/** A record that was damaged, or written by something else. */
export class DamagedRecord extends Error {
  override readonly name = "DamagedRecord";
}

/** All of it as bytes. They are secret. */
export const encodeKeys = ({ roots, keys }: SavedKeys): Buffer => {
  let size = 16;
  for (const key of keys) size += sizeOf(key);
  const buffer = Buffer.alloc(size);
  let at = 0;
  const word = (value: number): void => void (at = buffer.writeInt32LE(value | 0, at));
  const run = (bytes: Uint8Array): void => {
    word(bytes.length);
    buffer.set(bytes, at);
    at += bytes.length;
  };
  for (const value of [MAGIC, VERSION, roots, keys.length]) word(value);
  for (const key of keys) {
    for (const value of [key.uid, key.gid, key.permissions, key.isRestricted ? 1 : 0, key.links.length]) word(value);
    at = buffer.writeDoubleLE(key.expiry, at);
    for (const link of key.links) word(link);
    run(Buffer.from(key.type, "latin1"));
    run(Buffer.from(key.description, "latin1"));
    run(key.payload);
  }
  return buffer;
};

const sizeOf = ({ type, description, payload, links }: SavedKey): number =>
  (WORDS + links.length) * 4 + type.length + description.length + payload.length;

/** What the bytes say; the payloads are views of them. Throws `DamagedRecord`. */
export const decodeKeys = (buffer: Buffer): SavedKeys => {
  let at = 0;
  const room = (bytes: number): number => {
    if (bytes < 0 || bytes > buffer.length - at)
      throw new DamagedRecord(`${bytes} bytes wanted at ${at} of ${buffer.length}`);
    at += bytes;
    return at - bytes;
  };
  const word = (): number => buffer.readInt32LE(room(4));
  const run = (): Buffer => {
    const length = word();
    const from = room(length);
    return buffer.subarray(from, from + length);
  };
  if (word() !== MAGIC || word() !== VERSION) throw new DamagedRecord("not a record of keys of version 1");
  const roots = word();
  const count = word();
  if (roots < 0 || roots > count || count > buffer.length)
    throw new DamagedRecord(`${roots} keyrings of ${count} keys`);
  const keys = Array.from({ length: count }, (): SavedKey => {
    const uid = word() >>> 0;
    const gid = word();
    const permissions = word() >>> 0;
    const isRestricted = word() !== 0;
    const linkCount = word();
    const expiry = buffer.readDoubleLE(room(8));
    if (linkCount < 0 || linkCount > count) throw new DamagedRecord(`${linkCount} links to ${count} keys`);
    const links = Array.from({ length: linkCount }, () => {
      const link = word();
      if (link < 0 || link >= count) throw new DamagedRecord(`a link to key ${link} of ${count}`);
      return link;
    });
    const type = run().toString("latin1");
    return {
      uid,
      gid,
      permissions,
      isRestricted,
      expiry,
      links,
      type,
      description: run().toString("latin1"),
      payload: run(),
    };
  });
  if (at !== buffer.length) throw new DamagedRecord(`${buffer.length - at} bytes too many`);
  return { roots, keys };
};
