import { XenolithError } from "@xenolith/abi";
import { limitsOf, type PoolOptions } from "./limits.ts";
import { PoolState } from "./owner-state.ts";
import { type OwnerOptions, SecretOwner } from "./owner.ts";
import { memoryIsShort } from "./pressure.ts";
import { granted, SecretRefusal } from "./refusal.ts";
import { type PoolStatistics, statisticsOf } from "./statistics.ts";
import { SecretStore } from "./store.ts";
import { SecretTable } from "./table.ts";

const PRESSURE_INTERVAL_MS = 5000;
/** Free chunks that `shrink` leaves when memory is not short. */
const FLOOR_CHUNKS = 1;

/**
 * A pool of secret memory for the owners of one program. It grows by chunks of 2 MiB within a ceiling, before somebody
 * waits for it, and gives free chunks back when memory is short.
 *
 * Source: memfd_secret(2).
 */
export class SecretPool implements Disposable, AsyncDisposable {
  readonly #state: PoolState;
  readonly #underPressure: () => boolean;
  readonly #watch: NodeJS.Timeout;

  private constructor(state: PoolState, underPressure: () => boolean) {
    this.#state = state;
    this.#underPressure = underPressure;
    this.#watch = setInterval(() => {
      if (state.store.loans.count === 0 && underPressure()) state.store.shrink(0);
    }, PRESSURE_INTERVAL_MS);
    this.#watch.unref();
  }

  /**
   * Opens a pool with its first chunk, so that what this machine lacks is known now.
   *
   * @throws XenolithError `SECRET_UNSUPPORTED` without memfd_secret when the policy is strict; `SECRET_MEMLOCK`,
   * `SECRET_MEMORY`, `SECRET_CEILING` when there is no room for it; `INVALID_ARGUMENT` for bad options.
   */
  static open(options: PoolOptions = {}): SecretPool {
    const { policy = "strict", growth = "auto", underPressure = memoryIsShort } = options;
    if (policy !== "strict" && policy !== "degraded") {
      throw new XenolithError("INVALID_ARGUMENT", `policy is ${String(policy)}, neither strict nor degraded`);
    }
    if (!["auto", "here", "helper"].includes(growth)) {
      throw new XenolithError("INVALID_ARGUMENT", `growth is ${growth}, none of auto, here, helper`);
    }
    const limits = granted(limitsOf(options));
    const make = (hidden: boolean): SecretStore | SecretRefusal => {
      const store = new SecretStore({ limits, hidden, growth, underPressure });
      const refusal = store.growFirst();
      if (refusal !== undefined) store.close();
      return refusal ?? store;
    };
    const strong = make(true);
    const isAbsent = strong instanceof SecretRefusal && strong.code === "SECRET_UNSUPPORTED";
    const store = isAbsent && policy === "degraded" ? make(false) : strong;
    return new SecretPool(new PoolState(granted(store)), underPressure);
  }

  /** Whether the kernel itself cannot read what is in it; false: memory that is locked and in no dump, and no more. */
  get hidden(): boolean {
    return this.#state.store.hidden;
  }

  /** An owner with a quota. @throws XenolithError `INVALID_ARGUMENT`; `SECRET_RELEASED` when the pool is closed. */
  owner(name: string, options: OwnerOptions = {}): SecretOwner {
    return new SecretOwner(this.#state.root, name, options);
  }

  /** A table of secrets by number, for owners of this pool. It ends with the pool. */
  table(): SecretTable {
    this.#state.root.checkOpen();
    return new SecretTable(this.#state);
  }

  /** What there is and who has it. */
  statistics(): PoolStatistics {
    return statisticsOf(this.#state);
  }

  /**
   * Gives free chunks back to the kernel: all when memory is short, else all but one. Returns how many went.
   *
   * @throws XenolithError `SECRET_IN_USE` inside `withBytes`.
   */
  shrink(): number {
    this.#checkNotLent();
    return this.#state.store.shrink(this.#underPressure() ? 0 : FLOOR_CHUNKS);
  }

  /** Settles when no chunk is being added in the background. */
  async idle(): Promise<void> {
    await this.#state.store.idle();
  }

  /**
   * Wipes and releases everything. Nothing works afterwards.
   *
   * @throws XenolithError `SECRET_IN_USE` inside `withBytes`; `SECRET_OVERRUN`, when all is done.
   */
  close(): void {
    const { root, store } = this.#state;
    if (root.isClosed) return;
    this.#checkNotLent();
    clearInterval(this.#watch);
    try {
      root.close();
    } finally {
      store.close();
    }
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** As `close`, and waits for what works in the background. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.idle();
  }

  #checkNotLent(): void {
    if (this.#state.store.loans.count === 0) return;
    throw new XenolithError("SECRET_IN_USE", "a function uses bytes of this pool now");
  }
}
