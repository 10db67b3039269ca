/**
 * The balloon of a reactor, driven by the control domain: between two calls it asks the guest, through what
 * XEN_BALLOON_EXPORTS exports, to keep more pages or to give some back. The state machine is balloon.ts.
 */
import type { Domain } from "@xenolith/host";
import { domainPath, type XenstoreClient } from "@xenolith/xenstore";
import {
  aimBalloon,
  type Balloon,
  balloonPages,
  balloonStatistics,
  parseTarget,
  restingBalloon,
  settleBalloon,
} from "./balloon.ts";

/** Pages between two looks at the target: 128 MiB. */
const BATCH_PAGES = 32_768;

/** What the driver changes. */
export interface BalloonedDomain {
  /** Pages that the domain owns now. */
  readonly pages: () => number;
  /** Makes it own up to `count` pages more; resolves to how many came. Rejects when the domain has ended. */
  readonly up: (count: number) => Promise<number>;
  /** Makes it give back up to `count` pages; resolves to how many went. */
  readonly down: (count: number) => Promise<number>;
}

/** What the driver needs besides. */
export interface BalloonOptions {
  readonly scheduleDelayMax?: number;
  /** 0: unlimited, the default. */
  readonly retryCountMax?: number;
  /** Milliseconds of one second of delay; for tests. */
  readonly secondMs?: number;
  /** Called when the driver sleeps. */
  readonly onRest?: (balloon: Balloon) => Promise<void> | void;
}

/** Follows targets until it is closed or the domain ends. */
export class BalloonDriver {
  readonly #domain: BalloonedDomain;
  readonly #options: BalloonOptions;
  #balloon: Balloon;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #isDue = false;
  #isClosed = false;

  /** Rests at what the domain owns now. */
  constructor(domain: BalloonedDomain, options: BalloonOptions = {}) {
    this.#domain = domain;
    this.#options = options;
    this.#balloon = restingBalloon(domain.pages(), options);
  }

  /** What the machine knows. */
  get balloon(): Balloon {
    return this.#balloon;
  }

  /** A new target, in pages. Returns at once. */
  aim(pages: number): void {
    const { balloon, isDue } = aimBalloon(this.#balloon, pages);
    this.#balloon = balloon;
    if (isDue) this.#wake();
  }

  /** Settles when it sleeps: at its target, or between two tries. */
  async rested(): Promise<void> {
    await this.#running;
  }

  /** Takes no further step. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }

  #wake(): void {
    if (this.#isClosed) return;
    clearTimeout(this.#timer);
    this.#isDue = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  async #run(): Promise<void> {
    while (this.#isDue && !this.#isClosed) {
      this.#isDue = false;
      try {
        await this.#step();
        if (!this.#isDue && !this.#isClosed) await this.#options.onRest?.(this.#balloon);
      } catch {
        // The domain, or the store, is gone: there is nothing left to follow.
        this.close();
      }
    }
  }

  async #step(): Promise<void> {
    const { targetPages } = this.#balloon;
    const before = this.#domain.pages();
    const wanted = Math.min(Math.abs(targetPages - before), BATCH_PAGES);
    let changed = 0;
    if (wanted > 0) changed = targetPages > before ? await this.#domain.up(wanted) : await this.#domain.down(wanted);
    const { balloon, sleep } = settleBalloon(this.#balloon, this.#domain.pages(), changed);
    this.#balloon = balloon;
    if (sleep === 0) this.#isDue = true;
    else if (sleep !== undefined && !this.#isDue) this.#sleep(sleep);
  }

  #sleep(seconds: number): void {
    this.#timer = setTimeout(() => this.#wake(), seconds * (this.#options.secondMs ?? 1000));
    // Waiting for memory is no reason for a program to go on.
    this.#timer.unref();
  }
}

/** What a reactor with XEN_BALLOON_EXPORTS offers. */
export const reactorBalloon = (domain: Domain): BalloonedDomain => ({
  pages: () => domain.stats().pages,
  up: async (count) => Number(await domain.call("xen_balloon_up", count)) >>> 0,
  down: async (count) => Number(await domain.call("xen_balloon_down", count)) >>> 0,
});

/** A driver that follows the store. */
export interface DrivenBalloon {
  readonly driver: BalloonDriver;
  /** Follows nothing any more; the domain keeps what it has. A call that it is in may go on as long as it likes. */
  stop(): Promise<void>;
}

/**
 * Drives a reactor's balloon by `memory/target` of its home and writes the statistics there. Like the library's
 * driver it does nothing until the target is something other than static-max.
 */
export const driveBalloon = async (
  store: XenstoreClient,
  domain: Domain,
  options: BalloonOptions = {},
): Promise<DrivenBalloon> => {
  const home = domainPath(domain.domid);
  const written = new Map<string, number>();
  const staticMaxKib = async (): Promise<number> =>
    parseTarget((await store.readIfPresent(`${home}/memory/static-max`)) ?? "") ?? 0;
  const writeStatistics = async (balloon: Balloon): Promise<void> => {
    for (const [name, value] of Object.entries(balloonStatistics(balloon, await staticMaxKib()))) {
      if (written.get(name) === value) continue;
      await store.write(`${home}/data/balloon/${name}`, String(value));
      written.set(name, value);
    }
  };
  const driver = new BalloonDriver(reactorBalloon(domain), { ...options, onRest: writeStatistics });
  const watcher = store.watch(`${home}/memory/target`);
  const following = follow(watcher, async (isFirst) => {
    const targetKib = parseTarget((await store.readIfPresent(`${home}/memory/target`)) ?? "");
    const maxKib = await staticMaxKib();
    if (targetKib !== undefined && !(isFirst && targetKib >= maxKib)) driver.aim(balloonPages(targetKib, maxKib, 0));
  });
  return {
    driver,
    stop: async () => {
      driver.close();
      await watcher[Symbol.asyncDispose]();
      await following;
    },
  };
};

const follow = async (changes: AsyncIterable<unknown>, look: (isFirst: boolean) => Promise<void>): Promise<void> => {
  let isFirst = true;
  try {
    for await (const _ of changes) {
      await look(isFirst);
      isFirst = false;
    }
  } catch {
    // The store, or the domain's home, is gone.
  }
};
