import assert from "node:assert/strict";
import { authorityOf } from "./authority.ts";
import type { Clock } from "./clock.ts";
import { EDQUOT } from "./errno.ts";
import { ExpiryIndex } from "./expiry-index.ts";
import {
  Key,
  KEY_IN_QUOTA,
  KEY_INVALIDATED,
  KEY_REVOKED,
  type KeyIndex,
  NEVER,
  UNINSTANTIATED,
  USAGE_MAX,
} from "./key.ts";
import type { KeyType, TypeContext } from "./key-type.ts";
import type { KeyLimits } from "./limits.ts";
import type { ErrorPriority } from "./error-priority.ts";
import type { PayloadStore } from "./payload-store.ts";
import type { Process } from "./process.ts";
import { UserRecord } from "./user-record.ts";
import { WaitList } from "./wait-list.ts";

/** How a new key counts: checked against the quota, counted without being refused, or not at all. */
export type QuotaMode = "checked" | "counted" | "none";

/** What a new key is. */
export interface NewKey extends KeyIndex {
  readonly uid: number;
  readonly gid: number;
  readonly permissions: number;
  readonly quota: QuotaMode;
}

/** What the state is given. */
export interface StateOptions {
  readonly clock: Clock;
  /** 32 random bits. */
  readonly random: () => number;
  readonly payloads: PayloadStore;
  readonly limits: KeyLimits;
  readonly errorPriority: ErrorPriority;
  /** Whether a helper is refused a wait for the key that it builds. */
  readonly detectsSelfWait: boolean;
}

/** What an operation waits for, and how it goes on. */
export interface Awaited {
  readonly key: Key;
  /** What it does then; undefined: it is tried again from the beginning. */
  readonly resume: (() => number) | undefined;
  /** For whoever has the key built: begins that, once the wait is known. It cannot be interrupted. 0, or why it failed. */
  readonly building?: () => Promise<number>;
}

const SERIAL_MIN = 3;
const SERIAL_MAX = 2 ** 31 - 1;

/** Keys, users and references: what all operations share. */
export class KeyState {
  readonly clock: Clock;
  readonly payloads: PayloadStore;
  limits: KeyLimits;
  readonly errorPriority: ErrorPriority;
  readonly detectsSelfWait: boolean;
  /** Set by an operation that returns WAIT. */
  awaited: Awaited | undefined = undefined;
  readonly keys = new Map<number, Key>();
  readonly users = new Map<number, UserRecord>();
  readonly types = new Map<string, KeyType>();
  readonly processes = new Set<Process>();
  /** Keyrings that can be joined, by name, oldest first. */
  readonly named = new Map<string, Set<Key>>();
  /** Keys with an expiry: those that are collected after the delay, and those of types without one. */
  readonly expiring = new ExpiryIndex();
  readonly expiringAtOnce = new ExpiryIndex();
  /** References that waits, constructions and handles hold. */
  readonly pins = new Map<Key, number>();
  /** Keys without references whose ends are still to come; see collector.ts. */
  readonly dead: Key[] = [];
  /** Ends of what may never end by itself: helpers that run. Called when the service is closed. */
  readonly openEnds = new Set<() => void>();
  /** Who waits for keys under construction. */
  readonly waits = new WaitList((authority) => authorityOf(authority)?.target);
  readonly context: TypeContext;
  /** Whether the last lookup found its key in the possession of the caller. */
  possessed = false;
  /** The register of the users' keyrings, and of the persistent ones; made when first needed. */
  userRegister: Key | undefined = undefined;
  persistentRegister: Key | undefined = undefined;
  /** Called when something is due to be collected. */
  onDue: () => void = () => undefined;
  readonly #random: () => number;

  constructor(options: StateOptions) {
    this.clock = options.clock;
    this.#random = options.random;
    this.payloads = options.payloads;
    this.limits = options.limits;
    this.errorPriority = options.errorPriority;
    this.detectsSelfWait = options.detectsSelfWait;
    this.user(0);
    this.context = {
      payloads: this.payloads,
      reserve: (key, bytes) => this.reserve(key, bytes),
      find: (serial) => this.keys.get(serial),
      now: () => this.clock.seconds(),
    };
  }

  /** The record of a user, made if there is none. It goes with its last key. */
  user(uid: number): UserRecord {
    let user = this.users.get(uid);
    if (user === undefined) this.users.set(uid, (user = new UserRecord(uid)));
    return user;
  }

  /** Whether a user may have this much more: each limit can be reached, and not passed. */
  hasRoom(user: UserRecord, keys: number, bytes: number): boolean {
    const { limits } = this;
    const isRoot = user.uid === 0;
    return (
      user.quotaKeys + keys <= (isRoot ? limits.rootMaxKeys : limits.maxKeys) &&
      user.quotaBytes + bytes <= (isRoot ? limits.rootMaxBytes : limits.maxBytes)
    );
  }

  /** A new key, not instantiated, with one reference, its caller's: or -EDQUOT. */
  allocate(wanted: NewKey): Key | number {
    const user = this.user(wanted.uid);
    const bytes = wanted.description.length + 1 + (wanted.type.baseBytes ?? 0);
    if (wanted.quota === "checked" && !this.hasRoom(user, 1, bytes)) {
      this.#forgetUnused(user);
      return -EDQUOT;
    }
    const key = new Key(this.#freeSerial(), wanted, { user, uid: wanted.uid, gid: wanted.gid }, wanted.permissions);
    user.keyCount += 1;
    if (wanted.quota !== "none") {
      key.flags = KEY_IN_QUOTA;
      key.quotaBytes = bytes;
      user.quotaKeys += 1;
      user.quotaBytes += bytes;
    }
    this.keys.set(key.serial, key);
    return key;
  }

  /** Charges a key for a payload of this size instead of the present one: 0, or -EDQUOT if that is more and too much. */
  reserve(key: Key, payloadBytes: number): number {
    const more = payloadBytes - key.payloadBytes;
    if (more !== 0 && (key.flags & KEY_IN_QUOTA) !== 0) {
      if (more > 0 && !this.hasRoom(key.user, 0, more)) return -EDQUOT;
      key.user.quotaBytes += more;
      key.quotaBytes += more;
    }
    key.payloadBytes = payloadBytes;
    return 0;
  }

  /** Moves a key, with what it counts for and its payload, to another owner: 0, -EDQUOT or what its type answers. */
  changeOwner(key: Key, uid: number): number {
    const previous = key.user;
    const next = this.user(uid);
    const counts = (key.flags & KEY_IN_QUOTA) !== 0;
    const hasNoRoom = counts && !this.hasRoom(next, 1, key.quotaBytes);
    const refusal = hasNoRoom ? -EDQUOT : (key.type.changeUser?.(key, uid, this.context) ?? 0);
    if (refusal < 0) {
      this.#forgetUnused(next);
      return refusal;
    }
    if (counts) {
      next.quotaKeys += 1;
      next.quotaBytes += key.quotaBytes;
      previous.quotaKeys -= 1;
      previous.quotaBytes -= key.quotaBytes;
    }
    const instantiated = key.state === UNINSTANTIATED ? 0 : 1;
    previous.keyCount -= 1;
    previous.instantiatedCount -= instantiated;
    next.keyCount += 1;
    next.instantiatedCount += instantiated;
    key.user = next;
    key.uid = uid;
    this.#forgetUnused(previous);
    return 0;
  }

  /** One more reference. */
  get(key: Key): Key {
    assert(key.usage > 0);
    if (key.usage < USAGE_MAX) key.usage += 1;
    return key;
  }

  /** One reference less. With the last one the key cannot be found any more and its quota is free; its end follows. */
  put(key: Key): void {
    assert(key.usage > 0);
    if (key.usage >= USAGE_MAX) return;
    key.usage -= 1;
    if (key.usage > 0) return;
    this.keys.delete(key.serial);
    if ((key.flags & KEY_IN_QUOTA) !== 0) {
      key.user.quotaKeys -= 1;
      key.user.quotaBytes -= key.quotaBytes;
    }
    this.setExpiryIndex(key, NEVER);
    this.dead.push(key);
  }

  /** Holds a key for a wait, a construction or a handle. */
  pin(key: Key): Key {
    this.pins.set(key, (this.pins.get(key) ?? 0) + 1);
    return this.get(key);
  }

  /** Lets go of it again. */
  unpin(key: Key): void {
    const count = this.pins.get(key);
    assert(count !== undefined);
    if (count === 1) this.pins.delete(key);
    else this.pins.set(key, count - 1);
    this.put(key);
  }

  /** What is left of a key that nobody refers to goes from the records. */
  forget(key: Key): void {
    const { user } = key;
    user.keyCount -= 1;
    if (key.state !== UNINSTANTIATED) user.instantiatedCount -= 1;
    this.#forgetUnused(user);
  }

  /** Sets the second from which a key is expired, or NEVER. */
  setExpiry(key: Key, expiry: number): void {
    this.setExpiryIndex(key, expiry);
    key.expiry = expiry;
    if (expiry !== NEVER) this.onDue();
  }

  /** Moves a key to its place among those that expire at this second. */
  setExpiryIndex(key: Key, expiry: number): void {
    if (key.expiry === NEVER && expiry === NEVER) return;
    const index = key.type.reapsAtOnce === true ? this.expiringAtOnce : this.expiring;
    if (key.expiry !== NEVER) index.remove(key.expiry, key);
    if (expiry !== NEVER) index.add(expiry, key);
  }

  /** Whether a key is expired. */
  isExpired(key: Key): boolean {
    return key.expiry !== NEVER && this.clock.seconds() >= key.expiry;
  }

  /** A serial number that no key has: random, or the next free one above. */
  #freeSerial(): number {
    let serial = Math.max(SERIAL_MIN, this.#random() >>> 1);
    while (this.keys.has(serial)) serial = serial === SERIAL_MAX ? SERIAL_MIN : serial + 1;
    return serial;
  }

  /** A user without keys has no record; user 0 always has one. */
  #forgetUnused(user: UserRecord): void {
    if (user.keyCount > 0) return;
    if (user.uid !== 0) this.users.delete(user.uid);
    this.payloads.forgetUser(user.uid);
  }
}

/** Whether a key was revoked or invalidated: it is found no more, and a keyring is searched no more. */
export const isGone = (key: Key): boolean => (key.flags & (KEY_REVOKED | KEY_INVALIDATED)) !== 0;
