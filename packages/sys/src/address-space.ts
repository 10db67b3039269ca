/**
 * What this process has mapped, as the kernel tells it. For budgets and for an auditor; nothing here is hot.
 *
 * Source: proc_pid_maps(5), proc_pid_smaps(5), proc_sys_vm(5).
 */
import { readFileSync } from "node:fs";
import type { Protection } from "./mapping.ts";
import { PROT_NONE, PROT_READ, PROT_READ_WRITE } from "./mapping.ts";

/** One mapping (VMA) of this process. */
export interface Mapping {
  readonly startAddress: number;
  /** One past the last byte. */
  readonly endAddress: number;
  /** What code may do, apart from execution: see {@link Mapping.executable}. A write-only mapping counts as writable. */
  readonly protection: Protection;
  readonly executable: boolean;
  /** Whether it shows the file itself, rather than a private copy. */
  readonly shared: boolean;
  /** Where in the file it begins; 0 for anonymous memory. */
  readonly offsetBytes: number;
  /** `major:minor` of the file's device in hexadecimal; `00:00` for anonymous memory. */
  readonly device: string;
  /** 0 for anonymous memory. */
  readonly inode: number;
  /** The file's path, `/memfd:NAME (deleted)`, `[heap]` and the like, or empty. */
  readonly path: string;
}

const MAPS = "/proc/self/maps";
const NEWLINE = 0x0a;

/**
 * How many mappings the process has: what counts against `vm.max_map_count`.
 * Takes time in proportion to the answer: about 0.5 us per mapping.
 */
export const vmaCount = (): number => {
  const text = readFileSync(MAPS);
  let lineCount = 0;
  for (let at = text.indexOf(NEWLINE); at >= 0; at = text.indexOf(NEWLINE, at + 1)) lineCount++;
  // This page of the kernel's is listed, but is no mapping of the process.
  return text.includes("[vsyscall]") ? lineCount - 1 : lineCount;
};

/** The mappings that touch the addresses from `startAddress` up to, not including, `endAddress`; in order, not clipped. */
export const mappingsIn = (startAddress: number, endAddress: number): readonly Mapping[] => {
  const found: Mapping[] = [];
  for (const line of readFileSync(MAPS, "latin1").split("\n")) {
    const dash = line.indexOf("-");
    const start = Number.parseInt(line.slice(0, dash), 16);
    const end = Number.parseInt(line.slice(dash + 1, line.indexOf(" ")), 16);
    if (start < endAddress && end > startAddress) found.push(parseMapping(line));
  }
  return found;
};

/** How many mappings a process may have (`vm.max_map_count`). */
export const vmaCountMax = (): number => Number.parseInt(readFileSync("/proc/sys/vm/max_map_count", "latin1"), 10);

/** Memory of this process that is present, in bytes. */
export interface ProcessMemory {
  /** Address space, most of which costs nothing. */
  readonly virtualBytes: number;
  /** Pages present in its page tables. A frame that is mapped twice counts twice. */
  readonly residentBytes: number;
  /** The part of `residentBytes` that is shared files' pages: all machine memory. */
  readonly residentSharedBytes: number;
}

/** Fast (20 us): a few counters of the kernel, which may lag by some pages per thread. */
export const processMemory = (): ProcessMemory => {
  const [virtualPages = 0, residentPages = 0, sharedPages = 0] = readFileSync("/proc/self/statm", "latin1")
    .split(" ")
    .map(Number);
  const pageBytes = 4096;
  return {
    virtualBytes: virtualPages * pageBytes,
    residentBytes: residentPages * pageBytes,
    residentSharedBytes: sharedPages * pageBytes,
  };
};

/** Exact sums over all mappings, in bytes. */
export interface ExactProcessMemory {
  readonly residentBytes: number;
  /** Each page's size divided by how often it is mapped: two mappings of one frame count as one page. */
  readonly proportionalBytes: number;
  readonly privateBytes: number;
  readonly lockedBytes: number;
  readonly swappedBytes: number;
}

/** Slow: the kernel walks all page tables. */
export const exactProcessMemory = (): ExactProcessMemory => {
  const sizes = kibibyteTable(readFileSync("/proc/self/smaps_rollup", "latin1"));
  const sum = (...names: readonly string[]): number => names.reduce((total, name) => total + (sizes.get(name) ?? 0), 0);
  return {
    residentBytes: sum("Rss"),
    proportionalBytes: sum("Pss"),
    privateBytes: sum("Private_Clean", "Private_Dirty"),
    lockedBytes: sum("Locked"),
    swappedBytes: sum("Swap"),
  };
};

/** Parses lines such as `MemTotal:  1234 kB` into bytes by name. For this package. */
export const kibibyteTable = (text: string): ReadonlyMap<string, number> =>
  new Map(
    Array.from(text.matchAll(/^(\w+(?:\(\w+\))?):\s+(\d+) kB$/gm), ([, name = "", size = ""]): [string, number] => [
      name,
      Number(size) * 1024,
    ]),
  );

/** start-end perms offset device inode path */
const line = /^([0-9a-f]+)-([0-9a-f]+) ([r-])([w-])([x-])([sp]) ([0-9a-f]+) (\S+) (\d+)\s*(.*)$/;

const parseMapping = (text: string): Mapping => {
  const match = line.exec(text);
  if (match === null) throw new Error(`unexpected line in ${MAPS}: ${text}`);
  const [, start = "", end = "", r, w, x, sharing, offset = "", device = "", inode = "", path = ""] = match;
  const readable = r === "r" ? PROT_READ : PROT_NONE;
  return {
    startAddress: Number.parseInt(start, 16),
    endAddress: Number.parseInt(end, 16),
    protection: w === "w" ? PROT_READ_WRITE : readable,
    executable: x === "x",
    shared: sharing === "s",
    offsetBytes: Number.parseInt(offset, 16),
    device,
    inode: Number(inode),
    path,
  };
};
