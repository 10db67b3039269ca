/**
 * The kernel's own map of memory: how much of it is in pages of which size. Each page that memfd_secret takes out of it
 * splits a large page, once and for good.
 *
 * Source: arch/x86/mm/pat/set_memory.c as documented in proc_meminfo(5) (DirectMap4k, DirectMap2M, DirectMap1G) and
 * proc_vmstat(5) (direct_map_level2_splits, direct_map_level3_splits).
 */
import { readFileSync } from "node:fs";
import { kibibyteTable } from "./address-space.ts";

/** What the kernel says of its map; what it does not say is left out. */
export interface DirectMap {
  /** Memory in pages of 4 KiB, 2 or 4 MiB, and 1 GiB. */
  readonly smallBytes: number;
  readonly largeBytes: number;
  readonly hugeBytes: number;
  /** Large and huge pages that were split since the machine started, for whatever reason. */
  readonly largeSplits?: number;
  readonly hugeSplits?: number;
}

/** Where to look, for tests. */
export interface DirectMapPlace {
  readonly meminfo?: string;
  readonly vmstat?: string;
}

/** The kernel's map now; undefined where it is not told (arm64). */
export const directMap = (place: DirectMapPlace = {}): DirectMap | undefined => {
  const sizes = kibibyteTable(place.meminfo ?? readFileSync("/proc/meminfo", "latin1"));
  const smallBytes = sizes.get("DirectMap4k");
  if (smallBytes === undefined) return undefined;
  const events = place.vmstat ?? readFileSync("/proc/vmstat", "latin1");
  const largeSplits = eventsIn(events, "direct_map_level2_splits");
  const hugeSplits = eventsIn(events, "direct_map_level3_splits");
  return {
    smallBytes,
    largeBytes: sizes.get("DirectMap2M") ?? sizes.get("DirectMap4M") ?? 0,
    hugeBytes: sizes.get("DirectMap1G") ?? 0,
    ...(largeSplits === undefined ? {} : { largeSplits }),
    ...(hugeSplits === undefined ? {} : { hugeSplits }),
  };
};

const eventsIn = (text: string, name: string): number | undefined => {
  const count = new RegExp(`^${name} (\\d+)$`, "m").exec(text)?.[1];
  return count === undefined ? undefined : Number(count);
};
