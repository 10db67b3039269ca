import { createHash, randomBytes } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, read, readSync, statSync } from "node:fs";
import { mkdir, readdir, rename, stat, unlink, utimes, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { XenolithError } from "@xenolith/abi";

import { decodeImage, encodeImage } from "./image-file.ts";
import { loadInThread, THREAD_BYTES_MIN } from "./image-thread.ts";
import { checkImports } from "./import-check.ts";
import { defaultLimits } from "./limits.ts";
import type { Image } from "./manifest.ts";
import { LOADER_FORMAT } from "./manifest.ts";
import type { ParavirtualiseOptions } from "./paravirtualise.ts";
import { rewriteModule } from "./paravirtualise.ts";
import { checkHeader } from "./section-reader.ts";

/** How an `ImageCache` is set up. */
export interface ImageCacheOptions {
  /** Where the files lie. By default `xenolith/images` in `$XDG_CACHE_HOME` or `~/.cache`. */
  readonly directory?: string;
  /** Bytes of all files together; the least recently used go first. 1 GiB by default. */
  readonly sizeBytesMax?: number;
  /** Modules of this size and more are loaded in a thread of their own. 8 MiB by default. */
  readonly threadBytesMin?: number;
}

const readAsync = promisify(read);

const SIZE_BYTES_MAX = 2 ** 30;
const SUFFIX = ".xim";
const TEMPORARY = ".tmp-";
/** Permission bits of group and others to write. */
const WRITABLE_BY_OTHERS = 0o022;
/** Files up to this size are read at once. */
const SMALL_BYTES = 2 ** 16;
/** The time of use is noted no more often than this. */
const USE_NOTED_MS = 60_000;
/** After this time an unfinished file belongs to nobody. */
const TEMPORARY_AGE_MS = 3_600_000;

/**
 * Rewritten images on disk, found by the hash of the original module. Several processes may use one directory: files
 * appear by renaming, are verified when read, and may vanish at any time. A directory that cannot be used costs time,
 * not function: images are then rewritten at each load, and `problem` says why. A directory or file that another user
 * owns or may write is such a one: what is read from the cache runs as if the loader had just made it.
 */
export class ImageCache {
  readonly directory: string;
  readonly #sizeBytesMax: number;
  readonly #threadBytesMin: number;
  readonly #loading = new Map<string, Promise<Image>>();
  #problem: XenolithError | null = null;

  constructor(options: ImageCacheOptions = {}) {
    this.directory = options.directory ?? join(cacheHome(), "xenolith", "images");
    this.#sizeBytesMax = options.sizeBytesMax ?? SIZE_BYTES_MAX;
    this.#threadBytesMin = options.threadBytesMin ?? THREAD_BYTES_MIN;
    if (!(this.#sizeBytesMax >= 0)) {
      throw new XenolithError(
        "INVALID_SIZE",
        `size of the image cache is ${this.#sizeBytesMax}, it must not be negative`,
      );
    }
  }

  /** The last failure to read or write the cache, or null. */
  get problem(): XenolithError | null {
    return this.#problem;
  }

  /** As `paravirtualise`, from the cache if possible. */
  async load(bytes: Uint8Array, options: ParavirtualiseOptions): Promise<Image> {
    checkHeader(bytes, { ...defaultLimits, ...options.limits });
    if (bytes.length >= this.#threadBytesMin) return this.#loadInThread(bytes, options);
    const key = cacheKey(bytes, options);
    const loading = this.#loading.get(key) ?? this.#loadOnce(key, bytes, options);
    const image = await loading;
    checkImports(image.manifest, options.imports);
    return image;
  }

  async #loadInThread(bytes: Uint8Array, options: ParavirtualiseOptions): Promise<Image> {
    const cache = { directory: this.directory, sizeBytesMax: this.#sizeBytesMax };
    const { image, problem } = await loadInThread(cache, bytes, options);
    this.#problem = problem ?? this.#problem;
    return image;
  }

  /** Starts a load that calls for the same image join while it is under way. */
  #loadOnce(key: string, bytes: Uint8Array, options: ParavirtualiseOptions): Promise<Image> {
    const loading = this.#readOrRewrite(key, bytes, options).finally(() => this.#loading.delete(key));
    this.#loading.set(key, loading);
    return loading;
  }

  async #readOrRewrite(key: string, bytes: Uint8Array, options: ParavirtualiseOptions): Promise<Image> {
    const path = join(this.directory, `${key}${SUFFIX}`);
    const cached = await this.#read(path);
    if (cached !== undefined) return cached;
    const image = rewriteModule(bytes, options);
    await this.#write(path, image);
    return image;
  }

  async #read(path: string): Promise<Image | undefined> {
    try {
      checkOwner(this.directory, statSync(this.directory));
      const { bytes, usedMs } = await readCacheFile(path);
      const image = decodeImage(bytes);
      if (image === undefined) this.#note(`${path} is damaged and is written anew`);
      else if (Date.now() - usedMs > USE_NOTED_MS) await touch(path);
      return image;
    } catch (cause) {
      if (!isMissing(cause)) this.#note(`cannot read ${path}`, cause);
      return undefined;
    }
  }

  async #write(path: string, image: Image): Promise<void> {
    const parts = encodeImage(image);
    if (parts.reduce((sum, part) => sum + part.length, 0) > this.#sizeBytesMax) return;
    const temporary = join(this.directory, `${TEMPORARY}${process.pid}-${randomBytes(8).toString("hex")}`);
    try {
      await mkdir(this.directory, { recursive: true, mode: 0o700 });
      checkOwner(this.directory, await stat(this.directory));
      await writeFile(temporary, parts, { flag: "wx", mode: 0o600 });
      await rename(temporary, path);
      await this.#evict();
    } catch (cause) {
      this.#note(`cannot write ${path}`, cause);
      await this.#discard(temporary);
    }
  }

  /** Removes an unfinished file. What stopped the writing may stop this too: eviction finds the file later. */
  async #discard(path: string): Promise<void> {
    try {
      await remove(path);
    } catch (cause) {
      this.#note(`cannot remove ${path}`, cause);
    }
  }

  /** Deletes the least recently used files until the rest fits, and what crashed processes left behind. */
  async #evict(): Promise<void> {
    const files = await listFiles(this.directory);
    const stale = files.filter(
      ({ name, usedMs }) => name.startsWith(TEMPORARY) && Date.now() - usedMs > TEMPORARY_AGE_MS,
    );
    for (const { name } of stale) await remove(join(this.directory, name));
    const images = files
      .filter(({ name }) => name.endsWith(SUFFIX))
      .toSorted((left, right) => left.usedMs - right.usedMs);
    let total = images.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    for (const { name, sizeBytes } of images) {
      if (total <= this.#sizeBytesMax) return;
      await remove(join(this.directory, name));
      total -= sizeBytes;
    }
  }

  #note(what: string, cause?: unknown): void {
    const detail = cause instanceof Error ? `: ${cause.message}` : "";
    this.#problem = new XenolithError("IMAGE_CACHE", `${what}${detail}`, { cause });
  }
}

/** The engine's version is part of the key, since it decides which modules are valid. */
function cacheKey(bytes: Uint8Array, { limits = {}, poll = false }: ParavirtualiseOptions): string {
  const inForce = { ...defaultLimits, ...limits };
  const conditions = JSON.stringify([LOADER_FORMAT, process.versions.v8, poll, inForce]);
  return createHash("sha256").update(conditions).update("\n").update(bytes).digest("hex");
}

function cacheHome(): string {
  const configured = process.env["XDG_CACHE_HOME"];
  return configured !== undefined && configured.startsWith("/") ? configured : join(homedir(), ".cache");
}

/** Reads a file that nobody else may have written. Small ones at once: waiting for another thread takes longer. */
async function readCacheFile(path: string): Promise<{ bytes: Uint8Array<ArrayBuffer>; usedMs: number }> {
  // Never through a link, and never waiting for the other end of a pipe.
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    const status = fstatSync(fd);
    checkOwner(path, status);
    const bytes = new Uint8Array(status.size);
    const isSmall = bytes.length <= SMALL_BYTES;
    for (let done = 0; done < bytes.length;) {
      const rest = bytes.subarray(done);
      const count = isSmall ? readSync(fd, rest) : (await readAsync(fd, rest, 0, rest.length, null)).bytesRead;
      if (count === 0) return { bytes: bytes.subarray(0, done), usedMs: status.mtimeMs };
      done += count;
    }
    return { bytes, usedMs: status.mtimeMs };
  } finally {
    closeSync(fd);
  }
}

interface CacheFile {
  readonly name: string;
  readonly sizeBytes: number;
  readonly usedMs: number;
}

async function listFiles(directory: string): Promise<CacheFile[]> {
  const files: CacheFile[] = [];
  for (const name of await readdir(directory)) {
    try {
      const { size, mtimeMs } = await stat(join(directory, name));
      files.push({ name, sizeBytes: size, usedMs: mtimeMs });
    } catch (cause) {
      if (!isMissing(cause)) throw cause;
    }
  }
  return files;
}

/** Notes the time of use, for eviction. Another process may have removed the file: then there is nothing to note. */
async function touch(path: string): Promise<void> {
  const now = new Date();
  try {
    await utimes(path, now, now);
  } catch (cause) {
    if (!isMissing(cause)) throw cause;
  }
}

async function remove(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (cause) {
    if (!isMissing(cause)) throw cause;
  }
}

/** An image is code that the host trusts: nobody else may have been able to put it, or another in its place, there. */
function checkOwner(path: string, { uid, mode }: { readonly uid: number; readonly mode: number }): void {
  const isOurs = uid === process.geteuid?.() || uid === 0;
  if (!isOurs) throw new XenolithError("IMAGE_CACHE", `${path} belongs to user ${uid}`);
  if ((mode & WRITABLE_BY_OTHERS) !== 0)
    throw new XenolithError("IMAGE_CACHE", `${path} can be written by other users`);
}

function isMissing(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && cause.code === "ENOENT";
}
