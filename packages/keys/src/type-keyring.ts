import { EINVAL } from "./errno.ts";
import { type Key, POSITIVE } from "./key.ts";
import type { KeyType, Preparsed } from "./key-type.ts";
import { linksOf } from "./link-table.ts";
import type { PayloadTarget } from "./payload-store.ts";

/** Bytes of one serial number in what is read from a keyring. */
const SERIAL_BYTES = 4;

/**
 * Keyrings: keys whose payload is links to other keys. How links are made and dropped is the service's own (links.ts).
 * Read, it is a list of serial numbers, 32 bits each in the machine's byte order. Source: keyrings(7), keyctl_read(3).
 */
export const keyringType: KeyType = {
  name: "keyring",
  preparse: (prepared: Preparsed) => (prepared.bytes.length === 0 ? 0 : -EINVAL),
  instantiate: () => 0,
  describe: (key) => {
    if (key.state !== POSITIVE) return key.description;
    const { size } = linksOf(key);
    return `${key.description}: ${size === 0 ? "empty" : size}`;
  },
  read: (keyring: Key, target: PayloadTarget | undefined): number => {
    if (target !== undefined && target.length % SERIAL_BYTES !== 0) return -EINVAL;
    const links = linksOf(keyring);
    const size = links.size * SERIAL_BYTES;
    if (target === undefined || target.length < size) return size;
    const bytes = new Uint8Array(size);
    const view = new DataView(bytes.buffer);
    for (const [index, key] of links.list().entries()) view.setInt32(index * SERIAL_BYTES, key.serial, true);
    target.set(bytes);
    return size;
  },
};
