/** Turns: at most so many at once in all, and so many of one kind; who comes when all are taken waits for a free one. */
export class Turns {
  readonly #max: number;
  readonly #maxPerKind: number;
  readonly #taken = new Map<unknown, number>();
  readonly #waiting = new Set<Waiting>();
  #count = 0;

  constructor(max: number, maxPerKind: number) {
    this.#max = max;
    this.#maxPerKind = maxPerKind;
  }

  /** Does it when it is its turn; not at all if the signal fires before: then the result is undefined. */
  async take<Result>(kind: unknown, signal: AbortSignal, work: () => Promise<Result>): Promise<Result | undefined> {
    if (signal.aborted) return undefined;
    if (this.#isFree(kind)) this.#change(kind, 1);
    else if (!(await this.#granted(kind, signal))) return undefined;
    try {
      return signal.aborted ? undefined : await work();
    } finally {
      this.#change(kind, -1);
      this.#callNext();
    }
  }

  /** How many have a turn, and how many wait for one. */
  get counts(): { readonly taken: number; readonly waiting: number } {
    return { taken: this.#count, waiting: this.#waiting.size };
  }

  #isFree(kind: unknown): boolean {
    return this.#count < this.#max && (this.#taken.get(kind) ?? 0) < this.#maxPerKind;
  }

  #change(kind: unknown, by: number): void {
    const taken = (this.#taken.get(kind) ?? 0) + by;
    if (taken === 0) this.#taken.delete(kind);
    else this.#taken.set(kind, taken);
    this.#count += by;
  }

  #granted(kind: unknown, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const giveUp = (): void => {
        this.#waiting.delete(waiting);
        resolve(false);
      };
      const grant = (): void => {
        signal.removeEventListener("abort", giveUp);
        resolve(true);
      };
      const waiting = { kind, grant };
      this.#waiting.add(waiting);
      signal.addEventListener("abort", giveUp, { once: true });
    });
  }

  /** The turn is taken here, for whoever waits: nobody else can come in between. */
  #callNext(): void {
    for (const waiting of this.#waiting) {
      if (!this.#isFree(waiting.kind)) continue;
      this.#waiting.delete(waiting);
      this.#change(waiting.kind, 1);
      waiting.grant();
      return;
    }
  }
}

interface Waiting {
  readonly kind: unknown;
  readonly grant: () => void;
}
