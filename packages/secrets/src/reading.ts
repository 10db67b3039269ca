/**
 * Secrets that come from outside. From a file or descriptor the kernel writes them into secret memory itself (read(2));
 * from a stream they pass ordinary buffers, which are wiped at once. None becomes a string.
 */
import { closeSync, constants as files, openSync } from "node:fs";
import { constants } from "node:os";
import path from "node:path";
import { XenolithError } from "@xenolith/abi";
import { addressOf, check, PollSet, read, Readiness } from "@xenolith/sys";
import { type SecretOwner, stateOf } from "./owner.ts";
import type { Secret } from "./secret.ts";

/** How a secret is read. */
export interface ReadOptions {
  /** Most bytes that it may have; 64 KiB by default, at most 2 MiB less 16. What is longer is refused. */
  readonly bytesMax?: number;
  /** Whether one line feed at its end, and a carriage return before that, is left away. No by default. */
  readonly trimNewline?: boolean;
}

const BYTES_MAX_DEFAULT = 65_536;
const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

/**
 * Reads a file to its end.
 *
 * @throws XenolithError `FILE_NOT_FOUND` when it cannot be opened, `INVALID_SIZE` when it is empty or too long, and as
 * `SecretOwner.allocate`; SystemCallError.
 */
export const readSecretFile = (owner: SecretOwner, file: string, options: ReadOptions = {}): Secret => {
  const fd = open(file);
  try {
    return readSecretInput(owner, fd, options);
  } finally {
    closeSync(fd);
  }
};

const open = (file: string): number => {
  try {
    return openSync(file, files.O_RDONLY);
  } catch (cause) {
    throw new XenolithError("FILE_NOT_FOUND", `cannot open ${file}`, { cause });
  }
};

/**
 * Reads a descriptor to its end, standard input by default. Blocks until it ends.
 *
 * @throws XenolithError `INVALID_SIZE` when there is nothing or too much, and as `SecretOwner.allocate`; SystemCallError.
 */
export const readSecretInput = (owner: SecretOwner, fd = 0, options: ReadOptions = {}): Secret => {
  const { bytesMax = BYTES_MAX_DEFAULT, trimNewline = false } = options;
  // One byte more than may be used tells that there is more; the room is given back when the size is known.
  checkBytesMax(bytesMax);
  using room = stateOf(owner).scratch(bytesMax + 1);
  const length = room.withBytes((bytes) => {
    let at = 0;
    while (at < bytes.length) {
      const count = readSome(fd, { address: addressOf(bytes) + at, lengthBytes: bytes.length - at });
      if (count === 0) break;
      at += count;
    }
    return at;
  });
  return cut(owner, room, length, { bytesMax, trimNewline });
};

/**
 * Reads a credential that systemd gave to the service (LoadCredential=, SetCredentialEncrypted=).
 *
 * @throws XenolithError `FILE_NOT_FOUND` when there is none of that name, and as `readSecretFile`.
 * Source: systemd.exec(5), CREDENTIALS_DIRECTORY.
 */
export const readCredential = (owner: SecretOwner, name: string, options: ReadOptions = {}): Secret => {
  const directory = process.env["CREDENTIALS_DIRECTORY"];
  if (!/^[\w.@:-]+$/.test(name) || name === "." || name === "..") {
    throw new XenolithError("INVALID_ARGUMENT", `no credential can have the name ${JSON.stringify(name)}`);
  }
  if (directory === undefined) {
    throw new XenolithError("FILE_NOT_FOUND", `no credential ${name}: CREDENTIALS_DIRECTORY is not set`);
  }
  return readSecretFile(owner, path.join(directory, name), options);
};

/**
 * Reads a stream of bytes to its end, such as the body of an HTTP request or answer. Each buffer that it gives is wiped
 * when its bytes have been copied; what the stream itself kept of them is not reached.
 *
 * @throws XenolithError `INVALID_SIZE` when there is nothing or too much, `INVALID_ARGUMENT` when the stream gives
 * strings, and as `SecretOwner.allocate`.
 */
export const readSecretStream = async (
  owner: SecretOwner,
  stream: AsyncIterable<unknown>,
  options: ReadOptions = {},
): Promise<Secret> => {
  const { bytesMax = BYTES_MAX_DEFAULT, trimNewline = false } = options;
  checkBytesMax(bytesMax);
  using room = owner.allocate(bytesMax);
  let length = 0;
  for await (const part of stream) {
    if (!(part instanceof Uint8Array)) {
      throw new XenolithError(
        "INVALID_ARGUMENT",
        "the stream gives strings or objects: a secret was in ordinary memory",
      );
    }
    const isWithin = length + part.length <= bytesMax;
    if (isWithin) room.copyFrom(part, length);
    part.fill(0);
    length += part.length;
    if (!isWithin) break;
  }
  return cut(owner, room, length, { bytesMax, trimNewline });
};

const readSome = (fd: number, range: { readonly address: number; readonly lengthBytes: number }): number => {
  for (;;) {
    const count = read(fd, range);
    if (count !== -constants.errno.EAGAIN) return check(count, "read", { fd });
    const waiting = new PollSet(1);
    waiting.add(fd, Readiness.READABLE);
    check(waiting.wait(Number.POSITIVE_INFINITY), "ppoll", { fd });
  }
};

const checkBytesMax = (bytesMax: number): void => {
  if (Number.isSafeInteger(bytesMax) && bytesMax > 0) return;
  throw new XenolithError("INVALID_ARGUMENT", `bytesMax is ${String(bytesMax)}, not a whole number above 0`);
};

/** A secret of the owner's with the first bytes of what was read. */
const cut = (owner: SecretOwner, room: Secret, length: number, options: Required<ReadOptions>): Secret => {
  const { bytesMax, trimNewline } = options;
  if (length > bytesMax) throw new XenolithError("INVALID_SIZE", `the secret has more than ${bytesMax} bytes`);
  return room.withBytes((bytes) => {
    let size = length;
    if (trimNewline && bytes[size - 1] === LINE_FEED) size -= bytes[size - 2] === CARRIAGE_RETURN ? 2 : 1;
    if (size === 0) throw new XenolithError("INVALID_SIZE", "the secret is empty");
    return owner.keep(bytes.subarray(0, size));
  });
};
