import { spawn, type ChildProcess } from "node:child_process";
import { OUTPUT_BYTES_MAX, type ProgramEnd, type Programs, RequestFailed } from "./act.ts";

/** How programs are started. */
export interface ProgramOptions {
  readonly environment: NodeJS.ProcessEnv;
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

  run(file: string, words: readonly string[], input: Uint8Array | undefined): Promise<ProgramEnd> {
    const { environment, onStart, onEnd, onError, signal } = this.#options;
    if (signal?.aborted === true)
      return Promise.reject(new RequestFailed(`${file}: not started, the request was given up`));
    const [name = file, ...rest] = words.map(utf8);
    const pipe = input === undefined ? "ignore" : "pipe";
    const child = spawn(utf8(file), rest, {
      argv0: name,
      cwd: "/",
      detached: true,
      env: environment,
      stdio: [pipe, pipe, onError === undefined ? "ignore" : "pipe"],
    });
    const { pid } = child;
    if (pid !== undefined) onStart?.(pid);
    if (onError !== undefined) tellLines(child, onError);
    const collected = collect(child, input);
    const kill = (): void => killAll(child);
    signal?.addEventListener("abort", kill, { once: true });
    return new Promise<ProgramEnd>((resolve, reject) => {
      child.once("error", (cause) => reject(new RequestFailed(`${file}: ${cause.message}`, { cause })));
      // With pipes, until they are closed: what the program printed last must have arrived.
      child.once(input === undefined ? "exit" : "close", (code) =>
        resolve({ code: code ?? undefined, output: collected() }),
      );
    }).finally(() => {
      signal?.removeEventListener("abort", kill);
      if (pid !== undefined) onEnd?.(pid);
    });
  }
}

const utf8 = (bytes: string): string => Buffer.from(bytes, "latin1").toString("utf8");

const killAll = ({ pid }: ChildProcess): void => {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Its group is empty already.
  }
};

/** Feeds a program, and gathers what it prints. */
const collect = (child: ChildProcess, input: Uint8Array | undefined): (() => Uint8Array | "too much") => {
  const pieces: Buffer[] = [];
  let length = 0;
  child.stdin?.on("error", () => {}); // It need not read what it is told.
  child.stdin?.end(input);
  child.stdout?.on("data", (piece: Buffer) => {
    length += piece.length;
    if (length <= OUTPUT_BYTES_MAX) pieces.push(piece);
    else child.stdout?.destroy();
  });
  return () => {
    const whole = Buffer.concat(pieces);
    for (const piece of pieces) piece.fill(0);
    return length > OUTPUT_BYTES_MAX ? "too much" : whole;
  };
};

const tellLines = (child: ChildProcess, tell: (line: string) => void): void => {
  let begun = "";
  child.stderr?.on("data", (piece: Buffer) => {
    const lines = (begun + piece.toString("latin1")).split("\n");
    begun = (lines.pop() ?? "").slice(0, LINE_BYTES_MAX);
    for (const line of lines) tell(line.slice(0, LINE_BYTES_MAX));
  });
  child.stderr?.on("end", () => {
    if (begun !== "") tell(begun);
  });
};
