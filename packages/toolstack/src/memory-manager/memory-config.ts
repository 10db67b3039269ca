/** What an administrator says about the memory of a domain, checked against the machine. */
import { XenolithError } from "@xenolith/abi";

/** Bytes of one frame: every size is a multiple of it. */
export const FRAME_BYTES = 4096;
/** Weights go from 1 to this. */
export const WEIGHT_MAX = 65_535;
const WEIGHT_DEFAULT = 256;

/** Between which sizes a domain is kept. Sizes are whole frames of 4 KiB. */
export interface MemoryConfig {
  /** What it has when there is enough. */
  readonly memoryBytes: number;
  /** Up to which its target can be set by hand; `memoryBytes` by default. */
  readonly memoryBytesMax?: number;
  /** What it is left when the host is short, and what nobody else can take; `memoryBytes` by default. */
  readonly memoryBytesMin?: number;
  /** Its part of what is between, in proportion to the weights of others: 1 to 65,535, 256 by default. */
  readonly weight?: number;
  /** What is done to a guest that has no balloon when the host is pressed; "off" by default. */
  readonly squeeze?: "off" | "zero-pages";
}

/** A configuration with nothing left out. */
export type CheckedMemory = Required<MemoryConfig>;

/** Fills in what is not said and refuses what cannot be. Throws XenolithError `INVALID_SIZE`, `INVALID_ARGUMENT`. */
export const checkMemory = (config: MemoryConfig, machineBytes: number): CheckedMemory => {
  const { memoryBytes, weight = WEIGHT_DEFAULT, squeeze = "off" } = config;
  const { memoryBytesMax = memoryBytes, memoryBytesMin = memoryBytes } = config;
  checkSize("memory", memoryBytes, { least: FRAME_BYTES, most: machineBytes, mostIs: "the machine has" });
  checkSize("maxmem", memoryBytesMax, { least: memoryBytes, most: machineBytes, mostIs: "the machine has" });
  checkSize("memory_min", memoryBytesMin, { least: FRAME_BYTES, most: memoryBytes, mostIs: "memory is" });
  if (!Number.isInteger(weight) || weight < 1 || weight > WEIGHT_MAX)
    throw new XenolithError("INVALID_ARGUMENT", `weight is ${weight}, it must be from 1 to ${WEIGHT_MAX}`);
  return { memoryBytes, memoryBytesMax, memoryBytesMin, weight, squeeze };
};

/** Bounds of a size, in bytes. */
export interface SizeBounds {
  readonly least: number;
  readonly most: number;
  /** What the upper bound is, for the message. */
  readonly mostIs: string;
}

/** Refuses what is no whole number of frames between the bounds. Throws XenolithError `INVALID_SIZE`. */
export const checkSize = (what: string, bytes: number, { least, most, mostIs }: SizeBounds): void => {
  if (!Number.isSafeInteger(bytes) || bytes % FRAME_BYTES !== 0)
    throw new XenolithError("INVALID_SIZE", `${what} is ${bytes} bytes, it must be whole frames of ${FRAME_BYTES}`);
  if (bytes < least) throw new XenolithError("INVALID_SIZE", `${what} is ${bytes} bytes, it must be at least ${least}`);
  if (bytes > most) throw new XenolithError("INVALID_SIZE", `${what} is ${bytes} bytes, ${mostIs} ${most}`);
};
