import { EINVAL, ENOKEY, EPERM } from "./errno.ts";
import { type Authority, authorityOf } from "./authority.ts";
import { instantiateInto, rejectAndLink } from "./instantiation.ts";
import type { Key } from "./key.ts";
import { KEY_SPEC, lookup, LOOKUP_CREATE } from "./lookup.ts";
import { KEY_WRITE } from "./permission.ts";
import type { Process } from "./process.ts";
import { setAuthority } from "./process-operations.ts";
import type { KeyState } from "./state.ts";
import { PAYLOAD_BYTES_MAX } from "./text.ts";

/** Error numbers that a key cannot be rejected with: the kernel uses them to start system calls anew. */
const RESTART_ERRORS: readonly number[] = [512, 513, 514, 516];
const ERROR_MAX = 4095;
const SECONDS_MAX = 2 ** 32 - 1;

interface Assumed {
  readonly key: Key;
  readonly authority: Authority;
}

/** The authority of a process, if it is for this key: -EPERM otherwise, also when it has ended. */
const assumedFor = (process: Process, id: number): Assumed | number => {
  const key = process.authority;
  if (key === undefined) return -EPERM;
  const authority = authorityOf(key);
  return authority?.target.serial === id ? { key, authority } : -EPERM;
};

/** The keyring that a helper names for the key that it builds: 0 for none, its own by serial, the requester's by any special number. */
const destinationOf = (
  state: KeyState,
  process: Process,
  ring: number,
  authority: Authority,
): Key | undefined | number => {
  if (ring === 0) return undefined;
  if (ring > 0) return lookup(state, process, ring, KEY_WRITE, LOOKUP_CREATE);
  if (ring === KEY_SPEC.authority) return -EINVAL;
  return ring >= KEY_SPEC.requestor ? authority.destination : -ENOKEY;
};

/** keyctl_instantiate(3): 0; the authority ends with it. */
export const instantiate = (
  state: KeyState,
  process: Process,
  id: number,
  { payload, ring }: { readonly payload: Uint8Array | null; readonly ring: number },
): number => {
  if ((payload?.length ?? 0) > PAYLOAD_BYTES_MAX) return -EINVAL;
  const assumed = assumedFor(process, id);
  if (typeof assumed === "number") return assumed;
  const keyring = destinationOf(state, process, ring, assumed.authority);
  if (typeof keyring === "number") return keyring;
  const result = instantiateInto(state, assumed.authority.target, payload, { keyring, authority: assumed.key });
  if (result === 0) setAuthority(state, process, undefined);
  return result;
};

/** How a helper refuses a key. */
export interface Refusal {
  /** How long it stays refused. */
  readonly seconds: number;
  /** The error number, positive, that whoever asks for it gets. */
  readonly error: number;
  readonly ring: number;
}

/** keyctl_reject(3): 0; the authority ends with it. */
export const reject = (state: KeyState, process: Process, id: number, refusal: Refusal): number => {
  const { seconds, error, ring } = refusal;
  if (!Number.isInteger(error) || error <= 0 || error >= ERROR_MAX || RESTART_ERRORS.includes(error)) return -EINVAL;
  if (!Number.isInteger(seconds) || seconds < 0 || seconds > SECONDS_MAX) return -EINVAL;
  const assumed = assumedFor(process, id);
  if (typeof assumed === "number") return assumed;
  const keyring = destinationOf(state, process, ring, assumed.authority);
  if (typeof keyring === "number") return keyring;
  const { target } = assumed.authority;
  const result = rejectAndLink(state, target, { seconds, error, keyring, authority: assumed.key });
  if (result === 0) setAuthority(state, process, undefined);
  return result;
};
