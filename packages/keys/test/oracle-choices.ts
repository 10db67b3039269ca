/** What random operations are about: who, which keys, which words. */
import type { Pair, Twin } from "./oracle-pair.ts";
import type { Random } from "./random.ts";

const OWN_USER = 100_000_000 + 2 * (process.pid % 1_000_000);

/** Whoever runs this. Others are the same user: its user keyrings are not touched. */
export const RUNNER = process.getuid!();
/** Users of the run: whoever runs it and, if that is user 0, two that nobody else is, also while several runs are under way. */
export const USERS: readonly number[] = RUNNER === 0 ? [0, OWN_USER, OWN_USER + 1] : [RUNNER];

const TYPES = [
  ...["user", "user", "user", "user", "user", "user", "logon", "logon"],
  ...["keyring", "keyring", "keyring", "keyring", "keyring", "nonesuch", ".dead", ""],
] as const;
const DESCRIPTIONS = ["a", "a", "b", "b", "c", "d:e", "d:e", "long description of a key", ".dot", ""] as const;
/** A keyring of any process can be joined by its name; these must not be anybody else's. */
export const RINGS: readonly string[] = [1, 2, 3, 4].map((number) => `r${number}-${process.pid}`);
export const MASKS = [
  0x3f3f3f3f, 0x3f3f3f3f, 0x3f3f3f3f, 0x3f3f3f3f, 0x3f3f3f3f, 0x3f3f3f3f, 0x3f3f0000, 0x3f3f0000, 0x3f3f3f00,
  0x3f3f0000, 0x3f010000, 0x3f000000, 0x013f0000, 0x3f3f3f3f, 0x3f3f3f00, 0x1f1f0000, 0x3f003f00, 0x003f0000,
  0x37010000, 0x0, 0x40000000, 0x3b3f0000, 0x2f3f0000,
] as const;
const SPECIALS = [-1, -1, -2, -2, -3, -3, -3, -3, -3, -3, -3, -4, -4, -5, -5, -6, -7, -8, -9, 0] as const;

/** What operations are made from. */
export interface Context {
  readonly pair: Pair;
  readonly random: Random;
  readonly uid: number;
  /** Distinguishes names of session keyrings of one run from everybody else's. */
  readonly runName: string;
  /** Keys that are gone on both sides. */
  readonly gone: readonly Twin[];
  /** Whether a key must not be revoked, invalidated or given away: the users' own keyrings. */
  readonly isSpared: (mine: number) => boolean;
}

const special = ({ random, uid }: Context): Twin => {
  for (;;) {
    const id = random.pick(SPECIALS);
    if (uid === RUNNER && (id === -4 || id === -5)) continue;
    return { mine: id, kernels: id };
  }
};

/** Any key, now and then one that is gone. */
export const anyKey = (context: Context): Twin => {
  const { pair, random, gone } = context;
  if (random.chance(0.2) || pair.twins.length === 0) return special(context);
  if (gone.length > 0 && random.chance(0.05)) return random.pick(gone);
  return mostlyFound(context, pair.twins);
};

/** One of these; mostly one that the caller can find, or else nearly everything would be refused. */
const mostlyFound = ({ pair, random }: Context, twins: readonly Twin[]): Twin => {
  let twin = random.pick(twins);
  for (let tries = random.below(12); tries > 0; tries -= 1) {
    if (Number(pair.service.getKeyringId(pair.caller, twin.mine, false)) > 0) break;
    twin = random.pick(twins);
  }
  return twin;
};

/** A keyring, mostly. */
export const anyRing = (context: Context): Twin => {
  if (context.random.chance(0.4)) return special(context);
  if (context.random.chance(0.05)) return anyKey(context);
  const rings = context.pair.twins.filter(({ mine }) => context.pair.isRing(mine));
  return rings.length === 0 ? special(context) : mostlyFound(context, rings);
};

export const spared = (context: Context, choose: (context: Context) => Twin): Twin => {
  for (;;) {
    const twin = choose(context);
    const isOwn = twin.mine === -4 || twin.mine === -5;
    if (!isOwn && !context.isSpared(twin.mine)) return twin;
  }
};

export const words = (
  context: Context,
): { readonly type: string; readonly description: string; readonly payload: Buffer } => {
  const { random } = context;
  const type = random.pick(TYPES);
  const description = type === "keyring" && random.chance(0.9) ? random.pick(RINGS) : random.pick(DESCRIPTIONS);
  const size =
    type === "keyring" && random.chance(0.95) ? 0 : random.pick([1, 5, 32, 32, 200, 200, 6000, 6000, 6000, 0, 33_000]);
  return { type, description, payload: Buffer.alloc(size, random.below(256)) };
};

export const show = (twin: Twin): string => `${twin.mine}/${twin.kernels}`;
