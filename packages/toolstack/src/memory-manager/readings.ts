/**
 * What the host says about its memory: pressure stall information, the machine's memory, and the limits and events of the
 * control group that this process is in. Where the kernel does not tell, there is no pressure.
 */
import { freemem } from "node:os";
import { type ControlGroupMemory, controlGroupMemory, memoryPressure } from "@xenolith/sys";
import type { HostReadings } from "./pressure.ts";

/** A source of readings; it remembers the group's events, so that each is told once. */
export const hostReadings = (readGroup: () => ControlGroupMemory | undefined = controlGroupMemory) => {
  let hitsBefore: number | undefined;
  return (): HostReadings => {
    const pressure = memoryPressure();
    const group = readGroup();
    const hits = group === undefined ? 0 : group.events.high + group.events.max + group.events.oomKill;
    const groupLimitHit = hitsBefore !== undefined && hits > hitsBefore;
    hitsBefore = hits;
    return {
      someAverage10s: pressure?.some.average10s ?? 0,
      fullAverage10s: pressure?.full.average10s ?? 0,
      availableBytes: freemem(),
      groupLeftBytes: group === undefined ? Number.POSITIVE_INFINITY : leftOf(group),
      groupLimitHit,
    };
  };
};

/** What the group may take until the kernel slows it down or kills. */
const leftOf = ({ currentBytes, maxBytes, highBytes }: ControlGroupMemory): number =>
  Math.max(0, Math.min(maxBytes, highBytes) - currentBytes);
