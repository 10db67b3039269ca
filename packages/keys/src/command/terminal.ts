import { readFileSync, readSync, writeSync } from "node:fs";

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
/** What is read of standard input at most: one byte more than any key takes is refused by the daemon. */
export const INPUT_BYTES_MAX = 2 ** 20;
const RETRY_MS = 2;

/** Where a command's texts go and its data comes from. Texts are byte strings: one character for each byte. */
export interface Terminal {
  out(text: string | Uint8Array): void;
  error(text: string): void;
  /** All of standard input; `undefined` when it is longer than INPUT_BYTES_MAX. */
  input(): Buffer | undefined;
}

const isBusy = (error: unknown): boolean => error instanceof Error && "code" in error && error.code === "EAGAIN";

/** Descriptors that a shell gave us may be non-blocking. */
const pause = (): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
};

const writeAll = (descriptor: number, bytes: Uint8Array): void => {
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(descriptor, bytes, at);
    } catch (error) {
      if (!isBusy(error)) throw error;
      pause();
    }
  }
};

const readAll = (): Buffer | undefined => {
  const buffer = Buffer.alloc(INPUT_BYTES_MAX + 1);
  let length = 0;
  while (length < buffer.length) {
    try {
      const count = readSync(STDIN, buffer, length, buffer.length - length, null);
      if (count === 0) return buffer.subarray(0, length);
      length += count;
    } catch (error) {
      if (!isBusy(error)) throw error;
      pause();
    }
  }
  buffer.fill(0);
  return undefined;
};

/** This process's own descriptors. */
export const ownTerminal: Terminal = {
  out: (text) => writeAll(STDOUT, typeof text === "string" ? Buffer.from(text, "latin1") : text),
  error: (text) => writeAll(STDERR, Buffer.from(text, "latin1")),
  input: readAll,
};

/**
 * The arguments as byte strings. Node decodes them as UTF-8 and loses bytes that are none; those are read from the
 * kernel again.
 */
export const byteArguments = (words: readonly string[]): string[] => {
  const lossy = words.some((word) => word.includes("\ufffd"));
  if (!lossy) return words.map((word) => Buffer.from(word, "utf8").toString("latin1"));
  const all = readFileSync("/proc/self/cmdline", "latin1").split("\0").slice(0, -1);
  return all.slice(all.length - words.length);
};
