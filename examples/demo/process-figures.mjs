// SPDX-License-Identifier: Apache-2.0
/** What the kernel says about this process. */
import { readdirSync, readFileSync } from "node:fs";

const field = (file, name) => {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(readFileSync(file, "utf8"));
  if (found === null) throw new Error(`${file} has no line ${name}`);
  return Number(found[1]) * 1024;
};

/**
 * Resident memory of this process, in bytes. `shared` is machine memory: each page once, however many guests have it
 * mapped (Pss_Shmem); `mapped` counts it once for each mapping that touched it (RssShmem).
 */
export const residentMemory = () => ({
  total: field("/proc/self/smaps_rollup", "Pss"),
  shared: field("/proc/self/smaps_rollup", "Pss_Shmem"),
  mapped: field("/proc/self/status", "RssShmem"),
});

/** Memory that programs can still have, in bytes. */
export const availableMemory = () => field("/proc/meminfo", "MemAvailable");

/** Open files, and mappings of machine memory. */
export const handles = () => ({
  descriptors: readdirSync("/proc/self/fd").length,
  machineMappings: readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes("/memfd:")).length,
});
