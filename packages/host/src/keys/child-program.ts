/**
 * Starts a program whose output goes into a file: without a copy of this process, where the C library can. Node's way copies
 * the page tables of all guests and stops this thread for milliseconds.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, writeSync } from "node:fs";
import { constants } from "node:os";
import { canStartPrograms, createPipe, programEnd, setDescriptorFlags, startProgram } from "@xenolith/sys";

/** A program to be started, as the leader of a session of its own, in the root directory. */
export interface ChildProgram {
  readonly file: string;
  /** Without its name. */
  readonly words: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** What it reads on standard input: no more than fits into a pipe. */
  readonly input: Uint8Array;
  /** Descriptor of its standard output. */
  readonly output: number;
}

/** A program that runs. */
export interface RunningProgram {
  readonly pid: number | undefined;
  /** Its exit code; undefined when a signal ended it. Rejects when it could not be started. */
  readonly ended: Promise<number | undefined>;
}

/** Starts a program in the quickest way there is. */
export const launch = (program: ChildProgram): RunningProgram =>
  canStartPrograms() ? launchQuickly(program) : launchWithNode(program);

/** As Node does it. */
export const launchWithNode = ({ file, words, environment, input, output }: ChildProgram): RunningProgram => {
  const child = spawn(file, words, { cwd: "/", detached: true, env: environment, stdio: ["pipe", output, "ignore"] });
  child.stdin?.on("error", () => {}); // It need not read what it is told.
  child.stdin?.end(input);
  const ended = once(child, "exit").then(([code]) => (typeof code === "number" ? code : undefined));
  return { pid: child.pid, ended };
};

/** As posix_spawn(3) does it. */
export const launchQuickly = (program: ChildProgram): RunningProgram => {
  const told = pipeWith(program.input);
  if (told < 0) return notStarted(program.file, told);
  try {
    const pid = startProgram({
      file: program.file,
      words: [program.file, ...program.words],
      environment: Object.entries(program.environment).map(([name, value]) => `${name}=${value}`),
      directory: "/",
      descriptors: [told, program.output, null],
    });
    return pid < 0 ? notStarted(program.file, pid) : { pid, ended: children.endOf(pid) };
  } finally {
    closeSync(told);
  }
};

/** The reading end of a pipe that holds these bytes and nothing more, or a negative errno. */
const pipeWith = (bytes: Uint8Array): number => {
  const pipe = createPipe({ nonBlocking: true });
  if (typeof pipe === "number") return pipe;
  const { readFd, writeFd } = pipe;
  try {
    setDescriptorFlags(readFd, 0);
    if (bytes.length === 0 || writeSync(writeFd, bytes) === bytes.length) return readFd;
    closeSync(readFd);
    return -constants.errno.E2BIG;
  } finally {
    closeSync(writeFd);
  }
};

/** As Node words it. */
const notStarted = (file: string, result: number): RunningProgram => {
  const [code = "EIO"] = Object.entries(constants.errno).find(([, number]) => number === -result) ?? [];
  return { pid: undefined, ended: Promise.reject(Object.assign(new Error(`spawn ${file} ${code}`), { code })) };
};

/** Children are looked at this often, whatever signals come. */
const LOOK_MS = 1000;

/** Children that run; those that have ended are asked how upon SIGCHLD, which Node's own children raise, too. */
class Children {
  readonly #running = new Map<number, (code: number | undefined) => void>();
  #timer: NodeJS.Timeout | undefined;

  endOf(pid: number): Promise<number | undefined> {
    if (this.#running.size === 0) {
      process.on("SIGCHLD", this.#look);
      // A signal that may come does not keep the process alive.
      this.#timer = setInterval(this.#look, LOOK_MS);
    }
    // It may have ended before anybody listened.
    setImmediate(this.#look);
    return new Promise((resolve) => {
      this.#running.set(pid, resolve);
    });
  }

  readonly #look = (): void => {
    if (this.#running.size === 0) return;
    for (const [pid, resolve] of this.#running) {
      const end = programEnd(pid);
      if (end === undefined) continue;
      this.#running.delete(pid);
      resolve(typeof end === "object" && "code" in end ? end.code : undefined);
    }
    if (this.#running.size > 0) return;
    process.off("SIGCHLD", this.#look);
    clearInterval(this.#timer);
  };
}

const children = new Children();
