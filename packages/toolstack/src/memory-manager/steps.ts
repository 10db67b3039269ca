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
 */
export const nextTargets = (guests: readonly Mover[], freePages: number): ReadonlyMap<number, number> => {
  const promised = sum(guests.map((guest) => promisedTo(guest) - guest.currentPages));
  const growth = sum(guests.map((guest) => growthOf(guest)));
  const share = growth === 0 ? 0 : Math.min(1, Math.max(0, freePages - promised) / growth);
  return new Map(
    guests.map((guest) => [
      guest.domid,
      guest.wantedPages <= guest.currentPages
        ? guest.wantedPages
        : promisedTo(guest) + Math.floor(growthOf(guest) * share),
    ]),
  );
};

/** The size that a guest is growing to already: at least what it owns, and at most what it should have. */
const promisedTo = ({ currentPages, wantedPages, targetPages = currentPages }: Mover): number =>
  wantedPages <= currentPages ? currentPages : Math.max(currentPages, Math.min(targetPages, wantedPages));

const growthOf = (guest: Mover): number => Math.max(0, guest.wantedPages - promisedTo(guest));

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
