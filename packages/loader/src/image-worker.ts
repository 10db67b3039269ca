/**
 * Entry point of the thread that loads one large module (see image-thread.ts).
 */
import { parentPort, workerData } from "node:worker_threads";

import { XenolithError } from "@xenolith/abi";

import { ImageCache } from "./image-cache.ts";
import type { ImageAnswer, ImageTask } from "./image-thread.ts";

const plain = (error: unknown): { code: string; message: string } => ({
  code: error instanceof XenolithError ? error.code : "",
  message: error instanceof Error ? error.message : String(error),
});

const work = async ({ cache, bytes, options }: ImageTask): Promise<ImageAnswer> => {
  try {
    const here = new ImageCache({ ...cache, threadBytesMin: Infinity });
    const image = await here.load(bytes, options);
    return { image, problem: here.problem === null ? null : plain(here.problem) };
  } catch (error) {
    return { error: plain(error) };
  }
};

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- posted by `loadInThread`, nobody else starts this.
const answer = await work(workerData as ImageTask);
const parts = "image" in answer ? [answer.image.module.buffer, answer.image.data.buffer] : [];
// Parts of one file have one buffer.
parentPort!.postMessage(
  answer,
  [...new Set(parts)].filter((part) => part instanceof ArrayBuffer),
);
