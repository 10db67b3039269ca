/**
 * From the sizes that guests have to those that they should have: who shrinks does so at once, who grows gets what is free,
 * so that the targets that are written never promise more than the machine has.
 */

/** A guest on its way, in pages. */
export interface Mover {
  readonly domid: number;
  readonly currentPages: number;
  readonly wantedPages: number;
  /** What it was told before; undefined: nothing yet. */
  readonly targetPages?: number | undefined;
}

/**
 * The targets to write now, by domid: between what a guest owns and what it should have. What a guest was promised and is
 * still taking stays promised, and is not given to others meanwhile: so none is sent to and fro while the wanted sizes stay.
 *
 * While there is too little for all, the one that misses least is served first, and whole: so most guests get one target and
 * are done, where a share of what is free for each would be a new target for all of them at every look.
 */
export const nextTargets = (guests: readonly Mover[], freePages: number): ReadonlyMap<number, number> => {
  const promised = sum(guests.map((guest) => promisedTo(guest) - guest.currentPages));
  let left = Math.max(0, freePages - promised);
  const targets = new Map(guests.map((guest) => [guest.domid, Math.min(guest.wantedPages, promisedTo(guest))]));
  for (const guest of guests.toSorted((one, other) => growthOf(one) - growthOf(other))) {
    const growth = Math.min(growthOf(guest), left);
    if (growth > 0) targets.set(guest.domid, promisedTo(guest) + growth);
    left -= growth;
  }
  return targets;
};

/** The size that a guest is growing to already: at least what it owns, and at most what it should have. */
const promisedTo = ({ currentPages, wantedPages, targetPages = currentPages }: Mover): number =>
  wantedPages <= currentPages ? currentPages : Math.max(currentPages, Math.min(targetPages, wantedPages));

const growthOf = (guest: Mover): number => Math.max(0, guest.wantedPages - promisedTo(guest));

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
