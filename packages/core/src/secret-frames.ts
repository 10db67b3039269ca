/**
 * Names for pages of secret memory in a p2m. Such a page is no frame of the machine: the frame table has no row for it,
 * and the direct map does not reach it. Its p2m entries name a number beyond all frames that a machine can have:
 *
 *     28        14 13  12 11          0
 *     | row - base |colour|    page    |
 *
 * `row` is the row of the extent that the page belongs to (extent-table.ts), `page` its place in there. The colour tells
 * two mappings of one extent apart that stand side by side: they differ in it, so that each is charged as a mapping of
 * the kernel's of its own, and can be taken away without another being needed. The kernel itself may join them.
 */
import type { Geometry } from "./geometry.ts";
import { isSecret } from "./p2m.ts";

/** One past the highest frame number that a p2m entry can hold. */
const FRAME_END = 2 ** 28;
const PAGE_BITS = 12;
const COLOUR_BITS = 2;
const ROW_BITS = PAGE_BITS + COLOUR_BITS;
const PAGE_MASK = 2 ** PAGE_BITS - 1;
const COLOUR_MASK = 2 ** COLOUR_BITS - 1;

/** Most pages of one extent of secret memory: with a gap behind it, so that no two extents touch. */
export const SECRET_PAGES_MAX = 2 ** PAGE_BITS - 1;

/** The first number that is no frame. */
export const secretBase = ({ extentCount }: Pick<Geometry, "extentCount">): number =>
  FRAME_END - extentCount * 2 ** ROW_BITS;

/** Name of page `page` of the extent in `row`. */
export const secretFrame = (geometry: Geometry, row: number, colour: number, page: number): number =>
  secretBase(geometry) + row * 2 ** ROW_BITS + colour * 2 ** PAGE_BITS + page;

/** Row of the extent that a page so called belongs to. */
export const secretRow = (geometry: Geometry, frame: number): number => (frame - secretBase(geometry)) >>> ROW_BITS;

/** Its place in the extent. */
export const secretPage = (frame: number): number => frame & PAGE_MASK;

/** Whether the page of one p2m entry is followed by that of another in the same file, whatever their colours. */
export const isNextSecret = (entry: number, next: number): boolean => {
  const colours = COLOUR_MASK << PAGE_BITS;
  return isSecret(entry) && isSecret(next) && ((next >>> 4) & ~colours) === ((entry >>> 4) & ~colours) + 1;
};

/** A colour, one of three, for a mapping between pages with these p2m entries: neither has it. */
export const colourBetween = (before: number, behind: number): number => {
  const left = colourOf(before);
  const right = colourOf(behind);
  let colour = 0;
  while (colour === left || colour === right) colour += 1;
  return colour;
};

/** Colour of a p2m entry, or -1: it names no secret page. */
const colourOf = (entry: number): number => (isSecret(entry) ? (entry >>> (4 + PAGE_BITS)) & COLOUR_MASK : -1);
