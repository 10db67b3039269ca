import { XenolithError } from "@xenolith/abi";
import { EINVAL } from "./errno.ts";

/** What can be set while the service runs; the names of /proc/sys/kernel/keys beside each. */
export interface KeyLimits {
  /** Keys of an ordinary user: maxkeys. */
  readonly maxKeys: number;
  /** Bytes of an ordinary user: maxbytes. */
  readonly maxBytes: number;
  /** Keys of user 0: root_maxkeys. */
  readonly rootMaxKeys: number;
  /** Bytes of user 0: root_maxbytes. */
  readonly rootMaxBytes: number;
  /** Seconds between the expiry of a key and the end of its links: gc_delay. */
  readonly gcDelaySeconds: number;
  /** Seconds that a persistent keyring lives after its last use: persistent_keyring_expiry. */
  readonly persistentSeconds: number;
}

/** The limits of a Linux kernel that nobody has changed. */
export const defaultLimits: KeyLimits = {
  maxKeys: 200,
  maxBytes: 20_000,
  rootMaxKeys: 1_000_000,
  rootMaxBytes: 25_000_000,
  gcDelaySeconds: 300,
  persistentSeconds: 259_200,
};

const minimums: KeyLimits = {
  maxKeys: 1,
  maxBytes: 1,
  rootMaxKeys: 1,
  rootMaxBytes: 1,
  gcDelaySeconds: 0,
  persistentSeconds: 0,
};

const names: readonly (keyof KeyLimits)[] = [
  "maxKeys",
  "maxBytes",
  "rootMaxKeys",
  "rootMaxBytes",
  "gcDelaySeconds",
  "persistentSeconds",
];

/** The limits with one of them changed, or -EINVAL: quotas are 1 to 2^31 - 1, times 0 to 2^31 - 1. */
export const changeLimit = (limits: KeyLimits, name: keyof KeyLimits, value: number): KeyLimits | number =>
  Number.isInteger(value) && value >= minimums[name] && value <= 2 ** 31 - 1 ? { ...limits, [name]: value } : -EINVAL;

/** The defaults with these changes. Throws `INVALID_ARGUMENT`. */
export const limitsFrom = (changes: Partial<KeyLimits> = {}): KeyLimits => {
  let limits = defaultLimits;
  for (const name of names) {
    const value = changes[name];
    if (value === undefined) continue;
    const changed = changeLimit(limits, name, value);
    if (typeof changed === "number") {
      throw new XenolithError("INVALID_ARGUMENT", `${name} ${value} is not between ${minimums[name]} and 2147483647`);
    }
    limits = changed;
  }
  return limits;
};
