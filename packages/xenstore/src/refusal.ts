import type { xsd_errors } from "@xenolith/abi";

/** A name that an `XS_ERROR` message can carry. */
export type XenstoreErrorName = (typeof xsd_errors)[number];

/** What the store answers instead of a result; returned, never thrown, because a guest can cause any number of them. */
export class Refusal {
  readonly error: XenstoreErrorName;

  constructor(error: XenstoreErrorName) {
    this.error = error;
  }
}

const known = new Map<XenstoreErrorName, Refusal>();

/** The refusal of this name: one object per name, so that refusing costs nothing. */
export const refuse = (error: XenstoreErrorName): Refusal => {
  let refusal = known.get(error);
  if (refusal === undefined) known.set(error, (refusal = new Refusal(error)));
  return refusal;
};

/** Whether a result is a refusal. */
export const refused = (result: unknown): result is Refusal => result instanceof Refusal;
