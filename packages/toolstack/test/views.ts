/**
 * Answers of the daemon's API, as tests of what is printed want them.
 */
import type { DomainFlags, DomainView } from "../src/daemon/api-types.ts";

const MIB = 2 ** 20;

const FLAGS: readonly (readonly [keyof DomainFlags, string])[] = [
  ["running", "r"],
  ["blocked", "b"],
  ["paused", "p"],
  ["shutdown", "s"],
  ["crashed", "c"],
  ["dying", "d"],
];

/** The flags that `letters` name. */
export const flags = (letters: string): DomainFlags => {
  const entries = FLAGS.map(([name, letter]) => [name, letters.includes(letter)] as const);
  return Object.fromEntries(entries) as unknown as DomainFlags;
};

/** A domain of 64 MiB that waits, but for what is said otherwise. */
export const view = (over: Partial<DomainView> = {}): DomainView => ({
  domid: 1,
  name: "notes",
  generation: 11,
  revision: "1",
  state: flags("b"),
  vcpus: 1,
  cpuSeconds: 1.25,
  memory: {
    currentBytes: 64 * MIB,
    maxBytes: 128 * MIB,
    peakBytes: 96 * MIB,
    claimedBytes: 0,
    deviceModelBytes: 0,
    deviceModelBytesMax: 0,
    isFrozen: false,
    balloon: {
      targetBytes: 64 * MIB,
      minBytes: 16 * MIB,
      maxBytes: 128 * MIB,
      weight: 256,
      squeeze: "off",
      driver: "guest",
      isPinned: false,
      state: "done",
    },
  },
  autostart: false,
  createdMs: 0,
  uptimeSeconds: 3661,
  restarts: 0,
  hypercalls: 1000,
  hypercallsDenied: 0,
  events: 0,
  vmas: 1,
  vmaBudget: 2048,
  definition: "notes",
  ...over,
});

/** The control domain. */
export const dom0 = (): DomainView => {
  const { balloon: _, ...memory } = view().memory;
  return view({
    domid: 0,
    name: "Domain-0",
    generation: 1,
    state: flags("r"),
    memory,
    cpuSeconds: 100,
    hypercalls: 5000,
  });
};
