/**
 * Large modules are loaded in a thread of their own: reading, hashing, rewriting and validating them takes seconds, in
 * which the program that loads them should go on.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { Worker } from "node:worker_threads";

import { type ErrorCode, errorCodes, XenolithError } from "@xenolith/abi";

import type { ImageCacheOptions } from "./image-cache.ts";
import type { Image } from "./manifest.ts";
import type { ParavirtualiseOptions } from "./paravirtualise.ts";

/** Modules of this size and more are loaded in a thread, which takes as long to start as this many bytes to load. */
export const THREAD_BYTES_MIN = 8 * 2 ** 20;
/** Bytes that are copied before others have a turn. */
const SLICE_BYTES = 16 * 2 ** 20;

/** What the thread is told. */
export interface ImageTask {
  readonly cache: ImageCacheOptions;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly options: ParavirtualiseOptions;
}

/** An error as it crosses threads: classes do not. */
interface PlainError {
  readonly code: string;
  readonly message: string;
}

/** What the thread answers. */
export type ImageAnswer =
  | { readonly image: Image; readonly problem: PlainError | null }
  | { readonly error: PlainError };

/** A loaded image, and why the cache could not be used, if it could not. */
export interface LoadedImage {
  readonly image: Image;
  readonly problem: XenolithError | null;
}

/** Loads an image in a thread. Fails as `ImageCache.load`, and with MODULE_TOO_LARGE when the thread runs out of memory. */
export async function loadInThread(
  cache: ImageCacheOptions,
  bytes: Uint8Array,
  options: ParavirtualiseOptions,
): Promise<LoadedImage> {
  const copy = await copyInSlices(bytes);
  const { imports, limits = {}, poll = false } = options;
  const task: ImageTask = { cache, bytes: copy, options: { imports, limits, poll } };
  const answer = await new Promise<ImageAnswer>((resolve, reject) => {
    const worker = new Worker(new URL("./image-worker.js", import.meta.url), {
      workerData: task,
      transferList: [copy.buffer],
      argv: [],
      execArgv: [],
      name: "xenolith loader",
    });
    worker.once("message", resolve);
    const fail = (reason: string, cause?: unknown): void =>
      reject(new XenolithError("MODULE_TOO_LARGE", `the module cannot be loaded: ${reason}`, { cause }));
    worker.once("error", (cause) => fail(cause.message, cause));
    // After an answer this comes too late to matter.
    worker.once("exit", () => fail("its thread ended"));
  });
  if ("error" in answer) throw revive(answer.error);
  const { image, problem } = answer;
  return { image, problem: problem === null ? null : new XenolithError("IMAGE_CACHE", problem.message) };
}

async function copyInSlices(bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const copy = new Uint8Array(bytes.length);
  for (let at = 0; at < bytes.length; at += SLICE_BYTES) {
    copy.set(bytes.subarray(at, at + SLICE_BYTES), at);
    await nextTurn();
  }
  return copy;
}

function revive({ code, message }: PlainError): Error {
  return isErrorCode(code) ? new XenolithError(code, message) : new Error(message);
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCodes, code);
}
