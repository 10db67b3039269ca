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
  /** Whether what it says on its standard error is read. */
  readonly tellsErrors: boolean;
}

/** A program that was started. What is not read of it goes nowhere. */
export interface Running {
  /** Undefined when it could not be started. */
  readonly pid: number | undefined;
  readonly stdout: Readable | undefined;
  readonly stderr: Readable | undefined;
  /** Its exit code, once it has ended; undefined when a signal ended it. Rejects with a `code` when it could not be started. */
  readonly ended: Promise<number | undefined>;
}

/** Starts a program in the root directory, as the leader of a session of its own. Does not throw. */
export type Launch = (launched: Launched) => Running;

/** As Node does it. */
export const launchWithNode: Launch = ({ file, words, environment, input, tellsErrors }) => {
  const [name = file, ...rest] = words;
  const pipe = input === undefined ? "ignore" : "pipe";
  const child = spawn(file, rest, {
    argv0: name,
    cwd: "/",
    detached: true,
    env: environment,
    stdio: [pipe, pipe, tellsErrors ? "pipe" : "ignore"],
  });
  const ended = new Promise<number | undefined>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? undefined));
  });
  const { pid, stdin, stdout, stderr } = child;
  stdin?.on("error", () => {}); // It need not read what it is told.
  stdin?.end(input);
  return { pid, stdout: stdout ?? undefined, stderr: stderr ?? undefined, ended };
};
