/**
 * What every bench shares: results that stand beside their floor, medians of alternating rounds, a table for people and
 * JSON for machines. A floor is what the same machine does in the same run without us: the bare system call, memcpy,
 * Atomics.wait. On a shared machine only the ratio means something.
 */

/** One figure beside its floor; `ratio` = value / floor, or floor / value for rates (so that above 1 always costs). */
export interface Result {
  readonly id: string;
  readonly value: number;
  readonly unit: string;
  readonly floor: number;
  readonly ratio: number;
  /** What the project promises for `ratio`, if anything. */
  readonly limit?: number;
}

/** `small` runs prove that a bench works; their figures mean nothing. */
export interface BenchOptions {
  readonly small: boolean;
}

/** A bench: a function of its size to its results. */
export type Bench = (options: BenchOptions) => Promise<readonly Result[]>;

/** Middle of `values`. */
export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((left, right) => left - right);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

/** One measured thing and its floor: each call does `count` operations and returns the nanoseconds they took. */
export interface Pair {
  readonly value: (count: number) => number | Promise<number>;
  readonly floor: (count: number) => number | Promise<number>;
}

/**
 * Nanoseconds per operation of both sides, as medians of alternating rounds, and the median of the rounds' own ratios:
 * when the machine's speed drifts, both sides of a round drift together.
 */
export const comparePair = async (
  pair: Pair,
  options: { count: number; rounds: number; warmup?: number },
): Promise<{ value: number; floor: number; ratio: number }> => {
  const values: number[] = [];
  const floors: number[] = [];
  const ratios: number[] = [];
  for (let round = -(options.warmup ?? 2); round < options.rounds; round += 1) {
    const value = (await pair.value(options.count)) / options.count;
    const floor = (await pair.floor(options.count)) / options.count;
    if (round < 0) continue;
    values.push(value);
    floors.push(floor);
    ratios.push(value / floor);
  }
  return { value: median(values), floor: median(floors), ratio: median(ratios) };
};

/** A result out of what `comparePair` measured. */
export const result = (
  id: string,
  unit: string,
  measured: { value: number; floor: number; ratio: number },
  limit?: number,
): Result => ({ id, unit, ...measured, ...(limit === undefined ? {} : { limit }) });

/** Nanoseconds that `work` takes. */
export const timeNs = (work: () => void): number => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
};

const number = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** The results as a table: one line each, the ratio beside its limit. */
export const formatResults = (bench: string, results: readonly Result[]): string => {
  const width = Math.max(...results.map(({ id }) => id.length));
  const lines = results.map(({ id, value, unit, floor, ratio, limit }) => {
    const verdict = limit === undefined ? "" : ` (limit ${limit}${ratio <= limit ? "" : ", EXCEEDED"})`;
    return `  ${id.padEnd(width)}  ${number(value)} ${unit}, floor ${number(floor)}, ratio ${ratio.toFixed(2)}${verdict}`;
  });
  return [`${bench} (Node ${process.version}, ${process.arch})`, ...lines, ""].join("\n");
};
