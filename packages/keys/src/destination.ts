import { EACCES } from "./errno.ts";
import type { Key } from "./key.ts";
import { link } from "./links.ts";
import { lookup, LOOKUP_CREATE } from "./lookup.ts";
import { KEY_LINK, KEY_WRITE, permits } from "./permission.ts";
import type { Process } from "./process.ts";
import type { KeyState } from "./state.ts";

/** The keyring that a caller names for what is found; undefined for 0, or why it cannot have anything linked there. */
export const lookupDestination = (state: KeyState, process: Process, ring: number): Key | undefined | number =>
  ring === 0 ? undefined : lookup(state, process, ring, KEY_WRITE, LOOKUP_CREATE);

/** A key that was found, and whether the caller possesses it. */
export interface Found {
  readonly key: Key;
  readonly possessed: boolean;
}

/** Links a key that was found where the caller wants it, if anywhere: 0, -EACCES without the right, or why it cannot be linked. */
export const linkFound = (
  state: KeyState,
  process: Process,
  { key, possessed }: Found,
  destination: Key | undefined,
): number => {
  if (destination === undefined) return 0;
  return permits(key, KEY_LINK, process, possessed) ? link(state, destination, key) : -EACCES;
};
