import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { open, readFile, rename, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { XenolithError } from "@xenolith/abi/error";

/** The file: eight letters, a nonce, a tag, and what is encrypted. The letters are authenticated with it. */
const MAGIC = Buffer.from("XKEYDP01", "latin1");
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEADER_BYTES = MAGIC.length + NONCE_BYTES + TAG_BYTES;
const CIPHER = "aes-256-gcm";
const KEY_BYTES = 32;

const fail = (message: string, cause?: unknown): XenolithError =>
  new XenolithError("CONFIG_INVALID", message, { cause });

/** Reads a key for a sealed file: 32 bytes, or 64 hexadecimal digits. `CONFIG_INVALID`. */
export const readSealingKey = async (path: string): Promise<Buffer> => {
  let content;
  try {
    content = await readFile(path);
  } catch (cause) {
    throw fail(`the key of persistent keyrings, ${path}, cannot be read`, cause);
  }
  if (content.length === KEY_BYTES) return content;
  const text = content.toString("latin1").trim();
  content.fill(0);
  if (!/^[0-9a-fA-F]{64}$/.test(text)) throw fail(`${path}: neither 32 bytes nor 64 hexadecimal digits`);
  return Buffer.from(text, "hex");
};

/** Encrypts and authenticates: AES-256-GCM under a nonce that is new each time. */
export const seal = (key: Uint8Array, plain: Uint8Array): Buffer => {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce);
  cipher.setAAD(MAGIC);
  const sealed = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([MAGIC, nonce, cipher.getAuthTag(), sealed]);
};

/** What was sealed with this key; undefined when it was another key, or the bytes are not those that were sealed. */
export const unseal = (key: Uint8Array, bytes: Buffer): Buffer | undefined => {
  if (bytes.length < HEADER_BYTES || !bytes.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
  const tagAt = MAGIC.length + NONCE_BYTES;
  const decipher = createDecipheriv(CIPHER, key, bytes.subarray(MAGIC.length, tagAt));
  decipher.setAAD(MAGIC);
  decipher.setAuthTag(bytes.subarray(tagAt, HEADER_BYTES));
  const plain = decipher.update(bytes.subarray(HEADER_BYTES));
  try {
    return Buffer.concat([plain, decipher.final()]);
  } catch {
    return undefined; // The tag does not fit.
  } finally {
    plain.fill(0);
  }
};

/** Puts a file in the place of another, so that after a crash either the old or the new one is there, whole. */
export const replaceFile = async (path: string, bytes: Uint8Array): Promise<void> => {
  const beside = `${path}.new`;
  try {
    const file = await open(beside, "w", 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
    const directory = await open(dirname(path), "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (cause) {
    await unlink(beside).catch(() => {});
    throw new XenolithError("SYSTEM_CALL", `save ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    });
  }
};

/** A whole file; undefined if there is none. */
export const readWhole = async (path: string): Promise<Buffer | undefined> => {
  try {
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw new XenolithError("SYSTEM_CALL", `read ${path}: ${String(cause)}`, { cause });
  }
};
