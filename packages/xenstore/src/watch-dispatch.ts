import { findName } from "./name-tree.ts";
import { lookup, type StoreNode } from "./node.ts";
import { childPath, partsOf, pathOf } from "./path.ts";
import { type Caller, mayAccess, type Permissions } from "./permissions.ts";
import type { Watch, WatchIndex, WatchOwner } from "./watch-index.ts";

/** What happened to one node. */
export interface Change {
  readonly path: string;
  /** Made on the way to another node: only watches with a depth hear of it, the others get the other node. */
  readonly implicit: boolean;
  readonly permissions: boolean;
  /** It was removed, at least for a moment, and all below it. */
  readonly removed: boolean;
}

/** The tree before and after everything that the changes say. */
export interface Trees {
  readonly before: StoreNode;
  readonly after: StoreNode;
}

/**
 * Gives each change to the watches on its path and above, and a removal also to those below it whose node went. An owner
 * gets an event only if it may read the node; of a removed one, its parent; and of a permission change, also if it
 * could read the node until now.
 *
 * Source: xenstore.txt, WATCH; XSA-115.
 */
export const dispatch = (index: WatchIndex, changes: Iterable<Change>, trees: Trees): void => {
  if (index.count === 0) return;
  for (const change of changes) {
    const parts = partsOf(change.path);
    const before = lookup(trees.before, parts);
    const after = lookup(trees.after, parts);
    if (before === undefined && after === undefined) continue;
    const lists = readableBy(change, parts, { before, after }, trees);
    fireAlong(index, change, parts, lists);
    if (change.removed && before !== undefined) fireBelow(index, change.path, parts, { before, after });
  }
};

const mayReadAny = (lists: readonly Permissions[], caller: Caller): boolean =>
  lists.some((permissions) => mayAccess(permissions, caller, "r"));

/** The lists of which one must let the owner read. */
const readableBy = (
  change: Change,
  parts: readonly string[],
  node: { readonly before: StoreNode | undefined; readonly after: StoreNode | undefined },
  trees: Trees,
): Permissions[] => {
  const lists: Permissions[] = [];
  if (node.after !== undefined) lists.push(node.after.permissions);
  if (node.before === undefined) return lists;
  if (change.permissions) lists.push(node.before.permissions);
  if (node.after === undefined) lists.push(lookup(trees.before, parts.slice(0, -1))!.permissions);
  return lists;
};

const fireGroups = (
  groups: ReadonlyMap<WatchOwner, ReadonlySet<Watch>>,
  lists: readonly Permissions[],
  fire: (watch: Watch) => void,
): void => {
  for (const [owner, watches] of groups) {
    if (mayReadAny(lists, owner.caller)) for (const watch of watches) fire(watch);
  }
};

const fireAlong = (
  index: WatchIndex,
  change: Change,
  parts: readonly string[],
  lists: readonly Permissions[],
): void => {
  let at = index.root;
  for (let level = 0; ; level += 1) {
    const distance = parts.length - level;
    fireGroups(at.groups, lists, (watch) => {
      const heard = watch.depth === undefined ? !change.implicit : distance <= watch.depth;
      if (heard) watch.owner.queueEvent(watch, change.path);
    });
    const below = level < parts.length ? at.below.get(parts[level]!) : undefined;
    if (below === undefined) return;
    at = below;
  }
};

/** Both trees are walked together, so that the work is bounded by the smaller. */
const fireBelow = (
  index: WatchIndex,
  path: string,
  parts: readonly string[],
  node: { readonly before: StoreNode; readonly after: StoreNode | undefined },
): void => {
  const top = index.find(parts);
  if (top === undefined) return;
  const waiting = [{ place: top, path, ...node }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const [name, place] of next.place.below) {
      const before = findName(next.before.children, name);
      if (before === undefined) continue;
      const after = findName(next.after?.children, name);
      const below = childPath(next.path, name);
      if (after === undefined) {
        fireGroups(place.groups, [next.before.permissions], (watch) => watch.owner.queueEvent(watch, below));
      }
      waiting.push({ place, path: below, before, after });
    }
  }
};

/** Fires a special path for one domain; with a depth of at least 1 the event says which. Source: xenstore.txt, WATCH. */
export const dispatchSpecial = (index: WatchIndex, name: string, permissions: Permissions, domid: number): void => {
  fireGroups(index.find([name])?.groups ?? new Map(), [permissions], (watch) => {
    const path = (watch.depth ?? 0) > 0 ? `${name}/${domid}` : name;
    watch.owner.queueEvent(watch, path);
  });
};

/** The path that an event shows its watcher. */
export const shownPath = (watch: Watch, path: string): string =>
  path.startsWith("/") ? path.slice(watch.prefixLength) : path;

/** The canonical path of a watch. */
export const watchPath = (watch: Watch): string => (watch.special ? watch.written : pathOf(watch.parts));
