const INSPECT = Symbol.for("nodejs.util.inspect.custom");

/** What secrets and regions have in common: they end once, and print nothing. */
export abstract class SecretHandle implements Disposable, AsyncDisposable {
  /** Whether it can still be used. */
  abstract readonly isLive: boolean;

  /** Wipes it and gives its memory back, now. */
  abstract release(): void;

  /** As `release`, but once is enough. */
  [Symbol.dispose](): void {
    if (this.isLive) this.release();
  }

  /** As `release`, but once is enough. */
  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }

  /** Prints nothing. */
  toJSON(): undefined {
    return undefined;
  }

  /** Prints nothing. */
  toString(): string {
    return `[object ${this.constructor.name}]`;
  }

  /** Prints nothing. */
  [INSPECT](): string {
    return `${this.constructor.name} {}`;
  }
}
