import type { ErrorCode } from "@xenolith/abi";
import { PAGE_BYTES } from "@xenolith/sys";
import type { OwnerState, PoolState } from "./owner-state.ts";

/** What one owner has, those below it included. */
export interface OwnerStatistics {
  /** Its name, behind those of the owners above it: `tenant/worker`. */
  readonly path: string;
  readonly bytes: number;
  /** Regions that it has mapped beside that, once for each mapping. */
  readonly mappedBytes: number;
  readonly slots: number;
  /** Chunks in which it has something. */
  readonly chunks: number;
  readonly bytesHigh: number;
  readonly refusals: number;
}

/** A pool's figures, in bytes unless they say otherwise. */
export interface PoolStatistics {
  /** Whether the kernel itself cannot read the secrets. */
  readonly hidden: boolean;
  readonly ceilingBytes: number;
  /** Chunks, regions, and their further mappings: what counts against RLIMIT_MEMLOCK. */
  readonly lockedBytes: number;
  readonly lockedBytesHigh: number;
  readonly chunkBytes: number;
  readonly chunks: number;
  readonly freeBytes: number;
  readonly regionBytes: number;
  /** Further mappings of regions. */
  readonly mappedBytes: number;
  /** What owners have. */
  readonly usedBytes: number;
  /** Secrets and regions. */
  readonly slots: number;
  /** Those of them that the kernel can read: all of a degraded pool's. */
  readonly degradedSlots: number;
  readonly growths: number;
  readonly shrinks: number;
  /** How long the last growth took. */
  readonly lastGrowthMs: number;
  /** Secrets behind which something had written. */
  readonly overruns: number;
  /** Refused requests by code. */
  readonly refusals: Readonly<Partial<Record<ErrorCode, number>>>;
  /** Every owner, those above first. */
  readonly owners: readonly OwnerStatistics[];
}

/** One owner's figures. For this package. */
export const statisticsOfOwner = ({ account }: OwnerState): OwnerStatistics => {
  const { path, bytes, mappedBytes, slots, chunks, bytesHigh, refusals } = account;
  return { path, bytes, mappedBytes, slots, chunks, bytesHigh, refusals };
};

const ownersBelow = (state: OwnerState): OwnerStatistics[] =>
  Array.from(state.children.values(), (child) => [statisticsOfOwner(child), ...ownersBelow(child)]).flat();

/** The figures of now. For this package. */
export const statisticsOf = ({ store, root, refusals, overruns }: PoolState): PoolStatistics => ({
  hidden: store.hidden,
  ceilingBytes: store.limits.ceilingBytes,
  lockedBytes: store.lockedBytes,
  lockedBytesHigh: store.lockedHighBytes,
  chunkBytes: store.limits.chunkBytes,
  chunks: store.chunkCount,
  freeBytes: store.freePages * PAGE_BYTES,
  regionBytes: store.regionBytes,
  mappedBytes: store.mappedBytes,
  usedBytes: root.account.bytes,
  slots: root.account.slots,
  degradedSlots: store.hidden ? 0 : root.account.slots,
  growths: store.growths,
  shrinks: store.shrinks,
  lastGrowthMs: store.lastGrowthMs,
  overruns,
  refusals: Object.fromEntries(refusals),
  owners: ownersBelow(root),
});

/** One metric: its name, what it is, and a line for each of its labels. */
type Metric = readonly [name: string, kind: "counter" | "gauge", help: string, samples: readonly Sample[]];
type Sample = readonly [labels: string, value: number];

const quoted = (text: string): string => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

const metricsOf = (figures: PoolStatistics): readonly Metric[] => {
  const refusals = Object.entries(figures.refusals);
  const ofOwners = (value: (owner: OwnerStatistics) => number): Sample[] =>
    figures.owners.map((owner) => [`{owner=${quoted(owner.path)}}`, value(owner)]);
  const one = (value: number): Sample[] => [["", value]];
  return [
    ["hidden", "gauge", "Whether the kernel itself cannot read it.", one(figures.hidden ? 1 : 0)],
    ["ceiling_bytes", "gauge", "Secret memory at most.", one(figures.ceilingBytes)],
    ["locked_bytes", "gauge", "Chunks, regions and further mappings of them.", one(figures.lockedBytes)],
    ["locked_bytes_high", "gauge", "The most of them so far.", one(figures.lockedBytesHigh)],
    ["used_bytes", "gauge", "What owners have.", one(figures.usedBytes)],
    ["free_bytes", "gauge", "What is free in chunks.", one(figures.freeBytes)],
    ["region_bytes", "gauge", "What is in regions.", one(figures.regionBytes)],
    ["mapped_bytes", "gauge", "Regions mapped at further places.", one(figures.mappedBytes)],
    ["chunks", "gauge", "Chunks.", one(figures.chunks)],
    ["slots", "gauge", "Secrets and regions.", one(figures.slots)],
    ["degraded_slots", "gauge", "Those of them that the kernel can read.", one(figures.degradedSlots)],
    ["growths_total", "counter", "Chunks and regions that were added.", one(figures.growths)],
    ["shrinks_total", "counter", "Chunks that were given back.", one(figures.shrinks)],
    ["last_growth_seconds", "gauge", "How long the last one took.", one(figures.lastGrowthMs / 1000)],
    ["overruns_total", "counter", "Secrets behind which something had written.", one(figures.overruns)],
    [
      "refusals_total",
      "counter",
      "Refused requests, by code.",
      refusals.map(([code, count]): Sample => [`{code=${quoted(code)}}`, count]),
    ],
    ["owner_bytes", "gauge", "What an owner has, those below it included.", ofOwners(({ bytes }) => bytes)],
    ["owner_slots", "gauge", "Its secrets and regions.", ofOwners(({ slots }) => slots)],
    ["owner_refusals_total", "counter", "What it was refused.", ofOwners(({ refusals: count }) => count)],
  ];
};

/** The figures in the text format of Prometheus. Of secrets nothing, of owners their names. */
export const formatSecretMetrics = (figures: PoolStatistics): string =>
  metricsOf(figures)
    .map(([suffix, kind, help, samples]) => {
      const name = `xenolith_secrets_${suffix}`;
      const lines = samples.map(([labels, value]) => `${name}${labels} ${value}\n`).join("");
      return `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n${lines}`;
    })
    .join("");
