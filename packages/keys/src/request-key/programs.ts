import { OUTPUT_BYTES_MAX, type ProgramEnd, type Programs, RequestFailed } from "./act.ts";
import { type Launch, launchWithNode } from "./launch.ts";

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
    const output = new Output();
    const errors = onError === undefined ? undefined : new Lines(onError);
    const { pid, ended, read } = launch({
      file: utf8(file),
      words: words.map(utf8),
      environment,
      input,
      onOutput: (piece) => output.add(piece),
      onError: errors === undefined ? undefined : (piece) => errors.add(piece),
    });
    if (pid !== undefined) onStart?.(pid);
    void read.then(() => errors?.end());
    const kill = (): void => killAll(pid);
    signal?.addEventListener("abort", kill, { once: true });
    try {
      const code = await ended;
      // What the program printed last must have arrived.
      if (input !== undefined) await read;
      return { code, output: output.end() };
    } catch (cause) {
      throw new RequestFailed(`${file}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    } finally {
      signal?.removeEventListener("abort", kill);
      if (pid !== undefined) onEnd?.(pid);
    }
  }
}

const utf8 = (bytes: string): string => Buffer.from(bytes, "latin1").toString("utf8");

const killAll = (pid: number | undefined): void => {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Its group is empty already.
  }
};

/** What a program prints. */
class Output {
  readonly #pieces: Buffer[] = [];
  #length = 0;

  /** Whether more of it may come. */
  add(piece: Uint8Array): boolean {
    this.#length += piece.length;
    const fits = this.#length <= OUTPUT_BYTES_MAX;
    if (fits) this.#pieces.push(Buffer.from(piece));
    return fits;
  }

  end(): Uint8Array | "too much" {
    const whole = Buffer.concat(this.#pieces);
    for (const piece of this.#pieces) piece.fill(0);
    return this.#length > OUTPUT_BYTES_MAX ? "too much" : whole;
  }
}

/** What a program says, line by line. */
class Lines {
  readonly #tell: (line: string) => void;
  #begun = "";

  constructor(tell: (line: string) => void) {
    this.#tell = tell;
  }

  add(piece: Uint8Array): true {
    const lines = (this.#begun + Buffer.from(piece).toString("latin1")).split("\n");
    this.#begun = (lines.pop() ?? "").slice(0, LINE_BYTES_MAX);
    for (const line of lines) this.#tell(line.slice(0, LINE_BYTES_MAX));
    return true;
  }

  end(): void {
    if (this.#begun !== "") this.#tell(this.#begun);
  }
}
