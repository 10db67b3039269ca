/**
 * Keeps all threads of this process on one processor for a while. Two threads that wake each other take about 10 us a
 * turn there; on two processors it is 1 to 50 us, as the kernel places them and as deep as the other one sleeps. With
 * util-linux's taskset; on a system without it the work runs anywhere.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const allowedProcessors = (): string =>
  /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "0";

const PIN_ATTEMPTS = 5;

/** taskset gives up at a thread that ends meanwhile, and leaves those after it where they were. */
const pin = (processors: string): boolean => {
  for (let attempt = 0; attempt < PIN_ATTEMPTS; attempt += 1) {
    if (spawnSync("taskset", ["-a", "-p", "-c", processors, String(process.pid)]).status === 0) return true;
  }
  return false;
};

/** Does `work` with all present threads on the first processor that the process may use. */
export const onOneProcessor = async <T>(work: () => Promise<T>): Promise<T> => {
  const allowed = allowedProcessors();
  const isPinned = pin(/^\d+/.exec(allowed)![0]);
  try {
    return await work();
  } finally {
    // Two players that spin on one processor take a time slice a turn: hours.
    assert(pin(allowed) || !isPinned, "the threads stay on one processor");
  }
};
