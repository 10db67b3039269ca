/** The other thread of the share bench. */

/** Adds up the first byte of every page of what was sent. */
export const sum = (bytes: Uint8Array): number => {
  let total = 0;
  for (let at = 0; at < bytes.length; at += 4096) total += bytes[at]!;
  return total;
};
