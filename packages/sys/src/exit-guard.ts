/**
 * Parts of koffi in which a thread must not be ended: it makes JavaScript objects there, which fails in a thread that is
 * being ended, and then it ends the process (SIGABRT). A program may call `process.exit` at any time, which ends its
 * threads wherever they are; so it waits in its "exit" event until no thread is in such a part, and lets none in any more.
 */
import { lazily } from "./lazily.ts";

/** The program is ending; below it in the word: how many threads are inside. */
const CLOSED = 1 << 30;
/** A thread that never comes out, which none of ours does, must not keep a program from ending. */
const WAIT_MS = 10_000;

/** The word of all threads of the process, in the threads that have been told. */
let inside: Int32Array | undefined;
let depth = 0;

/** For the thread that ends the others: the word that they have to be told. Made once. */
export const exitGuard = lazily((): SharedArrayBuffer => {
  const word = new Int32Array(new SharedArrayBuffer(4));
  process.once("exit", () => {
    let count = Atomics.or(word, 0, CLOSED);
    for (let isWaiting = true; isWaiting && (count & ~CLOSED) !== 0; count = Atomics.load(word, 0)) {
      isWaiting = Atomics.wait(word, 0, count | CLOSED, WAIT_MS) !== "timed-out";
    }
  });
  return word.buffer;
});

/** Tells the calling thread, which another one may end, what that one waits for. */
export const useExitGuard = (buffer: SharedArrayBuffer): void => {
  inside = new Int32Array(buffer);
};

/** Runs `body` so that the process does not end meanwhile. In a program that is ending it does not return. */
export const guarded = <T>(body: () => T): T => {
  if (inside === undefined || depth > 0) return body();
  if ((Atomics.add(inside, 0, 1) & CLOSED) !== 0) {
    leave(inside);
    const never = new Int32Array(new SharedArrayBuffer(4));
    for (;;) Atomics.wait(never, 0, 0);
  }
  depth += 1;
  try {
    return body();
  } finally {
    depth -= 1;
    leave(inside);
  }
};

const leave = (word: Int32Array): void => {
  Atomics.sub(word, 0, 1);
  Atomics.notify(word, 0);
};
