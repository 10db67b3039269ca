/**
 * How hard the host is pressed for memory, in three levels with hysteresis, and how much of its memory guests may have
 * at each. A level is left only when the readings are well below what brought it about.
 */

/** What the host reads; see memoryPressure and controlGroupMemory of @xenolith/sys. */
export interface HostReadings {
  /** PSI: percent of the last 10 s in which some task, or all of them, waited for memory. */
  readonly someAverage10s: number;
  readonly fullAverage10s: number;
  /** What the machine has left, and what its control group may still take, in bytes. */
  readonly availableBytes: number;
  readonly groupLeftBytes: number;
  /** The group ran into its limit since the last reading. */
  readonly groupLimitHit: boolean;
}

/** From the best to the worst. */
export const PRESSURE_LEVELS = ["calm", "pressed", "critical"] as const;
/** One of them. */
export type PressureLevel = (typeof PRESSURE_LEVELS)[number];

/** Readings at which a level begins; it ends at half of the PSI and twice the bytes. */
const thresholds = {
  pressed: { some: 10, full: 2, leftBytes: 256 * 2 ** 20 },
  critical: { some: 40, full: 10, leftBytes: 64 * 2 ** 20 },
} as const;
const HYSTERESIS = 2;

/** Share of the machine's frames that guests may have together. */
const guestShare: Readonly<Record<PressureLevel, number>> = { calm: 1, pressed: 0.9, critical: 0.75 };

const isAtLeast = (readings: HostReadings, level: "pressed" | "critical", scale: number): boolean => {
  const { some, full, leftBytes } = thresholds[level];
  const { someAverage10s, fullAverage10s, availableBytes, groupLeftBytes } = readings;
  const left = Math.min(availableBytes, groupLeftBytes);
  return someAverage10s * scale >= some || fullAverage10s * scale >= full || left < leftBytes * scale;
};

/** The level after `readings`, coming from `before`. */
export const pressureLevel = (before: PressureLevel, readings: HostReadings): PressureLevel => {
  const scaleOf = (level: PressureLevel): number =>
    PRESSURE_LEVELS.indexOf(before) >= PRESSURE_LEVELS.indexOf(level) ? HYSTERESIS : 1;
  if (isAtLeast(readings, "critical", scaleOf("critical"))) return "critical";
  if (readings.groupLimitHit || isAtLeast(readings, "pressed", scaleOf("pressed"))) return "pressed";
  return "calm";
};

/** Pages that all guests together may have: without what is claimed for domains that are being built. */
export const guestBudget = (machinePages: number, claimedPages: number, level: PressureLevel): number =>
  Math.max(0, Math.min(Math.floor(machinePages * guestShare[level]), machinePages - claimedPages));
