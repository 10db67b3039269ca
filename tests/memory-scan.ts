/** Looks for bytes in all memory of a process that there is, as /proc shows it; what nobody has touched is passed over. */
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

const PAGE_BYTES = 4096;
/** Pages looked at together: 8 bytes of the page map each. */
const WINDOW_PAGES = 1024;
/** Bit 63 of an entry: the page is there; bit 62: it is swapped out. In the upper word. */
const THERE = 0xc000_0000;

/** How often `marker` is in the memory of a process. A marker across two windows is not counted. */
export const countInMemory = (pid: number, marker: Buffer): number => {
  const memory = openSync(`/proc/${pid}/mem`, "r");
  const pageMap = openSync(`/proc/${pid}/pagemap`, "r");
  try {
    let count = 0;
    for (const line of readFileSync(`/proc/${pid}/maps`, "latin1").split("\n")) {
      const [, start, end] = /^([0-9a-f]+)-([0-9a-f]+) r.*(?<!\[v\w+\])$/.exec(line) ?? [];
      if (start === undefined || end === undefined) continue;
      for (const [from, to] of presentRuns(pageMap, Number.parseInt(start, 16), Number.parseInt(end, 16)))
        count += countInRun(memory, from, to, marker);
    }
    return count;
  } finally {
    closeSync(memory);
    closeSync(pageMap);
  }
};

/** Runs of pages that are there, in windows. */
const presentRuns = function* (pageMap: number, start: number, end: number): Generator<readonly [number, number]> {
  const entries = Buffer.alloc(WINDOW_PAGES * 8);
  for (let at = start; at < end; at += WINDOW_PAGES * PAGE_BYTES) {
    const pages = Math.min(WINDOW_PAGES, (end - at) / PAGE_BYTES);
    const read = readSync(pageMap, entries, 0, pages * 8, (at / PAGE_BYTES) * 8);
    let from = -1;
    for (let page = 0; page <= pages; page += 1) {
      const isThere = page < pages && page * 8 < read && (entries.readUInt32LE(page * 8 + 4) & THERE) !== 0;
      if (isThere && from < 0) from = at + page * PAGE_BYTES;
      else if (!isThere && from >= 0) {
        yield [from, at + page * PAGE_BYTES];
        from = -1;
      }
    }
  }
};

const countInRun = (memory: number, from: number, to: number, marker: Buffer): number => {
  const bytes = Buffer.alloc(to - from);
  try {
    return countIn(bytes.subarray(0, readSync(memory, bytes, 0, bytes.length, from)), marker);
  } catch {
    // EIO: memory that the kernel cannot read. It may begin in the middle of the run.
    if (to - from === PAGE_BYTES) return 0;
  }
  const half = from + Math.floor((to - from) / 2 / PAGE_BYTES) * PAGE_BYTES;
  return countInRun(memory, from, half, marker) + countInRun(memory, half, to, marker);
};

/** How often `marker` is in `bytes`. */
export const countIn = (bytes: Buffer, marker: Buffer): number => {
  let count = 0;
  for (let at = bytes.indexOf(marker); at >= 0; at = bytes.indexOf(marker, at + 1)) count += 1;
  return count;
};
