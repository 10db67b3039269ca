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
  /** Lower and upper quartile of the ratios of all rounds, where there were several. */
  readonly spread?: readonly [low: number, high: number];
  /** What the project promises for `ratio`, if anything. */
  readonly limit?: number;
  /** What it promises for `value` itself: at most, or at least. */
  readonly maximum?: number;
  readonly minimum?: number;
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

/** What `comparePair` found. */
export type Measurement = Pick<Result, "value" | "floor" | "ratio" | "spread">;

/** How often a pair is measured. */
export interface Rounds {
  /** Operations in one round. */
  readonly count: number;
  readonly rounds: number;
  /** Rounds before those that count; 2 by default. */
  readonly warmup?: number;
}

/**
 * Nanoseconds per operation of both sides, as medians of alternating rounds, and the median of the rounds' own ratios:
 * when the machine's speed drifts, both sides of a round drift together.
 */
export const comparePair = async (pair: Pair, options: Rounds): Promise<Measurement> => {
  const { values, floors, ratios } = await play(pair, options);
  return { value: median(values), floor: median(floors), ratio: median(ratios), spread: quartiles(ratios) };
};

/**
 * As `comparePair`, but the fastest tenth of each side, and the ratio of where it ends: for what another program on the
 * same processors does not slow down but stop. The very fastest round is chance: a virtual machine whose two processors
 * happen to be one core for a moment halves the floor.
 */
export const fastestPair = async (pair: Pair, options: Rounds): Promise<Measurement> => {
  const { values, floors, ratios } = await play(pair, options);
  const [value, floor] = [fastest(values), fastest(floors)];
  return { value, floor, ratio: value / floor, spread: quartiles(ratios) };
};

/**
 * The same of cycles that take several times at once, ours and the bare ones: of `figure`, which is one of these times or
 * a sum, in units of `unit` of theirs.
 */
export const compareCycles = <Times>(
  cycles: readonly (readonly [ours: Times, bare: Times])[],
  figure: (times: Times) => number,
  unit: number,
): Measurement => {
  const ratios = cycles.map(([ours, bare]) => figure(ours) / figure(bare));
  return {
    value: median(cycles.map(([ours]) => figure(ours))) / unit,
    floor: median(cycles.map(([, bare]) => figure(bare))) / unit,
    ratio: median(ratios),
    spread: quartiles(ratios),
  };
};

const play = async (pair: Pair, { count, rounds, warmup = 2 }: Rounds) => {
  const values: number[] = [];
  const floors: number[] = [];
  for (let round = -warmup; round < rounds; round += 1) {
    const value = (await pair.value(count)) / count;
    const floor = (await pair.floor(count)) / count;
    if (round < 0) continue;
    values.push(value);
    floors.push(floor);
  }
  return { values, floors, ratios: values.map((value, round) => value / floors[round]!) };
};

const fastest = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 10)]!;

/** Lower and upper quartile. */
export const quartiles = (values: readonly number[]): readonly [number, number] => {
  const sorted = values.toSorted((left, right) => left - right);
  const at = (share: number): number => sorted[Math.round(share * (sorted.length - 1))]!;
  return [at(0.25), at(0.75)];
};

/** Promises for a result. */
type Promised = Pick<Result, "limit" | "maximum" | "minimum">;

/** A result out of what `comparePair` measured. */
export const result = (id: string, unit: string, measured: Measurement, promised: Promised = {}): Result => ({
  id,
  unit,
  ...measured,
  ...promised,
});

/** A figure that was taken once, beside its floor. */
export const single = (
  id: string,
  unit: string,
  figures: { readonly value: number; readonly floor: number },
  promised: Promised = {},
): Result => ({ id, unit, ...figures, ratio: figures.value / figures.floor, ...promised });

/** The same in another unit, `factor` of the old one each. */
export const scaled = (measured: Measurement, factor: number): Measurement => ({
  ...measured,
  value: measured.value / factor,
  floor: measured.floor / factor,
});

/** Whether every promise of a result is kept; undefined when nothing is promised. */
export const isKept = ({ value, ratio, limit, maximum, minimum }: Result): boolean | undefined => {
  if (limit === undefined && maximum === undefined && minimum === undefined) return undefined;
  return ratio <= (limit ?? Infinity) && value <= (maximum ?? Infinity) && value >= (minimum ?? -Infinity);
};

/** Nanoseconds that `work` takes. */
export const timeNs = (work: () => void): number => {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start);
};

const number = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

const promiseOf = (entry: Result): string => {
  const kept = isKept(entry);
  if (kept === undefined) return "";
  const { limit, maximum, minimum } = entry;
  const words = [
    limit === undefined ? "" : `ratio <= ${limit}`,
    maximum === undefined ? "" : `value <= ${maximum}`,
    minimum === undefined ? "" : `value >= ${minimum}`,
  ];
  return ` (${words.filter((word) => word !== "").join(", ")}: ${kept ? "kept" : "MISSED"})`;
};

/** The results as a table: one line each, the ratio beside what is promised. */
export const formatResults = (bench: string, results: readonly Result[]): string => {
  const width = Math.max(...results.map(({ id }) => id.length));
  const lines = results.map((entry) => {
    const { id, value, unit, floor, ratio, spread } = entry;
    const range = spread === undefined ? "" : ` [${spread[0].toFixed(2)}-${spread[1].toFixed(2)}]`;
    return `  ${id.padEnd(width)}  ${number(value)} ${unit}, floor ${number(floor)}, ratio ${ratio.toFixed(2)}${range}${promiseOf(entry)}`;
  });
  return [`${bench} (Node ${process.version}, ${process.arch})`, ...lines, ""].join("\n");
};

/** The results as rows of the table in docs/performance.md. */
export const markdownRows = (bench: string, results: readonly Result[]): string =>
  results.map((entry) => `${rowOf(bench, entry)}\n`).join("");

const rowOf = (bench: string, entry: Result): string => {
  const { id, value, unit, floor, ratio, spread, limit, maximum, minimum } = entry;
  const range = spread === undefined ? "" : `${spread[0].toFixed(2)}-${spread[1].toFixed(2)}`;
  const promises = [
    limit === undefined ? "" : `ratio at most ${limit}`,
    maximum === undefined ? "" : `value at most ${maximum}`,
    minimum === undefined ? "" : `value at least ${minimum}`,
  ].filter((words) => words !== "");
  const kept = isKept(entry);
  const verdict = kept === undefined ? "" : kept ? "yes" : "**no**";
  const cells = [
    bench,
    id,
    `${number(value)} ${unit}`,
    number(floor),
    ratio.toFixed(2),
    range,
    promises.join(", "),
    verdict,
  ];
  return `| ${cells.join(" | ")} |`;
};
