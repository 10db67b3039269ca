/** What the queue serves. */
export interface ServiceOptions<T> {
  /** Does one bounded piece of work; true if there may be more. */
  readonly serve: (item: T) => boolean;
  /** Pieces of work in one turn of the event loop. */
  readonly piecesPerTurn: number;
  /** Runs the next turn; by default when the event loop has done everything else once. */
  readonly defer: (turn: () => void) => void;
}

/**
 * Items that have work, served one piece each in turn, so that none waits for more than one piece of each other. A wake
 * of an item that is in the queue costs nothing.
 */
export class ServiceQueue<T> {
  readonly #options: ServiceOptions<T>;
  readonly #ready = new Set<T>();
  #turnComing = false;

  constructor(options: ServiceOptions<T>) {
    this.#options = options;
  }

  wake(item: T): void {
    this.#ready.add(item);
    this.#plan();
  }

  forget(item: T): void {
    this.#ready.delete(item);
  }

  /** Serves until nobody has work, without giving way. For tests and for shutting down. */
  runUntilIdle(): void {
    while (this.#serveNext());
  }

  #plan(): void {
    if (this.#turnComing || this.#ready.size === 0) return;
    this.#turnComing = true;
    this.#options.defer(() => this.#turn());
  }

  #turn(): void {
    this.#turnComing = false;
    for (let piece = 0; piece < this.#options.piecesPerTurn; piece += 1) if (!this.#serveNext()) break;
    this.#plan();
  }

  #serveNext(): boolean {
    const [item] = this.#ready;
    if (item === undefined) return false;
    this.#ready.delete(item);
    if (this.#options.serve(item)) this.#ready.add(item);
    return true;
  }
}
