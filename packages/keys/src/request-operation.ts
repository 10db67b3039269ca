import { linkFound, lookupDestination } from "./destination.ts";
import { EAGAIN, ENOKEY } from "./errno.ts";
import {
  beginConstruction,
  build,
  type Construction,
  createAuthority,
  negateFailed,
  type UpcallOptions,
} from "./construction.ts";
import { type Key, KEY_UNDER_CONSTRUCTION } from "./key.ts";
import { awaitKey, outcome, searchProcess } from "./lookup.ts";
import { WAIT } from "./pending.ts";
import type { Process } from "./process.ts";
import { wantedOf } from "./ring-operations.ts";
import { REQUESTING, type Wanted } from "./search.ts";
import type { KeyState } from "./state.ts";
import { byteString, bytesOf, type KeyText, typeName } from "./text.ts";

/** What request_key is asked for. */
export interface KeyRequest {
  readonly type: KeyText;
  readonly description: KeyText;
  /** What a helper is told; null: no helper is asked. */
  readonly callout: KeyText | null;
  /** The keyring that the key is linked in; 0 for none. */
  readonly destination: number;
}

/** request_key(2): the serial of the key; WAIT while it is being built. Source: request-key(7), security/keys/request-key. */
export const requestKey = (state: KeyState, process: Process, request: KeyRequest, upcalls: UpcallOptions): number => {
  const name = typeName(request.type);
  if (typeof name === "number") return name;
  const description = byteString(request.description);
  if (typeof description === "number") return description;
  const callout = request.callout === null ? null : bytesOf(request.callout);
  if (typeof callout === "number") return callout;
  const destination = lookupDestination(state, process, request.destination);
  if (typeof destination === "number") return destination;
  const type = state.types.get(name);
  if (type === undefined) return -ENOKEY;
  const wanted = wantedOf(type, description, REQUESTING);
  if (typeof wanted === "number") return wanted;
  const found = searchProcess(state, process, wanted);
  if (typeof found !== "number") return useFound(state, process, found, destination);
  if (found !== -EAGAIN) return found;
  if (callout === null) return -ENOKEY;
  return construct(state, process, { wanted, callout, destination }, upcalls);
};

const useFound = (state: KeyState, process: Process, key: Key, destination: Key | undefined): number => {
  const refusal = linkFound(state, process, { key, possessed: state.possessed }, destination);
  return refusal < 0 ? refusal : whenBuilt(state, process, key);
};

/** The serial of a key that was found, once it is built: or the error of a negative one, or why it cannot be used. */
const whenBuilt = (state: KeyState, process: Process, key: Key): number => {
  if ((key.flags & KEY_UNDER_CONSTRUCTION) !== 0) {
    return awaitKey(state, process, key, () => serialOf(state, key));
  }
  return serialOf(state, key);
};

const serialOf = (state: KeyState, key: Key): number => {
  const refusal = outcome(state, key);
  return refusal < 0 ? refusal : key.serial;
};

/** Has a key built that is not there: WAIT, or why that cannot be begun. */
export const construct = (
  state: KeyState,
  process: Process,
  construction: Construction,
  options: UpcallOptions & { readonly aux?: unknown },
): number => {
  const begun = beginConstruction(state, process, construction);
  if (typeof begun === "number") return begun;
  const { key, destination } = begun;
  construction.onKey?.(key);
  if (begun.isPresent) {
    const result = whenBuilt(state, process, key);
    state.unpin(key);
    return result;
  }
  const { callout } = construction;
  const authority = createAuthority(state, process, { target: key, destination, callout });
  if (typeof authority === "number") {
    negateFailed(state, key);
    state.unpin(key);
    return authority;
  }
  state.pin(authority);
  state.put(authority);
  const building = async (): Promise<number> => {
    const result = await build(state, process, authority, options);
    if ((key.flags & KEY_UNDER_CONSTRUCTION) !== 0) negateFailed(state, key);
    state.unpin(authority);
    return result;
  };
  // The authority holds it, and the wait will.
  state.unpin(key);
  state.awaited = { key, resume: undefined, building };
  return WAIT;
};

/** What code in the same process asks for. */
export interface TrustedRequest {
  readonly wanted: Wanted;
  readonly callout: Uint8Array | null;
  readonly aux: unknown;
  /** Told the key as soon as it is there, before it is built. */
  readonly onKey: (key: Key) => void;
}

/** As `requestKey`, for a wish that is put together already. The key is linked nowhere. */
export const requestWanted = (
  state: KeyState,
  process: Process,
  { wanted, callout, aux, onKey }: TrustedRequest,
  upcalls: UpcallOptions,
): number => {
  const found = searchProcess(state, process, wanted);
  if (typeof found !== "number") {
    onKey(found);
    return whenBuilt(state, process, found);
  }
  if (found !== -EAGAIN) return found;
  if (callout === null) return -ENOKEY;
  return construct(state, process, { wanted, callout, destination: null, onKey }, { ...upcalls, aux });
};
