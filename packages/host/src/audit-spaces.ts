/**
 * Compares what the hypervisor believes about address spaces with what the kernel says (/proc/self/maps).
 */
import type { Hypervisor } from "@xenolith/core";
import { mappingsIn } from "@xenolith/sys";
import { SPACE_BYTES } from "./machine.ts";

/** Findings about the domains in `slots`, one sentence each; empty when the kernel agrees. */
export const auditSpaces = ({ domains }: Hypervisor, slots: Iterable<number>): string[] => {
  const findings: string[] = [];
  for (const slot of slots) {
    const base = domains.spaceBase[slot]!;
    if (base === 0) continue;
    const found = mappingsIn(base, base + SPACE_BYTES).length;
    const counted = domains.vmaCount[slot]! + 1;
    if (found !== counted) {
      findings.push(`domain ${domains.domid[slot]}: ${counted} mappings are counted, the kernel has ${found}`);
    }
  }
  return findings;
};
