/**
 * Upcalls of domains: in turns, so that one domain cannot have all helpers and all domains together cannot have more than
 * the machine bears; under the identity that the key service knows, never one that a guest gives; and not for longer than
 * the domain lives.
 */
import type { Upcall, UpcallActor } from "@xenolith/keys";
import type { DomainKeyrings } from "./domain-keyrings.ts";
import { Turns } from "./turns.ts";

/** Builders that run at once; further requests wait for their turn. */
const UPCALLS_MAX = 64;
/** For one domain. */
const UPCALLS_PER_DOMAIN_MAX = 4;

/** Place of the user number in a helper's arguments. */
const UID_ARGUMENT = 2;

/** Passes upcalls on to whoever starts builders. */
export class DomainUpcalls implements UpcallActor {
  readonly #actor: UpcallActor;
  readonly #keyringsOf: (uid: number) => DomainKeyrings | undefined;
  readonly #turns = new Turns(UPCALLS_MAX, UPCALLS_PER_DOMAIN_MAX);

  constructor(actor: UpcallActor, keyringsOf: (uid: number) => DomainKeyrings | undefined) {
    this.#actor = actor;
    this.#keyringsOf = keyringsOf;
  }

  async run(upcall: Upcall): Promise<number> {
    const keyrings = this.#keyringsOf(Number(upcall.argv[UID_ARGUMENT]));
    const signal = keyrings === undefined ? upcall.signal : AbortSignal.any([upcall.signal, keyrings.signal]);
    const gone = fired(signal);
    const work = this.#turns.take(keyrings, signal, () =>
      Promise.race([this.#actor.run({ ...upcall, signal }), gone.promise]),
    );
    try {
      // 0: a helper ran, and has built nothing.
      return (await work) ?? 0;
    } finally {
      gone.forget();
    }
  }
}

/** A promise that fulfils with 0 when the signal fires. */
const fired = (signal: AbortSignal): { readonly promise: Promise<number>; readonly forget: () => void } => {
  let forget = (): void => {};
  const promise = new Promise<number>((resolve) => {
    const onAbort = (): void => resolve(0);
    forget = () => signal.removeEventListener("abort", onAbort);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  return { promise, forget };
};
