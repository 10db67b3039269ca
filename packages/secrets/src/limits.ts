/**
 * How large a pool may become: the smallest of what was configured, what RLIMIT_MEMLOCK leaves and a share of the
 * machine's memory. Memory that cannot be swapped must be bounded before it is promised.
 */
import { XenolithError } from "@xenolith/abi";
import { lockedBytes, machineMemory, mayLockBeyondLimit, PAGE_BYTES, resourceLimit } from "@xenolith/sys";
import { SecretRefusal } from "./refusal.ts";

/** One chunk: what a large mapping of the kernel covers, so that its direct map is split once per chunk. */
export const CHUNK_BYTES = 2 * 2 ** 20;

/** What a pool may be configured to at most: chunks and regions must fit one WebAssembly memory. */
export const POOL_BYTES_MAX = 2 ** 30;

/** What happens where the kernel has no secret memory: refuse, or take locked ordinary memory and say so. */
export type SecretPolicy = "strict" | "degraded";

/** Who touches the pages of a new chunk: see `growth.ts`. */
export type GrowthPlace = "auto" | "here" | "helper";

/** How a pool is opened. */
export interface PoolOptions {
  /** `strict` by default. */
  readonly policy?: SecretPolicy;
  /** Secret memory at most, in bytes; 64 MiB by default, at most 1 GiB. RLIMIT_MEMLOCK may make it less. */
  readonly bytesMax?: number;
  /** Share of the ceiling that only privileged owners get, from 0 to 0.5; 0.05 by default. */
  readonly reserveShare?: number;
  /** Free bytes below which a chunk is added in the background; 512 KiB by default, 0 for never. */
  readonly lowWaterBytes?: number;
  /** `auto` by default. */
  readonly growth?: GrowthPlace;
  /** Says whether memory is short now; by default it looks at the kernel's pressure figures and the control group. */
  readonly underPressure?: () => boolean;
}

/** A pool's sizes, in bytes unless they say otherwise. For this package. */
export interface PoolLimits {
  readonly ceilingBytes: number;
  /** What the ceiling comes from, for messages. */
  readonly ceilingFrom: "configuration" | "machine" | "memlock";
  readonly chunkBytes: number;
  readonly chunkCountMax: number;
  readonly reservePages: number;
  readonly lowWaterPages: number;
}

const BYTES_MAX_DEFAULT = 64 * 2 ** 20;
const LOW_WATER_DEFAULT = 512 * 1024;
const RESERVE_SHARE_DEFAULT = 0.05;
/** Locked memory that is left to others in this process, where the limit is not tiny. */
const MEMLOCK_MARGIN = 64 * 1024;
/** A pool takes at most this part of the machine's memory. */
const MACHINE_PART = 4;

/** How much locked memory this process may still have; Infinity where no limit binds. */
export const lockableBytes = (): number =>
  mayLockBeyondLimit() ? Number.POSITIVE_INFINITY : Math.max(0, resourceLimit("MEMLOCK").soft - lockedBytes());

/** `used/limit` of RLIMIT_MEMLOCK, for messages. */
export const memlockText = (): string =>
  `RLIMIT_MEMLOCK reached: ${String(lockedBytes())}/${String(resourceLimit("MEMLOCK").soft)} bytes`;

const inRange = (name: string, value: number, [low, high]: readonly [number, number], whole: boolean): number => {
  if ((whole ? Number.isSafeInteger(value) : Number.isFinite(value)) && value >= low && value <= high) return value;
  throw new XenolithError(
    "INVALID_ARGUMENT",
    `${name} is ${String(value)}, not from ${String(low)} to ${String(high)}`,
  );
};

/**
 * The sizes of a pool that is opened now.
 *
 * @throws XenolithError `INVALID_ARGUMENT` for options out of range.
 */
export const limitsOf = (options: PoolOptions): PoolLimits | SecretRefusal => {
  const configured = inRange("bytesMax", options.bytesMax ?? BYTES_MAX_DEFAULT, [PAGE_BYTES, POOL_BYTES_MAX], true);
  const reserveShare = inRange("reserveShare", options.reserveShare ?? RESERVE_SHARE_DEFAULT, [0, 0.5], false);
  const lowWater = inRange("lowWaterBytes", options.lowWaterBytes ?? LOW_WATER_DEFAULT, [0, CHUNK_BYTES], true);
  const lockable = lockableBytes();
  const candidates = [
    ["configuration", configured],
    ["memlock", lockable - Math.min(MEMLOCK_MARGIN, Math.floor(lockable / 4))],
    ["machine", machineMemory().totalBytes / MACHINE_PART],
  ] as const;
  const [ceilingFrom, least] = candidates.reduce((best, next) => (next[1] < best[1] ? next : best));
  const ceilingBytes = roundDown(least, PAGE_BYTES);
  if (ceilingBytes === 0) return new SecretRefusal("SECRET_MEMLOCK", `no page of secret memory: ${memlockText()}`);
  const chunkBytes = Math.min(CHUNK_BYTES, ceilingBytes);
  const pages = ceilingBytes / PAGE_BYTES;
  return {
    ceilingBytes,
    ceilingFrom,
    chunkBytes,
    chunkCountMax: Math.floor(ceilingBytes / chunkBytes),
    reservePages: pages > 1 ? Math.ceil(pages * reserveShare) : 0,
    lowWaterPages: Math.floor(Math.min(lowWater, chunkBytes / 4) / PAGE_BYTES),
  };
};

const roundDown = (value: number, unit: number): number => Math.floor(value / unit) * unit;
