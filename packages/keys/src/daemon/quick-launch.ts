import { closeSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { constants } from "node:os";
import type { Launch, Launched, Running } from "../request-key/launch.ts";

const { errno } = constants;
/** Children are looked at this often, whatever signals come. */
const LOOK_MS = 1000;

/** What is used of @xenolith/sys. */
type Sys = Pick<
  typeof import("@xenolith/sys"),
  "canStartPrograms" | "createPipe" | "programEnd" | "setDescriptorFlags" | "startProgram"
>;
type Pipe = Exclude<ReturnType<Sys["createPipe"]>, number>;

/**
 * Starts helpers in a fraction of the time that Node takes, which copies the page tables of the whole daemon for each. Undefined
 * where that cannot be done: @xenolith/sys is not there, or the C library is too old. Node's way will do.
 */
export const loadQuickLaunch = async (): Promise<Launch | undefined> => {
  try {
    // Optional: the library is usable alone.
    // oxlint-disable-next-line eslint/no-restricted-imports
    const sys: Sys = await import("@xenolith/sys");
    return sys.canStartPrograms() ? quickLaunch(sys) : undefined;
  } catch {
    return undefined;
  }
};

const quickLaunch = (sys: Sys): Launch => {
  const children = new Children(sys);
  return (launched) => {
    const pipes = new Pipes(sys);
    try {
      return start(sys, launched, { pipes, children });
    } catch (error) {
      pipes.closeOurs();
      return { pid: undefined, stdout: undefined, stderr: undefined, ended: Promise.reject(error) };
    } finally {
      pipes.closeTheirs();
    }
  };
};

interface Means {
  readonly pipes: Pipes;
  readonly children: Children;
}

const start = (sys: Sys, launched: Launched, { pipes, children }: Means): Running => {
  const { file, words, environment, input, tellsErrors } = launched;
  const told = input === undefined ? null : pipes.full(input);
  const output = input === undefined ? undefined : pipes.empty();
  const errors = tellsErrors ? pipes.empty() : undefined;
  const pid = sys.startProgram({
    file,
    words,
    environment: Object.entries(environment).flatMap(([name, value]) =>
      value === undefined ? [] : `${name}=${value}`,
    ),
    directory: "/",
    descriptors: [told, output?.theirs ?? null, errors?.theirs ?? null],
  });
  if (pid < 0) throw failure(file, pid);
  const ended = children.endOf(pid);
  return {
    pid,
    stdout: output === undefined ? undefined : reader(output.ours),
    stderr: errors === undefined ? undefined : reader(errors.ours),
    ended,
  };
};

const reader = (fd: number): Socket => new Socket({ fd, readable: true, writable: false });

/** As Node words it when a program cannot be started. */
const failure = (file: string, result: number): Error => {
  const [code = "EIO"] = Object.entries(errno).find(([, number]) => number === -result) ?? [];
  return Object.assign(new Error(`start ${file}: ${code}`), { code });
};

/** The pipes of one start: one end of each is the program's, and ours only until it runs. */
class Pipes {
  readonly #sys: Sys;
  readonly #theirs: number[] = [];
  readonly #ours: number[] = [];

  constructor(sys: Sys) {
    this.#sys = sys;
  }

  /** One that holds all that the program will read. A callout fits into any pipe. */
  full(bytes: Uint8Array): number {
    const { readFd, writeFd } = this.#open({ nonBlocking: true });
    this.#theirs.push(readFd, writeFd);
    this.#sys.setDescriptorFlags(readFd, 0);
    const written = bytes.length === 0 ? 0 : writeSync(writeFd, bytes);
    if (written < bytes.length) throw failure("with what it is told", -errno.E2BIG);
    return readFd;
  }

  /** One that the program writes. */
  empty(): { readonly theirs: number; readonly ours: number } {
    const { readFd, writeFd } = this.#open({ nonBlocking: false });
    this.#theirs.push(writeFd);
    this.#ours.push(readFd);
    return { theirs: writeFd, ours: readFd };
  }

  closeTheirs(): void {
    for (const descriptor of this.#theirs.splice(0)) closeSync(descriptor);
  }

  closeOurs(): void {
    for (const descriptor of this.#ours.splice(0)) closeSync(descriptor);
  }

  #open(options: { readonly nonBlocking: boolean }): Pipe {
    const pipe = this.#sys.createPipe(options);
    if (typeof pipe === "number") throw failure("with a pipe", pipe);
    return pipe;
  }
}

/** Children that run; those that have ended are asked how upon SIGCHLD, which Node's own children raise, too. */
class Children {
  readonly #sys: Sys;
  readonly #running = new Map<number, (code: number | undefined) => void>();
  readonly #onSignal = (): void => this.#look();
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(sys: Sys) {
    this.#sys = sys;
  }

  /** The exit code of a child that was started just now; undefined when a signal ends it. */
  endOf(pid: number): Promise<number | undefined> {
    if (this.#running.size === 0) {
      process.on("SIGCHLD", this.#onSignal);
      // A signal that may come does not keep the process alive.
      this.#timer = setInterval(this.#onSignal, LOOK_MS);
    }
    return new Promise((resolve) => {
      this.#running.set(pid, resolve);
    });
  }

  #look(): void {
    for (const [pid, resolve] of this.#running) {
      const end = this.#sys.programEnd(pid);
      if (end === undefined) continue;
      this.#running.delete(pid);
      resolve(typeof end === "object" && "code" in end ? end.code : undefined);
    }
    if (this.#running.size > 0) return;
    process.off("SIGCHLD", this.#onSignal);
    clearInterval(this.#timer);
  }
}
