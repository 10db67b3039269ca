/** Just enough of WASI to run published programs without files: the same for the original and the rewritten module. */

const EBADF = 8;
const ENOSYS = 52;
const ESPIPE = 70;

class Exit extends Error {
  readonly code: number;
  constructor(code: number) {
    super(`exit ${code}`);
    this.code = code;
  }
}

/** What a program did. */
export interface Ran {
  readonly code: number;
  readonly output: string;
}

/** A program's arguments and standard input. */
export interface Invocation {
  readonly arguments: readonly string[];
  readonly input?: string;
}

/** Functions of WASI over a memory, and what was written to standard output and error. */
export class PlainWasi {
  memory: WebAssembly.Memory | null = null;
  readonly #arguments: readonly string[];
  #input: Buffer;
  #output = "";
  #tick = 0n;

  constructor(invocation: Invocation) {
    this.#arguments = invocation.arguments;
    this.#input = Buffer.from(invocation.input ?? "");
  }

  /** Calls `start` and returns how the program ended. */
  run(start: () => unknown): Ran {
    try {
      start();
      return { code: 0, output: this.#output };
    } catch (error) {
      if (error instanceof Exit) return { code: error.code, output: this.#output };
      throw error;
    }
  }

  /** An import object with a function for each name. */
  functions(names: readonly string[]): Record<string, (...parameters: never[]) => number> {
    const known: Record<string, (...parameters: never[]) => number> = {
      args_sizes_get: (count: number, size: number) => this.#sizes(count, size, this.#arguments),
      args_get: (pointers: number, text: number) => this.#strings(pointers, text, this.#arguments),
      environ_sizes_get: (count: number, size: number) => this.#sizes(count, size, []),
      environ_get: () => 0,
      clock_res_get: (_clock: number, at: number) => this.#set64(at, 1n),
      clock_time_get: (_clock: number, _precision: bigint, at: number) => this.#set64(at, 10n ** 18n + this.#tick++),
      fd_write: (fd: number, vectors: number, count: number, written: number) =>
        this.#write(fd, vectors, count, written),
      fd_read: (fd: number, vectors: number, count: number, read: number) => this.#read(fd, vectors, count, read),
      fd_close: () => 0,
      fd_seek: () => ESPIPE,
      fd_prestat_get: () => EBADF,
      fd_fdstat_get: (fd: number, at: number) => this.#status(fd, at),
      fd_fdstat_set_flags: () => 0,
      random_get: (at: number, length: number) => this.#random(at, length),
      sched_yield: () => 0,
      proc_exit: (code: number) => {
        throw new Exit(code);
      },
    };
    return Object.fromEntries(names.map((name) => [name, known[name] ?? (() => ENOSYS)]));
  }

  /** Less than all of a memory of 4 GiB, which methods of Buffer do not handle. */
  get #bytes(): Buffer {
    const { buffer } = this.memory!;
    return Buffer.from(buffer, 0, Math.min(buffer.byteLength, 2 ** 30));
  }

  #set32(at: number, value: number): number {
    this.#bytes.writeUInt32LE(value, at >>> 0);
    return 0;
  }

  #set64(at: number, value: bigint): number {
    this.#bytes.writeBigUInt64LE(value, at >>> 0);
    return 0;
  }

  #sizes(count: number, size: number, strings: readonly string[]): number {
    this.#set32(count, strings.length);
    return this.#set32(
      size,
      strings.reduce((sum, text) => sum + Buffer.byteLength(text) + 1, 0),
    );
  }

  #strings(pointers: number, text: number, strings: readonly string[]): number {
    let at = text >>> 0;
    for (const [index, string] of strings.entries()) {
      this.#set32(pointers + 4 * index, at);
      at += this.#bytes.write(`${string}\0`, at);
    }
    return 0;
  }

  #vectors(at: number, count: number): { start: number; length: number }[] {
    return Array.from({ length: count }, (_, index) => ({
      start: this.#bytes.readUInt32LE(at + 8 * index),
      length: this.#bytes.readUInt32LE(at + 8 * index + 4),
    }));
  }

  #write(fd: number, vectors: number, count: number, written: number): number {
    if (fd !== 1 && fd !== 2) return EBADF;
    let total = 0;
    for (const { start, length } of this.#vectors(vectors, count)) {
      this.#output += this.#bytes.toString("utf8", start, start + length);
      total += length;
    }
    return this.#set32(written, total);
  }

  #read(fd: number, vectors: number, count: number, read: number): number {
    if (fd !== 0) return EBADF;
    let total = 0;
    for (const { start, length } of this.#vectors(vectors, count)) {
      total += this.#input.copy(this.#bytes, start, 0, length);
      this.#input = this.#input.subarray(Math.min(length, this.#input.length));
    }
    return this.#set32(read, total);
  }

  #status(fd: number, at: number): number {
    if (fd > 2) return EBADF;
    this.#bytes.fill(0, at, at + 24);
    this.#bytes.writeUInt8(2, at);
    return this.#set64(at + 8, 0xffff_ffffn);
  }

  #random(at: number, length: number): number {
    this.#bytes.fill(7, at >>> 0, (at >>> 0) + length);
    return 0;
  }
}
