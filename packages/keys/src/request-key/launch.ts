import { spawn } from "node:child_process";
import type { Readable } from "node:stream";

/** What is started, and what of it goes through pipes. */
export interface Launched {
  readonly file: string;
  /** Its argv, its name first. */
  readonly words: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** What it is given to read; then what it prints is read, too. */
  readonly input: Uint8Array | undefined;
  /** Gets what it prints, piece by piece, to be wiped by whoever calls; the result is whether more is wanted. */
  readonly onOutput: (piece: Uint8Array) => boolean;
  /** The same for what it says on its standard error, if anybody listens. */
  readonly onError: ((piece: Uint8Array) => boolean) | undefined;
}

/** A program that was started. */
export interface Running {
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  /** Its exit code, once it has ended; undefined when a signal ended it. Rejects with a `code` when it could not be started. */
  readonly ended: Promise<number | undefined>;
  /** Fulfils when its pipes are at their end. */
  readonly read: Promise<unknown>;
}

/** Starts a program in the root directory, as the leader of a session of its own. Does not throw. */
export type Launch = (launched: Launched) => Running;

/** As Node does it. */
export const launchWithNode: Launch = ({ file, words, environment, input, onOutput, onError }) => {
  const [name = file, ...rest] = words;
  const pipe = input === undefined ? "ignore" : "pipe";
  const child = spawn(file, rest, {
    argv0: name,
    cwd: "/",
    detached: true,
    env: environment,
    stdio: [pipe, pipe, onError === undefined ? "ignore" : "pipe"],
  });
  const ended = new Promise<number | undefined>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? undefined));
  });
  const { pid, stdin, stdout, stderr } = child;
  stdin?.on("error", () => {}); // It need not read what it is told.
  stdin?.end(input);
  const read = Promise.all([
    stdout === null ? undefined : readPipe(stdout, onOutput),
    stderr === null || onError === undefined ? undefined : readPipe(stderr, onError),
  ]);
  return { pid, ended, read };
};

const readPipe = async (pipe: Readable, onPiece: (piece: Uint8Array) => boolean): Promise<void> => {
  pipe.on("data", (piece: Buffer) => {
    if (!onPiece(piece)) pipe.destroy();
    piece.fill(0);
  });
  await endOf(pipe);
};

/** Fulfils when a pipe is at its end or broken. */
export const endOf = (pipe: Readable): Promise<void> =>
  new Promise((resolve) => {
    pipe.on("error", () => {}); // It is closed after that.
    pipe.once("end", () => resolve());
    pipe.once("close", () => resolve());
  });
