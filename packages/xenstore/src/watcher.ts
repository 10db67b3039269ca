import { XenolithError } from "@xenolith/abi";

/** Paths that wait for a reader; when more come they become one, the watched path. */
const PENDING_COUNT_MAX = 1024;

interface Reader {
  readonly resolve: (result: IteratorResult<string, undefined>) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * The events of one watch as paths, for one reader. A path that waits already does not wait twice, so a reader that is
 * slow sees fewer events and the memory is bounded. The first is the watched path itself, right away.
 */
export class Watcher implements AsyncIterableIterator<string, undefined>, AsyncDisposable {
  readonly path: string;
  readonly #pending = new Set<string>();
  readonly #readers: Reader[] = [];
  readonly #release: () => Promise<void>;
  #ended: { readonly error: unknown } | undefined;
  #released: Promise<void> | undefined;

  constructor(path: string, release: () => Promise<void>) {
    this.path = path;
    this.#release = release;
  }

  /** Events that wait. */
  get pendingCount(): number {
    return this.#pending.size;
  }

  /** Takes an event from the connection. */
  push(path: string): void {
    if (this.#ended !== undefined) return;
    const reader = this.#readers.shift();
    if (reader !== undefined) {
      reader.resolve({ value: path, done: false });
      return;
    }
    if (this.#pending.size < PENDING_COUNT_MAX) this.#pending.add(path);
    else if (!this.#pending.has(path)) this.#mergeEvents();
  }

  /** Ends the iteration, with an error if there is one. */
  end(error?: unknown): void {
    if (this.#ended !== undefined) return;
    this.#ended = { error };
    this.#pending.clear();
    for (const reader of this.#readers.splice(0)) {
      if (error === undefined) reader.resolve({ value: undefined, done: true });
      else reader.reject(error);
    }
  }

  /** The next path that changed; waits for it. */
  next(): Promise<IteratorResult<string, undefined>> {
    const [path] = this.#pending;
    if (path !== undefined) {
      this.#pending.delete(path);
      return Promise.resolve({ value: path, done: false });
    }
    if (this.#ended === undefined) return new Promise((resolve, reject) => this.#readers.push({ resolve, reject }));
    const { error } = this.#ended;
    this.#ended = { error: undefined };
    return error === undefined ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(asError(error));
  }

  /** Ends the watch; the daemon forgets it. May be called again. */
  async close(): Promise<void> {
    this.end();
    this.#released ??= this.#release();
    await this.#released;
  }

  async return(): Promise<IteratorResult<string, undefined>> {
    await this.close();
    return { value: undefined, done: true };
  }

  #mergeEvents(): void {
    this.#pending.clear();
    this.#pending.add(this.path);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

const asError = (error: unknown): Error =>
  error instanceof Error ? error : new XenolithError("ABORTED", "the watch ended", { cause: error });
