import { inspect } from "node:util";
import { EOPNOTSUPP } from "./errno.ts";
import type { Key } from "./key.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { outcome } from "./lookup.ts";
import type { PayloadTarget } from "./payload-store.ts";
import type { KeyState } from "./state.ts";

/** A key that code in the same process holds, whether or not any keyring links it. It must be released. */
export class KeyReference {
  readonly serial: number;
  readonly #state: KeyState;
  readonly #onRelease: () => void;
  #key: Key | undefined;

  /** Made by the service; it takes over a pin of the key. */
  constructor(state: KeyState, key: Key, onRelease: () => void) {
    this.serial = key.serial;
    this.#state = state;
    this.#key = key;
    this.#onRelease = onRelease;
  }

  /**
   * The size of the payload, which is copied if the target has room for all of it: or a negated error number. No right is
   * asked for, since whoever holds a key may use it; but a key that was revoked or has expired is refused.
   */
  read(target?: PayloadTarget): number {
    const key = this.#key;
    if (key === undefined) throw new TypeError(`the reference to key ${this.serial} was released`);
    const refusal = outcome(this.#state, key);
    if (refusal < 0) return refusal;
    return key.type.read?.(key, target, this.#state.context) ?? -EOPNOTSUPP;
  }

  /** Links of a keyring, whatever its state; undefined for other keys. */
  get linkCount(): number | undefined {
    return this.#key !== undefined && isKeyring(this.#key) ? linksOf(this.#key).size : undefined;
  }

  /** Lets go of the key. */
  release(): void {
    const key = this.#key;
    this.#key = undefined;
    if (key === undefined) return;
    this.#state.unpin(key);
    this.#onRelease();
  }

  /** Lets go of the key, at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.release();
  }

  [inspect.custom](): string {
    return `KeyReference { ${this.serial} }`;
  }
}
