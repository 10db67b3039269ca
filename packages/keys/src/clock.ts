/** Time, as the service sees it. */
export interface Clock {
  /** Whole seconds of the wall clock. */
  seconds(): number;
  /** Calls back once, after this many milliseconds; the result cancels that. */
  after(milliseconds: number, callback: () => void): () => void;
}

/** Node's longest timer. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** The machine's clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  seconds: () => Math.floor(Date.now() / 1000),
  after: (milliseconds, callback) => {
    const timer = setTimeout(callback, Math.min(milliseconds, TIMER_MAX_MS));
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** A clock that stands until it is moved, for tests and simulations. */
export class ManualClock implements Clock {
  #milliseconds: number;
  readonly #timers = new Map<() => void, number>();

  constructor(seconds = 1_000_000) {
    this.#milliseconds = seconds * 1000;
  }

  seconds(): number {
    return Math.floor(this.#milliseconds / 1000);
  }

  after(milliseconds: number, callback: () => void): () => void {
    const once = (): void => callback();
    this.#timers.set(once, this.#milliseconds + milliseconds);
    return () => void this.#timers.delete(once);
  }

  /** Moves on by this many seconds and runs what is due on the way, in order of time. */
  advance(seconds: number): void {
    const end = this.#milliseconds + seconds * 1000;
    for (;;) {
      let next: readonly [() => void, number] | undefined;
      for (const entry of this.#timers) if (entry[1] <= end && (next === undefined || entry[1] < next[1])) next = entry;
      if (next === undefined) break;
      this.#timers.delete(next[0]);
      this.#milliseconds = Math.max(this.#milliseconds, next[1]);
      next[0]();
    }
    this.#milliseconds = end;
  }
}
