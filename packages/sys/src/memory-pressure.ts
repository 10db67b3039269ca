/**
 * How short of memory the machine and this process's control group are.
 *
 * Source: Documentation/accounting/psi.rst, Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
 */
import { readFileSync } from "node:fs";
import path from "node:path";

/** Shares of the time in percent, as the kernel averages them, and the whole stall so far. */
export interface PressureLine {
  readonly average10s: number;
  readonly average60s: number;
  readonly average300s: number;
  readonly totalUs: number;
}

/** Time in which some tasks, or all of them at once, waited for memory. */
export interface MemoryPressure {
  readonly some: PressureLine;
  readonly full: PressureLine;
}

/** Limits and events of a control group; the tightest of it and those above it. Infinity: no limit. */
export interface ControlGroupMemory {
  readonly version: 1 | 2;
  readonly currentBytes: number;
  /** The part of it that the kernel takes back before anything is refused: pages of files that nobody used lately. */
  readonly reclaimableBytes: number;
  readonly maxBytes: number;
  /** Above it the kernel slows allocation down (version 2). */
  readonly highBytes: number;
  /** How often it was above `high`, ran into `max`, and lost a process to that. */
  readonly events: { readonly high: number; readonly max: number; readonly oomKill: number };
}

/** Limits of version 1 that stand for none: the largest multiple of a page in 63 bits. */
const V1_UNLIMITED = 2 ** 62;

const readIfPresent = (file: string): string | undefined => {
  try {
    return readFileSync(file, "latin1");
  } catch {
    return undefined;
  }
};

/** Parses a PSI file; undefined when it is none. */
export const parsePressure = (text: string): MemoryPressure | undefined => {
  const some = pressureLine(text, "some");
  const full = pressureLine(text, "full");
  return some === undefined || full === undefined ? undefined : { some, full };
};

const pressureLine = (text: string, name: string): PressureLine | undefined => {
  const pattern = new RegExp(`^${name} avg10=([\\d.]+) avg60=([\\d.]+) avg300=([\\d.]+) total=(\\d+)$`, "m");
  const found = pattern.exec(text)?.slice(1).map(Number);
  if (found === undefined) return undefined;
  return { average10s: found[0]!, average60s: found[1]!, average300s: found[2]!, totalUs: found[3]! };
};

/** The machine's memory pressure; undefined where the kernel does not measure it. `file`: another one, of a group. */
export const memoryPressure = (file = "/proc/pressure/memory"): MemoryPressure | undefined =>
  parsePressure(readIfPresent(file) ?? "");

/** Where to look, for tests. */
export interface ControlGroupPlace {
  /** What /proc/self/cgroup says. */
  readonly membership?: string;
  /** Where the hierarchies are mounted. */
  readonly root?: string;
}

/** Memory of the process's control group, version 2 first, then 1; undefined: it is in none that limits memory. */
export const controlGroupMemory = ({ membership, root = "/sys/fs/cgroup" }: ControlGroupPlace = {}):
  | ControlGroupMemory
  | undefined => {
  const lines = (membership ?? readIfPresent("/proc/self/cgroup") ?? "").split("\n").map((line) => line.split(":"));
  const unified = lines
    .find(([id, controllers]) => id === "0" && controllers === "")
    ?.slice(2)
    .join(":");
  const memory = lines
    .find(([, controllers]) => controllers?.split(",").includes("memory"))
    ?.slice(2)
    .join(":");
  const second = unified === undefined ? undefined : readGroups(root, unified, readVersion2);
  return second ?? (memory === undefined ? undefined : readGroups(path.join(root, "memory"), memory, readVersion1));
};

/** The group and those above it, as far as they can be seen: inside a container that may be the mount's root only. */
const readGroups = (
  mount: string,
  group: string,
  readOne: (directory: string) => ControlGroupMemory | undefined,
): ControlGroupMemory | undefined => {
  let tightest: ControlGroupMemory | undefined;
  for (let at = path.join("/", group); ; at = path.dirname(at)) {
    const found = readOne(path.join(mount, at));
    if (found !== undefined && tightest === undefined) tightest = found;
    else if (found !== undefined && tightest !== undefined) {
      const { maxBytes, highBytes } = tightest;
      // What counts against the tighter limit is what that group uses.
      tightest = found.maxBytes < maxBytes ? { ...found, highBytes: Math.min(found.highBytes, highBytes) } : tightest;
    }
    if (at === "/") return tightest;
  }
};

const numberIn = (text: string | undefined): number | undefined => {
  const trimmed = text?.trim();
  if (trimmed === "max") return Number.POSITIVE_INFINITY;
  return trimmed !== undefined && /^\d+$/.test(trimmed) ? Number(trimmed) : undefined;
};

const countOf = (text: string | undefined, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(text ?? "")?.[1] ?? 0);

/** What a group's file cache has that is not in use; the counter includes groups below it. */
const reclaimableIn = (stat: string | undefined, name: string, currentBytes: number): number =>
  Math.min(countOf(stat, name), currentBytes);

const readVersion2 = (directory: string): ControlGroupMemory | undefined => {
  const file = (name: string): string | undefined => readIfPresent(path.join(directory, name));
  const currentBytes = numberIn(file("memory.current"));
  if (currentBytes === undefined) return undefined;
  const events = file("memory.events");
  return {
    version: 2,
    currentBytes,
    reclaimableBytes: reclaimableIn(file("memory.stat"), "inactive_file", currentBytes),
    maxBytes: numberIn(file("memory.max")) ?? Number.POSITIVE_INFINITY,
    highBytes: numberIn(file("memory.high")) ?? Number.POSITIVE_INFINITY,
    events: { high: countOf(events, "high"), max: countOf(events, "max"), oomKill: countOf(events, "oom_kill") },
  };
};

const readVersion1 = (directory: string): ControlGroupMemory | undefined => {
  const file = (name: string): string | undefined => readIfPresent(path.join(directory, name));
  const currentBytes = numberIn(file("memory.usage_in_bytes"));
  if (currentBytes === undefined) return undefined;
  const limit = numberIn(file("memory.limit_in_bytes")) ?? V1_UNLIMITED;
  return {
    version: 1,
    currentBytes,
    reclaimableBytes: reclaimableIn(file("memory.stat"), "total_inactive_file", currentBytes),
    maxBytes: limit >= V1_UNLIMITED ? Number.POSITIVE_INFINITY : limit,
    highBytes: Number.POSITIVE_INFINITY,
    events: {
      high: 0,
      max: numberIn(file("memory.failcnt")) ?? 0,
      oomKill: countOf(file("memory.oom_control"), "oom_kill"),
    },
  };
};
