import type { Readable } from "node:stream";
import { OUTPUT_BYTES_MAX, type ProgramEnd, type Programs, RequestFailed } from "./act.ts";
import { type Launch, launchWithNode, type Running } from "./launch.ts";

/** How programs are started. */
export interface ProgramOptions {
  readonly environment: NodeJS.ProcessEnv;
  /** Node's way by default. */
  readonly launch?: Launch;
  /** Called at once when a program has started, before it can have connected anywhere. */
  readonly onStart?: (pid: number) => void;
  /** Called when it has ended, before that is known to anybody else. */
  readonly onEnd?: (pid: number) => void;
  /** Called with what a program writes to its standard error, line by line; dropped otherwise. */
  readonly onError?: (line: string) => void;
  /** When it fires, the program and its children are killed. */
  readonly signal?: AbortSignal;
}

const LINE_BYTES_MAX = 1024;

/** Programs as children of this process, each the leader of a session of its own, in the root directory. */
export class ChildPrograms implements Programs {
  readonly #options: ProgramOptions;

  constructor(options: ProgramOptions) {
    this.#options = options;
  }

  async run(file: string, words: readonly string[], input: Uint8Array | undefined): Promise<ProgramEnd> {
    const { environment, launch = launchWithNode, onStart, onEnd, onError, signal } = this.#options;
    if (signal?.aborted === true) throw new RequestFailed(`${file}: not started, the request was given up`);
    const running = launch({
      file: utf8(file),
      words: words.map(utf8),
      environment,
      input,
      tellsErrors: onError !== undefined,
    });
    const { pid, stderr } = running;
    if (pid !== undefined) onStart?.(pid);
    if (onError !== undefined && stderr !== undefined) tellLines(stderr, onError);
    const collected = collect(running);
    const kill = (): void => killAll(pid);
    signal?.addEventListener("abort", kill, { once: true });
    try {
      const code = await endOf(running, input !== undefined);
      return { code, output: collected() };
    } catch (cause) {
      throw new RequestFailed(`${file}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    } finally {
      signal?.removeEventListener("abort", kill);
      if (pid !== undefined) onEnd?.(pid);
    }
  }
}

/** With pipes, when they are at their end: what the program printed last must have arrived. */
const endOf = async ({ ended, stdout, stderr }: Running, isPipe: boolean): Promise<number | undefined> => {
  const pipes = [stdout, stderr].filter((pipe) => pipe !== undefined);
  const read = Promise.all(pipes.map(endOfPipe));
  const code = await ended;
  if (isPipe) await read;
  return code;
};

const endOfPipe = (pipe: Readable): Promise<void> =>
  new Promise((resolve) => {
    pipe.on("error", () => {}); // It is closed after that.
    pipe.once("end", () => resolve());
    pipe.once("close", () => resolve());
  });

const utf8 = (bytes: string): string => Buffer.from(bytes, "latin1").toString("utf8");

const killAll = (pid: number | undefined): void => {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Its group is empty already.
  }
};

/** Gathers what a program prints. */
const collect = ({ stdout }: Running): (() => Uint8Array | "too much") => {
  const pieces: Buffer[] = [];
  let length = 0;
  stdout?.on("data", (piece: Buffer) => {
    length += piece.length;
    if (length <= OUTPUT_BYTES_MAX) pieces.push(piece);
    else stdout.destroy();
  });
  return () => {
    const whole = Buffer.concat(pieces);
    for (const piece of pieces) piece.fill(0);
    return length > OUTPUT_BYTES_MAX ? "too much" : whole;
  };
};

const tellLines = (stderr: Readable, tell: (line: string) => void): void => {
  let begun = "";
  stderr.on("data", (piece: Buffer) => {
    const lines = (begun + piece.toString("latin1")).split("\n");
    begun = (lines.pop() ?? "").slice(0, LINE_BYTES_MAX);
    for (const line of lines) tell(line.slice(0, LINE_BYTES_MAX));
  });
  stderr.on("end", () => {
    if (begun !== "") tell(begun);
  });
};
