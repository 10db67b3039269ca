import { addKey, type AddRequest } from "./add-operations.ts";
import type { Authority } from "./authority.ts";
import { rejectAndLink } from "./instantiation.ts";
import { completeRequest, type UpcallOptions } from "./construction.ts";
import { EAGAIN, EINVAL, ENOKEY } from "./errno.ts";
import { instantiateInto } from "./instantiation.ts";
import { type Key, KEY_KEEP, KEY_ROOT_CAN_CLEAR, KEY_ROOT_CAN_INVALIDATE } from "./key.ts";
import { KeyReference } from "./key-reference.ts";
import type { OperationRunner } from "./operation-runner.ts";
import { link, unlink } from "./links.ts";
import { possesses, searchProcess } from "./lookup.ts";
import { NO_GROUP, PERMISSION_BITS, permitsAny } from "./permission.ts";
import { type Answer, settle } from "./pending.ts";
import type { Process } from "./process.ts";
import { requestWanted } from "./request-operation.ts";
import { wantedOf } from "./ring-operations.ts";
import { FINDING, type Manner, REQUESTING, type Wanted } from "./search.ts";
import { createRing, forgetUserRings, setSession } from "./rings.ts";
import type { KeyState } from "./state.ts";
import { byteString, type KeyText } from "./text.ts";

/** What is asked for, beside type and description, by code in the same process. */
export interface AuxiliaryRequest {
  /** Separates keys that are equal otherwise. */
  readonly domain?: string;
  /** What the type or helper is told; without it the key is only searched for. Any bytes. */
  readonly callout?: KeyText;
  /** Handed to the type's own `requestKey` as it is. */
  readonly aux?: unknown;
}

/** A keyring of whoever runs the service, which callers may only use as its permissions and these settings say. */
export interface ServiceKeyring {
  readonly description: KeyText;
  readonly permissions: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Nobody unlinks, clears, revokes or invalidates it, or what it was made with. */
  readonly keep?: boolean;
  /** Whoever has CAP_SYS_ADMIN may clear it. */
  readonly adminCanClear?: boolean;
  /** Whoever has CAP_SYS_ADMIN may invalidate it. */
  readonly adminCanInvalidate?: boolean;
}

/** What code in the same process can do beyond what callers can: nothing here asks for permissions. */
export class TrustedInterface {
  readonly #state: KeyState;
  readonly #runner: OperationRunner;
  readonly #upcalls: UpcallOptions;

  constructor(state: KeyState, runner: OperationRunner, upcalls: UpcallOptions) {
    this.#state = state;
    this.#runner = runner;
    this.#upcalls = upcalls;
  }

  /** Runs code of this package on the state itself and tidies up after it: the daemon saves and restores persistent keyrings so. */
  withState<Result>(use: (state: KeyState) => Result): Result {
    const result = use(this.#state);
    this.#runner.tidy();
    return result;
  }

  /** Holds a key: undefined if there is none with this serial. */
  reference(serial: number): KeyReference | undefined {
    const key = this.#state.keys.get(serial);
    return key === undefined ? undefined : this.#hold(key);
  }

  /**
   * As request_key, but it hands over the key itself, which is linked nowhere. The result is a reference that must be
   * released, or a negated error number. It cannot be interrupted. Source: request_key_with_auxdata of the kernel.
   */
  async requestKeyWithAuxdata(
    process: Process,
    typeName: KeyText,
    text: KeyText,
    { domain = "", callout, aux }: AuxiliaryRequest = {},
  ): Promise<KeyReference | number> {
    const wanted = this.#wanted(typeName, text, domain, REQUESTING);
    if (typeof wanted === "number") return wanted;
    const told = typeof callout === "string" ? Buffer.from(callout, "utf8") : callout && Uint8Array.from(callout);
    let found: KeyReference | undefined;
    const request = {
      wanted,
      callout: told ?? null,
      aux,
      // Between the moment in which the key is known and that in which the caller goes on, this keeps it.
      onKey: (key: Key) => {
        found ??= this.#hold(key);
      },
    };
    const result = await settle(
      this.#runner.run(process, () => requestWanted(this.#state, process, request, this.#upcalls)),
    );
    if (result >= 0 && found !== undefined) return found;
    found?.release();
    return result;
  }

  /**
   * A key in the process's own thread, process or session keyring, not in the keyrings within those; none is built, and none
   * waited for: one that is being built is found. The result is a reference that must be released, or a negated error
   * number. Source: request_key_rcu of the kernel.
   */
  findKey(process: Process, typeName: KeyText, text: KeyText, domain = ""): KeyReference | number {
    const wanted = this.#wanted(typeName, text, domain, FINDING);
    if (typeof wanted === "number") return wanted;
    this.#runner.check(process);
    const found = searchProcess(this.#state, process, wanted);
    if (typeof found !== "number") return this.#hold(found);
    return found === -EAGAIN ? -ENOKEY : found;
  }

  #wanted(typeName: KeyText, text: KeyText, domain: string, manner: Manner): Wanted | number {
    const name = byteString(typeName);
    const description = byteString(text);
    const type = typeof name === "number" ? undefined : this.#state.types.get(name);
    if (type === undefined) return -ENOKEY;
    return typeof description === "number" ? description : wantedOf(type, description, manner, domain);
  }

  /** Builds the key of a request, for types that do it themselves: 0 or a negated error number. */
  instantiate(authority: Authority, payload: Uint8Array): number {
    const { key, target } = authority;
    if (key === undefined) return -EINVAL;
    return this.#tidied(instantiateInto(this.#state, target, payload, { keyring: undefined, authority: key }));
  }

  /** Refuses the key of a request, with this (positive) error number and for so long: 0 or a negated error number. */
  reject(authority: Authority, { seconds, error }: { readonly seconds: number; readonly error: number }): number {
    const { key, target } = authority;
    if (key === undefined) return -EINVAL;
    return this.#tidied(rejectAndLink(this.#state, target, { seconds, error, authority: key }));
  }

  /** Ends a request: with an error number below 0 the key is refused for 60 seconds, if nobody has built it. */
  completeRequest(authority: Authority, error: number): void {
    if (authority.key !== undefined) completeRequest(this.#state, authority.key, error);
    this.#runner.tidy();
  }

  /** A keyring of the service's own: a reference that must be released, -EINVAL or -EDQUOT. */
  createKeyring(wanted: ServiceKeyring): KeyReference | number {
    const description = byteString(wanted.description);
    if (typeof description === "number" || (wanted.permissions & ~PERMISSION_BITS) !== 0) return -EINVAL;
    const { uid = 0, gid = NO_GROUP, permissions } = wanted;
    const made = createRing(this.#state, { description, uid, gid, permissions, quota: "none" });
    if (typeof made === "number") return made;
    if (wanted.keep === true) made.flags |= KEY_KEEP;
    if (wanted.adminCanClear === true) made.flags |= KEY_ROOT_CAN_CLEAR;
    if (wanted.adminCanInvalidate === true) made.flags |= KEY_ROOT_CAN_INVALIDATE;
    const reference = this.#hold(made);
    this.#state.put(made);
    return reference;
  }

  /**
   * Whether a process may know that there is a key with this serial number: it owns it, possesses it or has any right on
   * it. Linux tells -EACCES from -ENOKEY to everybody; who serves callers that must not learn that asks here first.
   */
  isKnownTo(process: Process, serial: number): boolean {
    const key = this.#state.keys.get(serial);
    if (key === undefined) return false;
    return key.uid === process.fsuid || permitsAny(key, process, possesses(this.#state, process, key));
  }

  /**
   * Adds a key as `KeyService.addKey`, with permissions of the caller's choice from its first moment on: its serial
   * number or a negated error number.
   */
  addKey(process: Process, request: AddRequest, permissions: number): Answer {
    if ((permissions & ~PERMISSION_BITS) !== 0) return -EINVAL;
    return this.#runner.run(process, () => {
      const serial = addKey(this.#state, process, request);
      const key = this.#state.keys.get(serial);
      if (key !== undefined) key.permissions = permissions;
      return serial;
    });
  }

  /** Links a key into a keyring, whatever their permissions: 0, -ENOKEY or what `KeyService.link` answers. */
  link(serial: number, keyring: number): number {
    return this.#withKeys(serial, keyring, (key, ring) => link(this.#state, ring, key));
  }

  /** Removes a link, whatever the permissions: 0, -ENOKEY, -ENOTDIR or -ENOENT. */
  unlink(serial: number, keyring: number): number {
    return this.#withKeys(serial, keyring, (key, ring) => unlink(this.#state, ring, key));
  }

  /** Gives `to` the session keyring of `from`: what one thread joins is then joined by others. */
  shareSession(from: Process, to: Process): void {
    this.#runner.check(from);
    this.#runner.check(to);
    if (from.session !== undefined && to.session !== from.session) setSession(this.#state, to, from.session);
    this.#runner.tidy();
  }

  /** Forgets the keyrings of a user that will not come back: its own two, and the persistent one. */
  forgetUser(uid: number): void {
    forgetUserRings(this.#state, uid);
    this.#runner.tidy();
  }

  #withKeys(serial: number, keyring: number, use: (key: Key, ring: Key) => number): number {
    const { keys } = this.#state;
    const key = keys.get(serial);
    const ring = keys.get(keyring);
    return key === undefined || ring === undefined ? -ENOKEY : this.#tidied(use(key, ring));
  }

  #tidied(result: number): number {
    this.#runner.tidy();
    return result;
  }

  #hold(key: Key): KeyReference {
    return new KeyReference(this.#state, this.#state.pin(key), () => this.#runner.tidy());
  }
}
