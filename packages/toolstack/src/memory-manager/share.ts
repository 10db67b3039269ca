/**
 * Sharing memory between guests: each between its own least and most, the rest by weight. A pure function of what is
 * asked for, never of what the guests own now: that is why sizes settle.
 */

/** What a guest may be given, in pages. */
export interface Claimant {
  readonly domid: number;
  /** It is never given less. */
  readonly minPages: number;
  /** It is never given more. */
  readonly maxPages: number;
  /** Relative to the others; above 0. */
  readonly weight: number;
  /** What it would use; undefined: all that it can get. Memory beyond it goes to others first. */
  readonly demandPages?: number;
}

/** Pages by domid. The sum is at most `budgetPages`, unless the least of all guests together is more. */
export const sharePages = (guests: readonly Claimant[], budgetPages: number): ReadonlyMap<number, number> => {
  const shares = guests.map((guest) => ({ guest, pages: guest.minPages }));
  let left = Math.floor(budgetPages) - sum(shares.map(({ pages }) => pages));
  // First what is asked for, then what could be used some day.
  left = pour(shares, left, ({ minPages, maxPages, demandPages }) =>
    Math.min(maxPages, Math.max(minPages, Math.ceil(demandPages ?? maxPages))),
  );
  pour(shares, left, ({ maxPages }) => maxPages);
  return new Map(shares.map(({ guest, pages }) => [guest.domid, pages]));
};

interface Portion {
  readonly guest: Claimant;
  pages: number;
}

/**
 * Distributes `left` pages by weight up to a ceiling for each; returns what nobody could take. Whoever reaches the
 * ceiling leaves, and the rest is distributed anew, at most once per guest; what rounding leaves goes one page at a time.
 */
const pour = (shares: readonly Portion[], left: number, ceilingOf: (guest: Claimant) => number): number => {
  let open = shares.filter(({ guest, pages }) => pages < ceilingOf(guest));
  let rest = Math.max(0, left);
  while (open.length > 0 && rest > 0) {
    const weights = sum(open.map(({ guest }) => guest.weight));
    const portion = rest / weights;
    const full = open.filter(({ guest, pages }) => ceilingOf(guest) - pages <= portion * guest.weight);
    for (const share of full) {
      rest -= ceilingOf(share.guest) - share.pages;
      share.pages = ceilingOf(share.guest);
    }
    open = open.filter((share) => !full.includes(share));
    if (full.length === 0) return pourLast(open, rest, portion);
  }
  return rest;
};

/** Nobody reaches the ceiling: each its portion, rounded down, and the pages that rounding left in order. */
const pourLast = (open: readonly Portion[], rest: number, portion: number): number => {
  let left = rest;
  for (const share of open) {
    const pages = Math.floor(portion * share.guest.weight);
    share.pages += pages;
    left -= pages;
  }
  for (const share of open) {
    if (left === 0) break;
    share.pages += 1;
    left -= 1;
  }
  return left;
};

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
