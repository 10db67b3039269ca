import { XenolithError } from "@xenolith/abi";
import type { Collector } from "./collector.ts";
import { outcome } from "./lookup.ts";
import { type Answer, INTERRUPTED, Pending, type Wait, WAIT } from "./pending.ts";
import type { Process } from "./process.ts";
import type { Awaited, KeyState } from "./state.ts";

/** Carries out operations: those that must wait for a key go on when it is built. */
export class OperationRunner {
  readonly #state: KeyState;
  readonly #collector: Collector;
  /** Operations that have not answered yet. */
  readonly #underWay = new Set<Promise<number>>();

  constructor(state: KeyState, collector: Collector) {
    this.#state = state;
    this.#collector = collector;
  }

  /** Operations that wait. */
  get waitCount(): number {
    return this.#underWay.size;
  }

  /** Throws `INVALID_ARGUMENT` for a process that the service does not know, or knows no more. */
  check(process: Process): void {
    if (this.#state.processes.has(process)) return;
    throw new XenolithError("INVALID_ARGUMENT", `process ${process.pid} is not attached to this service`);
  }

  /** Does it now, or as soon as that is possible. */
  run(process: Process, operation: () => number): Answer {
    this.check(process);
    const result = operation();
    if (result === WAIT) return this.#wait(process, operation);
    this.tidy();
    return result;
  }

  /** Ends keys that lost their last reference. */
  tidy(): void {
    if (this.#state.dead.length > 0) this.#collector.drain();
  }

  /** Resolves when every operation has answered that was under way. */
  async idle(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  #wait(process: Process, operation: () => number): Pending {
    const state = this.#state;
    let current: Wait | undefined;
    let interrupted = false;
    const goOn = async (): Promise<number> => {
      let result = WAIT;
      while (result === WAIT) {
        const awaited = state.awaited!;
        state.awaited = undefined;
        const { key } = awaited;
        state.pin(key);
        const wait = state.waits.begin(process, key);
        if (awaited.building === undefined) current = wait;
        if (interrupted) current?.interrupt();
        result = await this.#finish(process, awaited, wait, operation);
        state.waits.end(wait, key);
        current = undefined;
        state.unpin(key);
      }
      this.tidy();
      return result;
    };
    const settled = goOn().finally(() => this.#underWay.delete(settled));
    this.#underWay.add(settled);
    return new Pending(settled, () => {
      interrupted = true;
      current?.interrupt();
    });
  }

  /** What the operation comes to after the wait: perhaps WAIT, for another key. */
  async #finish(process: Process, awaited: Awaited, wait: Wait, operation: () => number): Promise<number> {
    const { key, resume, building } = awaited;
    if (building !== undefined) {
      const result = await building();
      if (!this.#state.processes.has(process)) return INTERRUPTED;
      if (result < 0) return result;
      const refusal = outcome(this.#state, key);
      return refusal < 0 ? refusal : key.serial;
    }
    if ((await wait.ended) === "interrupted" || !this.#state.processes.has(process)) return INTERRUPTED;
    return resume === undefined ? operation() : resume();
  }
}
