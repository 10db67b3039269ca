/**
 * Sizes and durations as people write them on a command line.
 */
import { XenolithError } from "@xenolith/abi/error";

const SIZE_UNITS: Readonly<Record<string, number>> = {
  "": 2 ** 20,
  k: 2 ** 10,
  kib: 2 ** 10,
  m: 2 ** 20,
  mib: 2 ** 20,
  g: 2 ** 30,
  gib: 2 ** 30,
};

const DURATION_UNITS_MS: Readonly<Record<string, number>> = { "": 1000, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Largest guest: the whole 32-bit address space. */
export const SIZE_BYTES_MAX = 2 ** 32;
/** Longest duration: what a Node timer can hold. */
export const DURATION_MS_MAX = 2 ** 31 - 1;

const QUANTITY = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i;

const split = (text: string): { amount: number; unit: string } | undefined => {
  const match = QUANTITY.exec(text.trim());
  return match === null ? undefined : { amount: Number(match[1]), unit: match[2]!.toLowerCase() };
};

/**
 * Bytes of a size such as `64M`, `1.5GiB` or `512K`; K, M, G and KiB, MiB, GiB all count in powers of 1024, a bare
 * number is MiB, as in Xen's xl; rounded up to whole pages of 4 KiB. Fails with INVALID_SIZE unless the size is above 0
 * and at most `bytesMax`.
 */
export const parseSize = (text: string, bytesMax: number = SIZE_BYTES_MAX): number => {
  const parts = split(text);
  const unit = parts === undefined ? undefined : SIZE_UNITS[parts.unit];
  if (parts === undefined || unit === undefined) {
    throw new XenolithError("INVALID_SIZE", `size "${text}" is not a number with K, M, G, KiB, MiB or GiB behind it`);
  }
  const bytes = Math.ceil((parts.amount * unit) / 4096) * 4096;
  if (!(bytes > 0 && bytes <= bytesMax)) {
    const limit = bytesMax === SIZE_BYTES_MAX ? "4 GiB, a guest's address space" : formatSize(bytesMax);
    throw new XenolithError("INVALID_SIZE", `size "${text}" is not above 0 and at most ${limit}`);
  }
  return bytes;
};

/** Milliseconds of a duration such as `500ms`, `10s`, `2m`; a bare number is seconds. Fails with INVALID_ARGUMENT. */
export const parseDuration = (text: string): number => {
  const parts = split(text);
  const unit = parts === undefined ? undefined : DURATION_UNITS_MS[parts.unit];
  const ms = parts === undefined || unit === undefined ? Number.NaN : Math.ceil(parts.amount * unit);
  if (!(ms > 0 && ms <= DURATION_MS_MAX)) {
    throw new XenolithError(
      "INVALID_ARGUMENT",
      `duration "${text}" is not above 0 and at most 24 days (units: ms, s, m, h)`,
    );
  }
  return ms;
};

/** A size for people: `64.0 MiB`. */
export const formatSize = (bytes: number): string => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${amount} B` : `${amount.toFixed(1)} ${units[unit]}`;
};
