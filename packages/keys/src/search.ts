import type { ErrorPriority } from "./error-priority.ts";
import { EACCES, EAGAIN, EKEYEXPIRED, EKEYREVOKED, ENOKEY, ENOTDIR } from "./errno.ts";
import { holds, type Key, type KeyIndex } from "./key.ts";
import type { KeyType, Match } from "./key-type.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { DEPTH_MAX } from "./links.ts";
import { KEY_SEARCH, permits } from "./permission.ts";
import type { Credentials } from "./process.ts";
import { isGone, type KeyState } from "./state.ts";
import { keyringType } from "./type-keyring.ts";

/** Keyrings looked into before a search begins to note where it has been. */
const UNNOTED_MAX = 64;

/** A matching key that may not be used ends the search of a tree whose root it is. */
const GO_ON = 0;
const FOUND = 1;
const REFUSED = 2;

/** How a search goes about it. */
export interface Manner {
  /** Whether revoked, expired and negative keys are passed over. */
  readonly checksState: boolean;
  /** Whether expired keys are passed over without being an answer. */
  readonly skipsExpired: boolean;
  /** Whether keyrings in keyrings are searched. */
  readonly recurses: boolean;
}

/** As keyctl_search(3) does it. */
export const SEARCHING: Manner = { checksState: true, skipsExpired: false, recurses: true };
/** As request_key(2) does it. */
export const REQUESTING: Manner = { checksState: true, skipsExpired: true, recurses: true };
/** As the kernel's own code finds a key without waiting for it. */
export const FINDING: Manner = { checksState: true, skipsExpired: true, recurses: false };
/** In one keyring only. */
export const SHALLOW: Manner = { checksState: true, skipsExpired: false, recurses: false };

/** What is looked for. */
export interface Wanted extends KeyIndex {
  readonly match: Match;
  readonly manner: Manner;
}

/** A description, as it is, of a type. */
export const exactly = (type: KeyType, description: string, manner: Manner, domain = ""): Wanted => ({
  type,
  description,
  domain,
  match: { description, compare: undefined, iterate: false },
  manner,
});

/** One walk through keyrings. `key` is what it found, `error` the answer if it found nothing. */
export class Search {
  key: Key | undefined = undefined;
  /** Whether the key is in the possession of whoever searches. */
  possessed = false;
  error = -EAGAIN;
  readonly #wanted: Wanted;
  readonly #state: KeyState;
  readonly #priority: ErrorPriority;
  #who: Credentials;
  #looked = 0;
  /** The error that a keyring gave at a depth, by keyring and depth; 0 for none. */
  #seen: Map<Key, number[]> | undefined = undefined;

  constructor(state: KeyState, who: Credentials, wanted: Wanted, priority: ErrorPriority) {
    this.#state = state;
    this.#who = who;
    this.#wanted = wanted;
    this.#priority = priority;
  }

  /** Searches one keyring and those in it: whether it found the key; otherwise `error` says why not. */
  tree(root: Key, possessed: boolean): boolean {
    this.error = -EAGAIN;
    if (!isKeyring(root)) return this.#fail(-ENOTDIR);
    if (!permits(root, KEY_SEARCH, this.#who, possessed)) return this.#fail(-EACCES);
    this.possessed = possessed;
    this.#looked = 0;
    this.#seen = undefined;
    const { type, match, description, domain } = this.#wanted;
    if (match.iterate || (root.type === type && root.description === description && root.domain === domain)) {
      const verdict = this.#test(root);
      if (verdict !== GO_ON) return verdict === FOUND;
    }
    return this.#descend(root, 0);
  }

  /** Searches with other rights from now on. */
  as(who: Credentials): this {
    this.#who = who;
    return this;
  }

  #fail(error: number): false {
    this.error = error;
    return false;
  }

  /** Tests one key. Source: spec of the states of keys in keyrings(7) and request-key(7). */
  #test(key: Key): number {
    const wanted = this.#wanted;
    if (key.type !== wanted.type) return GO_ON;
    if (wanted.manner.checksState) {
      if (isGone(key)) return this.#record(-EKEYREVOKED);
      if (this.#state.isExpired(key)) return wanted.manner.skipsExpired ? REFUSED : this.#record(-EKEYEXPIRED);
    }
    if (!this.#isWanted(key)) return GO_ON;
    if (!permits(key, KEY_SEARCH, this.#who, this.possessed)) {
      return this.#priority === "linux-6" ? this.#record(-EACCES) : REFUSED;
    }
    if (wanted.manner.checksState && key.state < 0) return this.#record(key.state);
    this.key = key;
    return FOUND;
  }

  #isWanted(key: Key): boolean {
    const { match, description, domain } = this.#wanted;
    if (match.compare !== undefined) return match.compare(key);
    // Unless all are looked at, it was found by its description.
    return !match.iterate || (key.description === description && key.domain === domain);
  }

  #record(error: number): number {
    if (this.#priority === "linux-6" || rank(error) >= rank(this.error)) this.error = error;
    return REFUSED;
  }

  #descend(ring: Key, depth: number): boolean {
    if (isGone(ring)) return false;
    const links = linksOf(ring);
    const { match } = this.#wanted;
    if (match.iterate) {
      for (const key of links.list()) if (this.#test(key) === FOUND) return true;
    } else {
      const key = links.find(this.#wanted);
      if (key !== undefined && this.#test(key) === FOUND) return true;
    }
    if (!this.#wanted.manner.recurses || depth >= DEPTH_MAX) return false;
    for (const child of links.keyrings()) {
      if (permits(child, KEY_SEARCH, this.#who, this.possessed) && this.#enter(child, depth + 1)) return true;
    }
    return false;
  }

  /** Descends, unless it did so before at this depth: keyrings can be reached on very many ways. */
  #enter(ring: Key, depth: number): boolean {
    this.#looked += 1;
    if (this.#looked < UNNOTED_MAX) return this.#descend(ring, depth);
    const seen = (this.#seen ??= new Map<Key, number[]>());
    let errors = seen.get(ring);
    if (errors === undefined) seen.set(ring, (errors = []));
    const known = errors[depth];
    if (known !== undefined) {
      if (known < 0) this.#record(known);
      return false;
    }
    const before = this.error;
    this.error = -EAGAIN;
    if (this.#descend(ring, depth)) return true;
    const error = this.error === -EAGAIN ? 0 : this.error;
    errors[depth] = error;
    this.error = before;
    if (error < 0) this.#record(error);
    return false;
  }
}

const rank = (error: number): number => {
  if (error === -EKEYREVOKED) return 3;
  if (error === -EKEYEXPIRED) return 2;
  return error === -EAGAIN ? 0 : 1;
};

/**
 * The user's session keyring, if it was made and can be searched: it stands in for a session keyring that a process does
 * not have.
 */
const userSessionOf = (state: KeyState, who: Credentials): Key | undefined => {
  if (state.userRegister === undefined) return undefined;
  const index = { type: keyringType, description: `_uid_ses.${who.uid}`, domain: "" };
  const ring = linksOf(state.userRegister).find(index);
  if (ring === undefined || isGone(ring) || state.isExpired(ring)) return undefined;
  return permits(ring, KEY_SEARCH, who, true) ? ring : undefined;
};

/** The errors of several trees made one, as Linux 6 does: ENOKEY, then EAGAIN, then the last of the others. */
class LinuxErrors {
  #known = 0;
  #other = -EAGAIN;

  add(error: number): void {
    if (error === -ENOKEY) this.#known = error;
    else if (error !== -EAGAIN) this.#other = error;
    else if (this.#known === 0) this.#known = error;
  }

  get result(): number {
    return this.#known < 0 ? this.#known : this.#other;
  }
}

/** The same as it is documented: the highest of all; a refused keyring counts only if no other could be searched. */
class DocumentedErrors {
  #result = -EACCES;
  #searched = 0;
  #trees = 0;

  add(error: number): void {
    this.#trees += 1;
    if (error === -EACCES) return;
    if (this.#searched === 0 || rank(error) >= rank(this.#result)) this.#result = error;
    this.#searched += 1;
  }

  get result(): number {
    return this.#trees === 0 ? -EAGAIN : this.#result;
  }
}

/** Searches the keyrings of these credentials: 0, or why nothing was found. */
const searchOwn = (search: Search, state: KeyState, who: Credentials, priority: ErrorPriority): number => {
  search.as(who);
  const errors = priority === "linux-6" ? new LinuxErrors() : new DocumentedErrors();
  for (const ring of [who.thread, who.process, who.session ?? userSessionOf(state, who)]) {
    if (ring === undefined) continue;
    if (search.tree(ring, true)) return 0;
    errors.add(search.error);
  }
  return errors.result;
};

/** Somebody who searches: with keyrings of its own, and perhaps with those of the requester whose key it builds. */
export interface Searcher {
  readonly who: Credentials;
  /** The requester's credentials, while an authorisation is valid that was assumed. */
  readonly requester: Credentials | undefined;
}

/** Searches all keyrings that a process may search: 0 (then `search.key` is there), or the error. Source: request-key(7). */
export const searchAll = (search: Search, state: KeyState, searcher: Searcher, priority: ErrorPriority): number => {
  const own = searchOwn(search, state, searcher.who, priority);
  if (own === 0) return 0;
  if (searcher.requester === undefined) return own;
  const lent = searchOwn(search, state, searcher.requester, priority);
  if (lent === 0) return 0;
  if (priority === "linux-6") {
    if (own === -ENOKEY || lent === -ENOKEY) return -ENOKEY;
    return own === -EACCES ? lent : own;
  }
  if (own === -EACCES) return lent;
  return lent !== -EACCES && rank(lent) > rank(own) ? lent : own;
};

/** Whether a key can be reached from the keyrings of these credentials with the right to search all on the way. */
export const reaches = (state: KeyState, key: Key, who: Credentials): boolean =>
  permits(key, KEY_SEARCH, who, true) &&
  (reachesFrom(who.thread, key, who) ||
    reachesFrom(who.process, key, who) ||
    reachesFrom(who.session ?? userSessionOf(state, who), key, who));

const reachesFrom = (root: Key | undefined, key: Key, who: Credentials): boolean =>
  root !== undefined &&
  permits(root, KEY_SEARCH, who, true) &&
  (root === key || reachesBelow(root, key, who, { depth: 0, seen: undefined }));

interface Walk {
  readonly depth: number;
  /** Depths at which keyrings were looked into. */
  readonly seen: Map<Key, number> | undefined;
}

const reachesBelow = (ring: Key, key: Key, who: Credentials, walk: Walk): boolean => {
  if (isGone(ring)) return false;
  if (holds(ring, key)) return true;
  if (walk.depth >= DEPTH_MAX) return false;
  const keyrings = linksOf(ring).keyrings();
  if (keyrings.length === 0) return false;
  const seen = walk.seen ?? new Map<Key, number>();
  const before = seen.get(ring) ?? 0;
  if ((before & (1 << walk.depth)) !== 0) return false;
  seen.set(ring, before | (1 << walk.depth));
  const next = { depth: walk.depth + 1, seen };
  return keyrings.some((child) => permits(child, KEY_SEARCH, who, true) && reachesBelow(child, key, who, next));
};
