import type { Caller } from "./permissions.ts";

/** Who gets events: a connection. */
export interface WatchOwner {
  readonly caller: Caller;
  /** Takes one event; merges it with what is waiting, and never fails. */
  queueEvent(watch: Watch, path: string): void;
}

/** An event that has not been sent. */
export interface PendingEvent {
  readonly watch: Watch;
  readonly path: string;
  /** Replies of the connection that go before it. */
  readonly afterReplies: number;
}

/** One registration. */
export interface Watch {
  readonly owner: WatchOwner;
  /** A special path is watched, not a node. */
  readonly special: boolean;
  /** Of the canonical path; the name alone of a special one. */
  readonly parts: readonly string[];
  /** As the client wrote it, which is how it gets it back. */
  readonly written: string;
  /** Characters to leave out of event paths: those of the home, when the watch was set with a relative path. */
  readonly prefixLength: number;
  readonly token: string;
  /** Levels below the node that fire too; `undefined`: all. */
  readonly depth: number | undefined;
  /** Events that wait, by their canonical path. */
  readonly pending: Map<string, PendingEvent>;
}

/** A node of the index: the watches at one path, by owner, so that what an owner may see is looked at once. */
interface Place {
  readonly name: string;
  readonly above: Place | undefined;
  readonly below: Map<string, Place>;
  readonly groups: Map<WatchOwner, Set<Watch>>;
}

const place = (name: string, above: Place | undefined): Place => ({ name, above, below: new Map(), groups: new Map() });

/** Watches by path. A change finds those that it concerns on its own path and below, whatever others there are. */
export class WatchIndex {
  readonly root: Place = place("", undefined);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(watch: Watch): void {
    let at = this.root;
    for (const name of watch.parts) {
      let below = at.below.get(name);
      if (below === undefined) at.below.set(name, (below = place(name, at)));
      at = below;
    }
    const group = at.groups.get(watch.owner);
    if (group === undefined) at.groups.set(watch.owner, new Set([watch]));
    else group.add(watch);
    this.#count += 1;
  }

  /** Forgets the watch, and every place that nothing needs any more. */
  remove(watch: Watch): void {
    let at: Place | undefined = this.find(watch.parts);
    const group = at?.groups.get(watch.owner);
    if (at === undefined || group?.delete(watch) !== true) return;
    this.#count -= 1;
    if (group.size === 0) at.groups.delete(watch.owner);
    while (at?.above !== undefined && at.groups.size === 0 && at.below.size === 0) {
      at.above.below.delete(at.name);
      at = at.above;
    }
  }

  /** The place of a path, if something is watched there or below. */
  find(parts: readonly string[]): Place | undefined {
    let at: Place | undefined = this.root;
    for (const name of parts) at = at?.below.get(name);
    return at;
  }

  /** Places in the index, the root left out: what a leak would show in. */
  get placeCount(): number {
    let count = -1;
    const waiting = [this.root];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      count += 1;
      waiting.push(...next.below.values());
    }
    return count;
  }
}
