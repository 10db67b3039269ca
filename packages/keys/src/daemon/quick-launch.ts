import { closeSync, writeSync } from "node:fs";
import { Socket, type SocketConstructorOpts } from "node:net";
import { constants } from "node:os";
import { OUTPUT_BYTES_MAX } from "../request-key/act.ts";
import { endOf, type Launch, type Launched, type Running } from "../request-key/launch.ts";

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
      return { pid: undefined, ended: Promise.reject(error), read: Promise.resolve() };
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
  const { file, words, environment, input, onOutput, onError } = launched;
  const told = input === undefined ? null : pipes.full(input);
  const output = input === undefined ? undefined : pipes.empty();
  const errors = onError === undefined ? undefined : pipes.empty();
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
  const read = Promise.all([
    output === undefined ? undefined : readPipe(output.ours, onOutput),
    errors === undefined || onError === undefined ? undefined : readPipe(errors.ours, onError),
  ]);
  return { pid, ended: children.endOf(pid), read };
};

/** Options that sockets have and their types do not. */
interface OwnOptions extends SocketConstructorOpts {
  readonly onread: { readonly buffer: Uint8Array; readonly callback: (count: number) => boolean };
}

/** Read into by all pipes, one after the other: what Node reads into buffers of its own stays there when it copies them. */
const shared = Buffer.alloc(OUTPUT_BYTES_MAX);

const readPipe = async (fd: number, onPiece: (piece: Uint8Array) => boolean): Promise<void> => {
  const callback = (count: number): boolean => {
    const piece = shared.subarray(0, count);
    if (!onPiece(piece)) socket.destroy();
    piece.fill(0);
    return true;
  };
  const options: OwnOptions = { fd, readable: true, writable: false, onread: { buffer: shared, callback } };
  const socket = new Socket(options);
  socket.resume();
  await endOf(socket);
};

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
    // It may have ended before anybody listened.
    setImmediate(this.#onSignal);
    return new Promise((resolve) => {
      this.#running.set(pid, resolve);
    });
  }

  #look(): void {
    if (this.#running.size === 0) return;
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
