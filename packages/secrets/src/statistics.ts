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

const GAUGES = ["lockedBytes", "ceilingBytes", "usedBytes", "freeBytes", "slots", "degradedSlots", "chunks"] as const;

/** The figures in the text format of Prometheus. */
export const formatSecretMetrics = (figures: PoolStatistics): string => {
  const lines = GAUGES.map((name) => `xenolith_secrets_${snake(name)} ${figures[name]}`);
  lines.push(
    `xenolith_secrets_hidden ${figures.hidden ? 1 : 0}`,
    `xenolith_secrets_overruns_total ${figures.overruns}`,
  );
  for (const [code, count] of Object.entries(figures.refusals)) {
    lines.push(`xenolith_secrets_refusals_total{code="${code}"} ${count}`);
  }
  for (const { path, bytes, slots } of figures.owners) {
    const label = `{owner="${path.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"}`;
    lines.push(`xenolith_secrets_owner_bytes${label} ${bytes}`, `xenolith_secrets_owner_slots${label} ${slots}`);
  }
  return `${lines.join("\n")}\n`;
};

const snake = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
