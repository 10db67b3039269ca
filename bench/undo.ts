/** What a bench puts onto the machine goes again however it ends, unless it is killed with SIGKILL. */

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Steps to be undone, the last one first: when it is disposed, when the process exits, or when a signal ends it. */
export class Undo implements Disposable {
  readonly #steps: (() => void)[] = [];
  readonly #onExit = (): void => this.#all();
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this[Symbol.dispose]();
    process.kill(process.pid, signal);
  };

  constructor() {
    process.on("exit", this.#onExit);
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
  }

  /** Does something that `take` undoes; if it throws, all that was done before is undone. */
  put<Result>(put: () => Result, take: (result: Result) => void): Result {
    try {
      const result = put();
      this.#steps.unshift(() => take(result));
      return result;
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #all(): void {
    for (const step of this.#steps.splice(0)) step();
  }

  [Symbol.dispose](): void {
    this.#all();
    process.off("exit", this.#onExit);
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
  }
}
