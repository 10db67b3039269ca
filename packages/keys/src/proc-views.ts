import { hex8 } from "./attribute-operations.ts";
import {
  type Key,
  KEY_DEAD,
  KEY_IN_QUOTA,
  KEY_INVALIDATED,
  KEY_REVOKED,
  KEY_UNDER_CONSTRUCTION,
  NEVER,
  UNINSTANTIATED,
} from "./key.ts";
import { KEY_VIEW, NO_GROUP, permits } from "./permission.ts";
import type { Process } from "./process.ts";
import { reaches } from "./search.ts";
import type { KeyState } from "./state.ts";

const OVERFLOW_GROUP = 65_534;
const TYPE_WIDTH = 9;

/** Units of what is left of a key's time, the largest last. */
const UNITS: readonly (readonly [seconds: number, letter: string])[] = [
  [604_800, "w"],
  [86_400, "d"],
  [3600, "h"],
  [60, "m"],
];

const timeLeft = (state: KeyState, key: Key): string => {
  if (key.expiry === NEVER) return "perm";
  const seconds = key.expiry - state.clock.seconds();
  if (seconds <= 0) return "expd";
  const [size, letter] = UNITS.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(seconds / size)}${letter}`;
};

const flagsOf = (key: Key): string => {
  const when = (flag: number, letter: string): string => ((key.flags & flag) === 0 ? "-" : letter);
  return [
    key.state === UNINSTANTIATED ? "-" : "I",
    when(KEY_REVOKED, "R"),
    when(KEY_DEAD, "D"),
    when(KEY_IN_QUOTA, "Q"),
    when(KEY_UNDER_CONSTRUCTION, "U"),
    key.state < 0 ? "N" : "-",
    when(KEY_INVALIDATED, "i"),
  ].join("");
};

const columns = (...values: readonly (readonly [number | string, number])[]): string =>
  values.map(([value, width]) => String(value).padStart(width)).join(" ");

/** The line of one key, as in /proc/keys, without its end. */
const keyLine = (state: KeyState, key: Key): string => {
  const gid = key.gid === NO_GROUP ? OVERFLOW_GROUP : key.gid;
  const type = key.type.name.slice(0, TYPE_WIDTH).padEnd(TYPE_WIDTH);
  const text = key.type.describe?.(key) ?? key.description;
  const left = columns([key.usage, 5], [timeLeft(state, key), 4]);
  return `${hex8(key.serial)} ${flagsOf(key)} ${left} ${hex8(key.permissions)} ${columns([key.uid, 5], [gid, 5])} ${type} ${text}`;
};

/**
 * The keys that a process may view, in the format of /proc/keys: a byte string. What it only possesses as somebody's helper does not count.
 * Source: keyrings(7).
 */
export const procKeys = (state: KeyState, process: Process): string =>
  [...state.keys.values()]
    .toSorted((left, right) => left.serial - right.serial)
    .filter((key) => permits(key, KEY_VIEW, process, reaches(state, key, process)))
    .map((key) => `${keyLine(state, key)}\n`)
    .join("");

/** What each user has, in the format of /proc/key-users. Source: keyrings(7). */
export const procKeyUsers = (state: KeyState): string =>
  [...state.users.values()]
    .toSorted((left, right) => left.uid - right.uid)
    .map((user) => {
      const isRoot = user.uid === 0;
      const { limits } = state;
      const keysMax = isRoot ? limits.rootMaxKeys : limits.maxKeys;
      const bytesMax = isRoot ? limits.rootMaxBytes : limits.maxBytes;
      const references = user.keyCount + (isRoot ? 1 : 0);
      const counts = `${user.keyCount}/${user.instantiatedCount}`;
      const used = `${user.quotaKeys}/${keysMax} ${user.quotaBytes}/${bytesMax}`;
      return `${columns([user.uid, 5])}: ${columns([references, 5])} ${counts} ${used}\n`;
    })
    .join("");
