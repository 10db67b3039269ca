/**
 * A token bucket whose state lives in two columns: `cost` units pass while the bucket holds them, and it fills at a
 * steady rate up to its size.
 */

/** Where one bucket is kept. The caller serialises its users. */
export interface Bucket {
  readonly tokens: Float64Array;
  readonly refilledNs: Float64Array;
  readonly row: number;
}

const NANOSECONDS = 1e9;

/** Takes `cost` tokens at time `nowNs`; false when there are not enough, and then nothing is taken. */
export const admitted = (
  bucket: Bucket,
  cost: number,
  nowNs: number,
  limit: { readonly burst: number; readonly perSecond: number },
): boolean => {
  const { tokens, refilledNs, row } = bucket;
  const elapsedNs = Math.max(0, nowNs - refilledNs[row]!);
  const filled = Math.min(limit.burst, tokens[row]! + (elapsedNs / NANOSECONDS) * limit.perSecond);
  refilledNs[row] = nowNs;
  tokens[row] = filled < cost ? filled : filled - cost;
  return filled >= cost;
};
