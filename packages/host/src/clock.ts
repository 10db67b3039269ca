/**
 * The hypervisor's clocks, the same in every thread: nanoseconds of CLOCK_MONOTONIC since an epoch that the control
 * domain chose. `performance.now()` counts from a different origin in each thread, so each thread measures its own
 * distance to the epoch once.
 */

const CALIBRATION_COUNT = 8;
/** How far the wall clock may drift from our extrapolation before it is read again. */
const WALL_DRIFT_NS_MAX = 2_000_000n;

/** Readings of a clock that was started in a hurry before it becomes a fast one. */
const SLOW_READINGS = 100;

/**
 * One thread's view of the common clocks. Node takes 2 ms in each thread to load `performance`; a clock that is started
 * in a hurry reads the same time in a way that allocates, until it was read a few times.
 */
export class HostClock {
  readonly #epochNs: bigint;
  #originNs = 0;
  #wallOffsetNs: bigint;
  /** 0: the clock is a fast one. */
  #slowReadings: number;
  #lastNs = 0;

  /** `epochNs` is `process.hrtime.bigint()` at the start of the hypervisor. */
  constructor(epochNs: bigint, isHurried = false) {
    this.#epochNs = epochNs;
    this.#slowReadings = isHurried ? SLOW_READINGS : 0;
    if (!isHurried) this.#originNs = originOf(epochNs);
    this.#wallOffsetNs = this.#measureWall();
  }

  /** Nanoseconds since the epoch; never goes back within one thread. */
  now(): number {
    return this.#slowReadings > 0 ? this.#readSlowly() : performance.now() * 1e6 - this.#originNs;
  }

  #readSlowly(): number {
    this.#lastNs = Math.max(this.#lastNs, Number(process.hrtime.bigint() - this.#epochNs));
    this.#slowReadings -= 1;
    // The two differ by what measuring the origin takes: the fast clock must not begin before the last reading.
    if (this.#slowReadings === 0)
      this.#originNs = Math.min(originOf(this.#epochNs), performance.now() * 1e6 - this.#lastNs);
    return this.#lastNs;
  }

  /** Nanoseconds since 1970. Follows the system's clock, also when somebody sets it. */
  wallClock(): bigint {
    const extrapolated = this.#wallOffsetNs + BigInt(Math.floor(this.now()));
    const drift = extrapolated - BigInt(Date.now()) * 1_000_000n;
    if (drift > -WALL_DRIFT_NS_MAX && drift < WALL_DRIFT_NS_MAX) return extrapolated;
    this.#wallOffsetNs = this.#measureWall();
    return this.#wallOffsetNs + BigInt(Math.floor(this.now()));
  }

  #measureWall(): bigint {
    // Date.now() truncates to milliseconds: half of one is the best guess in between.
    return BigInt(Date.now()) * 1_000_000n + 500_000n - BigInt(Math.floor(this.now()));
  }
}

/** What `performance.now() * 1e6` was at the epoch; the smallest of several measurements has the least delay in it. */
const originOf = (epochNs: bigint): number => {
  let origin = Infinity;
  for (let round = 0; round < CALIBRATION_COUNT; round += 1) {
    const elapsedNs = Number(process.hrtime.bigint() - epochNs);
    origin = Math.min(origin, performance.now() * 1e6 - elapsedNs);
  }
  return origin;
};
