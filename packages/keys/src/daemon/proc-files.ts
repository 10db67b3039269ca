import { readFileSync } from "node:fs";

/** What the kernel says of a process at one moment. Source: proc(5). */
export interface ProcessFacts {
  readonly pid: number;
  /** Clock ticks after boot; with the pid it names the process for good. */
  readonly start: string;
  readonly parent: number;
  /** Session leader in the sense of setsid(2): itself or an ancestor, unless it is gone. */
  readonly leader: number;
  readonly threads: number;
  /** A zombie is as good as gone. */
  readonly isAlive: boolean;
  readonly isKernelThread: boolean;
  /** Changes when it executes another program: addresses that the kernel chooses anew each time; zeros if it may not be known. */
  readonly image: string;
}

/** User, groups and capabilities of a process. */
export interface ProcessRights {
  /** Real, effective, saved and file system user. */
  readonly users: readonly [number, number, number, number];
  readonly groups: readonly [number, number, number, number];
  readonly supplementary: readonly number[];
  /** Effective capabilities, bit by bit. */
  readonly capabilities: bigint;
}

/** Where facts about processes come from; tests have their own. */
export interface ProcessTable {
  /** Undefined for a process that does not exist or cannot be seen. */
  facts(pid: number): ProcessFacts | undefined;
  rights(pid: number): ProcessRights | undefined;
}

/** PF_KTHREAD in the flags of a process. */
const KERNEL_THREAD = 0x0020_0000;

/** Fields of /proc/pid/stat, counted from 0 behind the command, which is the only one that can hold blanks. */
const STATE = 0;
const PARENT = 1;
const LEADER = 3;
const FLAGS = 6;
const THREADS = 17;
const START = 19;
const IMAGE = [23, 24, 25, 45, 46];

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined; // It ended, or the file system hides it.
  }
};

/** The facts in the text of /proc/pid/stat. */
export const parseStat = (pid: number, text: string): ProcessFacts | undefined => {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const start = fields[START];
  if (start === undefined) return undefined;
  const state = fields[STATE]!;
  return {
    pid,
    start,
    parent: Number(fields[PARENT]),
    leader: Number(fields[LEADER]),
    threads: Number(fields[THREADS]),
    isAlive: state !== "Z" && state !== "X",
    isKernelThread: (Number(fields[FLAGS]) & KERNEL_THREAD) !== 0,
    image: IMAGE.map((at) => fields[at]).join(":"),
  };
};

const numbersOf = (status: string, name: string): number[] =>
  (new RegExp(`^${name}:(.*)$`, "m").exec(status)?.[1] ?? "")
    .split(/\s+/)
    .filter((word) => word !== "")
    .map(Number);

const fourOf = (numbers: readonly number[]): readonly [number, number, number, number] | undefined => {
  const [real, effective, saved, file] = numbers;
  return real === undefined || effective === undefined || saved === undefined || file === undefined
    ? undefined
    : [real, effective, saved, file];
};

/** The rights in the text of /proc/pid/status. */
export const parseStatus = (text: string): ProcessRights | undefined => {
  const users = fourOf(numbersOf(text, "Uid"));
  const groups = fourOf(numbersOf(text, "Gid"));
  if (users === undefined || groups === undefined) return undefined;
  const capabilities = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(text)?.[1] ?? "0"}`);
  return { users, groups, supplementary: numbersOf(text, "Groups"), capabilities };
};

/** The processes of this machine, or of the container. */
export const procTable: ProcessTable = {
  facts: (pid) => {
    const text = read(`/proc/${pid}/stat`);
    return text === undefined ? undefined : parseStat(pid, text);
  },
  rights: (pid) => {
    const text = read(`/proc/${pid}/status`);
    return text === undefined ? undefined : parseStatus(text);
  },
};
