/** What the memory manager shows. */
import type { Host } from "@xenolith/host";
import type { BalloonKind, ManagedDomain, ReportedState } from "./managed-domain.ts";
import { FRAME_BYTES } from "./memory-config.ts";
import type { HostReadings, PressureLevel } from "./pressure.ts";

/** The host's side. */
export interface HostFigures {
  readonly memoryBytes: number;
  readonly freeBytes: number;
  /** Of what is free: set aside for domains. */
  readonly claimedBytes: number;
  /** What managed domains may have together. */
  readonly budgetBytes: number;
  readonly level: PressureLevel;
  readonly readings: HostReadings;
}

/** One managed domain. */
export interface GuestFigures {
  readonly domid: number;
  readonly name: string;
  /** What it owns, and what its balloon was told; both with what device models added. */
  readonly currentBytes: number;
  readonly targetBytes: number;
  /** What it is left when the host is short, what it has when there is enough, and up to where that can be set. */
  readonly minBytes: number;
  readonly ceilingBytes: number;
  readonly maxBytes: number;
  readonly weight: number;
  readonly squeeze: "off" | "zero-pages";
  readonly balloon: BalloonKind;
  /** Its size was set by hand. */
  readonly isPinned: boolean;
  /** What its balloon says; a guest can say anything. */
  readonly state: ReportedState;
}

/** All of it. */
export interface ManagerFigures {
  readonly host: HostFigures;
  readonly guests: readonly GuestFigures[];
}

/** Reads them. */
export const figuresOf = (
  host: Host,
  domains: readonly ManagedDomain[],
  own: Pick<HostFigures, "budgetBytes" | "level" | "readings">,
): ManagerFigures => {
  const { memoryBytes, memoryFreeBytes: freeBytes, memoryClaimedBytes: claimedBytes } = host.info();
  return { host: { memoryBytes, freeBytes, claimedBytes, ...own }, guests: domains.map(guestFigures) };
};

/** Reads those of one domain. */
export const guestFigures = (managed: ManagedDomain): GuestFigures => {
  const { domain, config, balloon, targetPages, ceilingBytes, leastBytes, reported } = managed;
  const { memoryBytes, memoryBytesMax, deviceModelBytes } = domain.memory.figures();
  return {
    domid: domain.domid,
    name: domain.name,
    currentBytes: memoryBytes,
    targetBytes: balloon === "none" ? memoryBytesMax : targetPages * FRAME_BYTES + deviceModelBytes,
    minBytes: leastBytes,
    ceilingBytes,
    maxBytes: config.memoryBytesMax,
    weight: config.weight,
    squeeze: config.squeeze,
    balloon,
    isPinned: managed.pinnedBytes !== undefined,
    state: reported,
  };
};
