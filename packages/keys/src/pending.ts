import { EINTR } from "./errno.ts";
import type { Key } from "./key.ts";

/**
 * An operation that waits for a key under construction. `settled` never rejects; it fulfils with what the operation answers.
 */
export class Pending {
  readonly settled: Promise<number>;
  readonly #interrupt: () => void;

  constructor(settled: Promise<number>, interrupt: () => void) {
    this.settled = settled;
    this.#interrupt = interrupt;
  }

  /** Ends the wait with -EINTR. Whoever requested a key first cannot be interrupted while it is being built. */
  interrupt(): void {
    this.#interrupt();
  }
}

/** What an operation answers: 0 or more, a negated error number, or that it waits. */
export type Answer = number | Pending;

/** The answer, when it is there. */
export const settle = async (answer: Answer): Promise<number> =>
  typeof answer === "number" ? answer : await answer.settled;

/** What an operation returns inside the service that cannot go on before a key is built; never seen outside. */
export const WAIT = -0x4000_0000;

/** A wait that can be ended from both sides, once. */
export class Wait {
  readonly ended: Promise<"built" | "interrupted">;
  /** The constructions that wait with it. */
  readonly builders: readonly Key[];
  #end: (how: "built" | "interrupted") => void = () => undefined;

  constructor(builders: readonly Key[]) {
    this.builders = builders;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /** The key is built. */
  built(): void {
    this.#end("built");
  }

  /** The waiter gave up. */
  interrupt(): void {
    this.#end("interrupted");
  }
}

/** What an operation answers whose wait was interrupted. */
export const INTERRUPTED = -EINTR;
