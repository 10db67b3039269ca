import { authorityOf } from "./authority.ts";
import { dropAuthority, reapLinks } from "./instantiation.ts";
import { type Key, POSITIVE } from "./key.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { dropAllLinks } from "./links.ts";
import type { KeyState } from "./state.ts";

/** Keys that end in one go; the rest follows when others had their turn. */
const SLICE = 20_000;

/** Ends keys that nobody refers to, and takes expired keys out of their keyrings. */
export class Collector {
  readonly #state: KeyState;
  #cancel: (() => void) | undefined = undefined;
  /** Second at which the timer fires. */
  #due = Infinity;

  constructor(state: KeyState) {
    this.#state = state;
    state.onDue = () => this.schedule();
  }

  /** Ends the keys whose last reference went. An operation calls it when it is through with them. */
  drain(): void {
    const { dead } = this.#state;
    for (let count = 0; count < SLICE; count += 1) {
      const key = dead.pop();
      if (key === undefined) return;
      this.#end(key);
    }
    this.#state.clock.after(0, () => this.drain());
  }

  /** Sees to it that the next expired key is collected in time. */
  schedule(): void {
    const { expiring, expiringAtOnce, limits, clock } = this.#state;
    const first = Math.min((expiring.first() ?? Infinity) + limits.gcDelaySeconds, expiringAtOnce.first() ?? Infinity);
    if (first === this.#due) return;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#due = first;
    if (first === Infinity) return;
    this.#cancel = clock.after(Math.max(0, (first - clock.seconds()) * 1000), () => this.collect());
  }

  /** Takes the keys that are due out of their keyrings. */
  collect(): void {
    const { expiring, expiringAtOnce, limits, clock } = this.#state;
    const now = clock.seconds();
    this.#due = Infinity;
    for (const key of expiring.takeUntil(now - limits.gcDelaySeconds)) reapLinks(this.#state, key);
    for (const key of expiringAtOnce.takeUntil(now)) reapLinks(this.#state, key);
    this.drain();
    this.schedule();
  }

  /** Stops the timer. */
  close(): void {
    this.#cancel?.();
    this.#state.onDue = () => undefined;
  }

  /** What a key was made of ends according to what it was, and only as far as that ever began. */
  #end(key: Key): void {
    const state = this.#state;
    if (isKeyring(key)) {
      this.#endKeyring(key);
    } else if (key.state === POSITIVE) {
      if (authorityOf(key) !== undefined) dropAuthority(state, key);
      else key.type.destroy?.(key, state.context);
    }
    key.payload = undefined;
    state.forget(key);
  }

  #endKeyring(keyring: Key): void {
    const state = this.#state;
    dropAllLinks(state, keyring);
    const { restriction } = linksOf(keyring);
    if (restriction?.trusted !== undefined) state.put(restriction.trusted);
    const same = state.named.get(keyring.description);
    same?.delete(keyring);
    if (same?.size === 0) state.named.delete(keyring.description);
  }
}
