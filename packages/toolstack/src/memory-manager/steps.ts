/**
 * From the sizes that guests have to those that they should have: who shrinks does so at once, who grows gets what is free,
 * so that the targets that are written never promise more than the machine has.
 */

/** A guest on its way, in pages. */
export interface Mover {
  readonly domid: number;
  readonly currentPages: number;
  readonly wantedPages: number;
}

/**
 * The targets to write now, by domid. Between what a guest owns and what it should have, so that no guest is sent to and
 * fro while the wanted sizes stay.
 */
export const nextTargets = (guests: readonly Mover[], freePages: number): ReadonlyMap<number, number> => {
  const growth = guests.reduce(
    (total, { currentPages, wantedPages }) => total + Math.max(0, wantedPages - currentPages),
    0,
  );
  const share = growth === 0 ? 0 : Math.min(1, Math.max(0, freePages) / growth);
  return new Map(
    guests.map(({ domid, currentPages, wantedPages }) => [
      domid,
      wantedPages <= currentPages ? wantedPages : currentPages + Math.floor((wantedPages - currentPages) * share),
    ]),
  );
};
