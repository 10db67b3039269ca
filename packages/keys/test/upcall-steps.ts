/** What a helper does, as data: the same steps are taken by a helper of the kernel's and by one of the library's. */
import type { Random } from "./random.ts";

/** Keys by what they are, as each side has other numbers for them. */
export interface Cast {
  /** The key to be built, and the authority to do so. */
  readonly target: number;
  readonly authority: number;
  /** The requester's session keyring, a key in it, a keyring, one that takes nothing, and one that may not be written to. */
  readonly session: number;
  readonly key: number;
  readonly ring: number;
  readonly closed: number;
  readonly unwritable: number;
}

/** A key: by its part, or by a number that is the same on both sides. */
export type Part = keyof Cast | number;

/** One operation of a helper. */
export type HelperStep =
  | { readonly does: "assume"; readonly id: Part }
  | { readonly does: "instantiate"; readonly id: Part; readonly sizeBytes: number; readonly ring: Part }
  | {
      readonly does: "reject";
      readonly id: Part;
      readonly seconds: number;
      readonly error: number;
      readonly ring: Part;
    }
  | { readonly does: "timeout"; readonly id: Part; readonly seconds: number }
  | { readonly does: "permissions"; readonly id: Part; readonly mask: number }
  | { readonly does: "describe" | "read" | "security" | "id"; readonly id: Part }
  | { readonly does: "find"; readonly description: string }
  | { readonly does: "search"; readonly ring: Part; readonly description: string }
  | { readonly does: "add"; readonly description: string; readonly ring: Part }
  | { readonly does: "link" | "unlink"; readonly id: Part; readonly ring: Part }
  | { readonly does: "revoke" | "invalidate"; readonly id: Part };

/** One side's way of doing each. */
export type Perform = (
  step: HelperStep,
  numberOf: (part: Part) => number,
) => Promise<number | string> | number | string;

/** What a step came to: a number, a text, or the part that a serial number stands for. */
export type Outcome = number | string;

const SETTLES: readonly HelperStep["does"][] = ["instantiate", "reject"];
/** Operations that wait for a key under construction: of its own helper, for ever. */
const WAITS: readonly HelperStep["does"][] = ["read", "id", "link", "revoke", "invalidate"];
const YIELDS_SERIAL: readonly HelperStep["does"][] = ["assume", "id", "find", "search", "add"];
/** What is left of an authority that has ended answers now so, now so, until the kernel has collected it. */
const [ENOKEY, EKEYREVOKED] = [-126, -128];

/** The outcome of a step that was not taken because it would not end. */
export const LEFT_OUT = "would wait";

/** Takes the steps one after the other. One that would wait for the key that is not built is left out. */
export const takeSteps = async (steps: readonly HelperStep[], cast: Cast, perform: Perform): Promise<Outcome[]> => {
  const numberOf = (part: Part): number => (typeof part === "number" ? part : cast[part]);
  const parts = new Map<Outcome, string>(Object.entries(cast).map(([part, serial]) => [serial, part]));
  const outcomes: Outcome[] = [];
  let isSettled = false;
  for (const step of steps) {
    if (!isSettled && "id" in step && step.id === "target" && WAITS.includes(step.does)) {
      outcomes.push(LEFT_OUT);
      continue;
    }
    const result = await perform(step, numberOf);
    if (SETTLES.includes(step.does) && result === 0) isSettled = true;
    const isSerial = YIELDS_SERIAL.includes(step.does) && typeof result === "number" && result > 0;
    const isLate = (step.does === "assume" || step.does === "security") && result === EKEYREVOKED;
    outcomes.push(isSerial ? (parts.get(result) ?? "another key") : isLate ? ENOKEY : result);
  }
  return outcomes;
};

const RINGS: readonly Part[] = [
  ...([0, 0, 0, 0, "session", "ring", -3, -8] as const),
  ...(["closed", "unwritable", "key", -1, -6, -7, -9, 12] as const),
];
const ERRORS = [129, 129, 126, 127, 128, 13, 11, 0, 512, 4095, 5] as const;
const KEYS: readonly Part[] = ["target", "target", "target", "target", "authority", "key", "session", -7, -8, -3, 0];

const MAKERS: readonly (readonly [weight: number, make: (random: Random) => HelperStep])[] = [
  [3, (random) => ({ does: "assume", id: random.pick(["target", "target", "target", "key", 0, -1, 12]) })],
  [
    5,
    (random) => ({
      does: "instantiate",
      id: random.pick(["target", "target", "target", "target", "key"]),
      sizeBytes: random.pick([1, 7, 7, 7, 200, 0, 32_767, 32_768]),
      ring: random.pick(RINGS),
    }),
  ],
  [
    3,
    (random) => ({
      does: "reject",
      id: random.pick(["target", "target", "target", "target", "key"]),
      seconds: random.pick([30, 5400, 0]),
      error: random.pick(ERRORS),
      ring: random.pick(RINGS),
    }),
  ],
  [1, (random) => ({ does: "timeout", id: random.pick(KEYS), seconds: random.pick([0, 5400, 700_000]) })],
  [1, (random) => ({ does: "permissions", id: random.pick(KEYS), mask: random.pick([0x3f3f0000, 0x3f010000, 0]) })],
  [2, (random) => ({ does: "describe", id: random.pick(["target", "target", "key", "session"]) })],
  [2, (random) => ({ does: "read", id: random.pick(["target", "key", -7, -7]) })],
  [1, (random) => ({ does: "security", id: random.pick(["target", "key"]) })],
  [1, (random) => ({ does: "id", id: random.pick(KEYS) })],
  [1, (random) => ({ does: "find", description: random.pick(["key", "none"]) })],
  [1, (random) => ({ does: "search", ring: random.pick(RINGS), description: random.pick(["key", "none"]) })],
  [1, (random) => ({ does: "add", description: random.pick(["key", "made"]), ring: random.pick(RINGS) })],
  [1, (random) => ({ does: "link", id: random.pick(KEYS), ring: random.pick(RINGS) })],
  // Not the other key: with its last link it would be gone, in the kernel a little later.
  [
    1,
    (random) => ({
      does: "unlink",
      id: random.pick(["target", "authority"]),
      ring: random.pick(["session", "ring", -8, -3]),
    }),
  ],
  [0.5, (random) => ({ does: "revoke", id: random.pick(["target", "key", "authority"]) })],
];
const TOTAL = MAKERS.reduce((sum, [weight]) => sum + weight, 0);

const oneStep = (random: Random): HelperStep => {
  let at = (random.bits() / 2 ** 32) * TOTAL;
  for (const [weight, make] of MAKERS) {
    at -= weight;
    if (at < 0) return make(random);
  }
  return { does: "assume", id: "target" };
};

/** What some helper does; most of them begin as they should. */
export const randomSteps = (random: Random): HelperStep[] => {
  const steps = Array.from({ length: 1 + random.below(6) }, () => oneStep(random));
  if (random.chance(0.8)) steps.unshift({ does: "assume", id: "target" });
  // What it leaves behind would answer now so, now so.
  if (random.chance(0.1)) steps.push({ does: "invalidate", id: random.pick(["target", "key", "authority"]) });
  return steps;
};
