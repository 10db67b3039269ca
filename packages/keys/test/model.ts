/** What keys and keyrings of one user do, told without any thought for speed. The words are those of the errors; "ok" for none. */

/** A key; a keyring if it has links. */
export interface ModelKey {
  readonly name: string;
  size: number;
  readonly links: Set<ModelKey> | undefined;
  /** Charges of links that the collector removed. */
  leaked: number;
  revoked: boolean;
  invalidated: boolean;
  /** Second from which it is expired. */
  expiry: number;
}

interface Limits {
  readonly maxKeys: number;
  readonly maxBytes: number;
  readonly gcDelaySeconds: number;
}

const DEPTH_MAX = 6;

const isRing = (key: ModelKey): boolean => key.links !== undefined;
const sameIndex = (left: ModelKey, right: ModelKey): boolean =>
  left.name === right.name && isRing(left) === isRing(right);

/** All keys of one user, who has every right to all of them. */
export class Model {
  readonly session: ModelKey = this.#create("_ses", undefined);
  readonly #limits: Limits;
  #now = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  #create(name: string, size: number | undefined): ModelKey {
    const links = size === undefined ? new Set<ModelKey>() : undefined;
    return {
      name,
      size: size ?? 0,
      links,
      leaked: 0,
      revoked: false,
      invalidated: false,
      expiry: Infinity,
    };
  }

  /** Keys that somebody refers to: the process to its session, keyrings to what they link. */
  #alive(): Set<ModelKey> {
    const alive = new Set([this.session]);
    for (const key of alive) for (const linked of key.links ?? []) alive.add(linked);
    return alive;
  }

  #bytesOf(key: ModelKey): number {
    const links = 4 * (key.links?.size ?? 0) + key.leaked;
    return key.name.length + 1 + links + (key.revoked ? 0 : key.size);
  }

  get keyCount(): number {
    return this.#alive().size;
  }

  get byteCount(): number {
    return [...this.#alive()].reduce((sum, key) => sum + this.#bytesOf(key), 0);
  }

  #hasRoom(keys: number, bytes: number): boolean {
    return this.keyCount + keys <= this.#limits.maxKeys && this.byteCount + bytes <= this.#limits.maxBytes;
  }

  /** Why a key cannot be used. */
  stateOf(key: ModelKey): string {
    if (!this.#alive().has(key) || key.invalidated) return "ENOKEY";
    if (key.revoked) return "EKEYREVOKED";
    return key.expiry <= this.#now ? "EKEYEXPIRED" : "good";
  }

  #refusal(...keys: readonly ModelKey[]): string | undefined {
    return keys.map((key) => this.stateOf(key)).find((state) => state !== "good");
  }

  add(ring: ModelKey, name: string, size: number | undefined): ModelKey | string {
    const refusal = this.#refusal(ring);
    if (refusal !== undefined) return refusal;
    const key = this.#create(name, size);
    const present = this.#linked(ring, key);
    if (present === undefined && !this.#hasRoom(0, 4)) return "EDQUOT";
    if (present !== undefined && size !== undefined && !present.revoked) {
      if (size > present.size && !this.#hasRoom(0, size - present.size)) return "EDQUOT";
      present.size = size;
      present.expiry = Infinity;
      return present;
    }
    // The charge of the link comes first, then that of the key, then that of its payload.
    const linkBytes = present === undefined ? 4 : 0;
    if (!this.#hasRoom(1, linkBytes + name.length + 1)) return "EDQUOT";
    if (!this.#hasRoom(1, linkBytes + name.length + 1 + (size ?? 0))) return "EDQUOT";
    this.#put(key, ring);
    return key;
  }

  #linked(ring: ModelKey, wanted: ModelKey): ModelKey | undefined {
    return [...ring.links!].find((key) => sameIndex(key, wanted));
  }

  #depth(ring: ModelKey): number {
    if (ring.revoked || ring.invalidated) return 0;
    return Math.max(0, ...[...ring.links!].filter(isRing).map((each) => 1 + this.#depth(each)));
  }

  #contains(ring: ModelKey, wanted: ModelKey): boolean {
    if (ring === wanted) return true;
    if (ring.revoked || ring.invalidated) return false;
    return [...ring.links!].some((key) => key === wanted || (isRing(key) && this.#contains(key, wanted)));
  }

  #whyNotInto(key: ModelKey, ring: ModelKey): string | undefined {
    if (this.#linked(ring, key) === undefined && !this.#hasRoom(0, 4)) return "EDQUOT";
    if (!isRing(key)) return undefined;
    if (this.#contains(key, ring)) return "EDEADLK";
    return this.#depth(key) > DEPTH_MAX ? "ELOOP" : undefined;
  }

  link(key: ModelKey, ring: ModelKey): string {
    const refusal = this.#refusal(ring, key) ?? this.#whyNotInto(key, ring);
    if (refusal !== undefined) return refusal;
    this.#put(key, ring);
    return "ok";
  }

  #put(key: ModelKey, ring: ModelKey): void {
    const present = this.#linked(ring, key);
    if (present !== undefined) ring.links!.delete(present);
    ring.links!.add(key);
  }

  unlink(key: ModelKey, ring: ModelKey): string {
    const refusal = this.#refusal(ring);
    if (refusal !== undefined) return refusal;
    if (!this.#alive().has(key)) return "ENOKEY";
    const present = this.#linked(ring, key);
    if (present === undefined) return "ENOENT";
    this.#take(present, ring);
    return "ok";
  }

  #take(key: ModelKey, ring: ModelKey): void {
    ring.links!.delete(key);
  }

  move(key: ModelKey, from: ModelKey, to: ModelKey, exclusive: boolean): string {
    const refusal = this.#refusal(key, from, to);
    if (refusal !== undefined) return refusal;
    if (from === to) return "ok";
    const present = this.#linked(from, key);
    if (present === undefined) return "ENOENT";
    const room = this.#linked(to, key) !== undefined || this.#hasRoom(0, 4);
    if (!room) return "EDQUOT";
    if (exclusive && this.#linked(to, key) !== undefined) return "EEXIST";
    const why = this.#whyNotInto(key, to);
    if (why !== undefined) return why;
    this.#take(present, from);
    this.#put(key, to);
    return "ok";
  }

  clear(ring: ModelKey): string {
    const refusal = this.#refusal(ring);
    if (refusal !== undefined) return refusal;
    ring.links!.clear();
    ring.leaked = 0;
    return "ok";
  }

  /** The key, or the highest of the errors that stand for those that cannot be used. */
  search(ring: ModelKey, name: string): ModelKey | string {
    const refusal = this.#refusal(ring);
    if (refusal !== undefined) return refusal;
    const states = new Set<string>();
    const found = this.#find(ring, name, 0, states);
    if (found !== undefined) return found;
    return ["EKEYREVOKED", "EKEYEXPIRED"].find((state) => states.has(state)) ?? "ENOKEY";
  }

  #find(ring: ModelKey, name: string, depth: number, states: Set<string>): ModelKey | undefined {
    if (ring.revoked || ring.invalidated) return undefined;
    const here = [...ring.links!].find((key) => !isRing(key) && key.name === name);
    const state = here === undefined ? "none" : this.stateOf(here);
    if (state === "good") return here;
    states.add(state);
    if (depth === DEPTH_MAX) return undefined;
    for (const each of [...ring.links!].filter(isRing)) {
      const found = this.#find(each, name, depth + 1, states);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  revoke(key: ModelKey): string {
    const refusal = this.#refusal(key);
    if (refusal !== undefined) return refusal;
    key.revoked = true;
    key.links?.clear();
    key.leaked = 0;
    key.expiry = Math.min(key.expiry, this.#now);
    return "ok";
  }

  invalidate(key: ModelKey): string {
    const refusal = this.#refusal(key);
    if (refusal !== undefined) return refusal;
    key.invalidated = true;
    this.#reap(key);
    return "ok";
  }

  setTimeout(key: ModelKey, seconds: number): string {
    const refusal = this.#refusal(key);
    if (refusal !== undefined) return refusal;
    key.expiry = seconds === 0 ? Infinity : this.#now + seconds;
    return "ok";
  }

  wait(seconds: number): void {
    this.#now += seconds;
    for (const key of this.#alive()) if (key.expiry + this.#limits.gcDelaySeconds <= this.#now) this.#reap(key);
  }

  #reap(key: ModelKey): void {
    for (const ring of this.#alive()) {
      if (ring.invalidated || ring.revoked || ring.links?.delete(key) !== true) continue;
      ring.leaked += 4;
    }
  }
}
