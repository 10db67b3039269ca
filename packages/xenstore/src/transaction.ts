import type { DomainRecord } from "./domain-table.ts";
import { type Cost, type Edit, nodeBytes } from "./edit.ts";
import { lookup, type StoreNode } from "./node.ts";
import { partsOf } from "./path.ts";
import type { Change } from "./watch-dispatch.ts";

/** What a transaction relies on at one path; bits. */
export const DEPENDS_ON_NODE = 1;
export const DEPENDS_ON_LIST = 2;
export const DEPENDS_ON_TREE = 4;

const TOUCHED_BYTES = 96;

/** What the note of one path costs its owner. */
export const touchBytes = (path: string): number => TOUCHED_BYTES + path.length;

/**
 * A view of the tree as it was at the start with the transaction's own changes, and a note of everything that it read or
 * wrote. It can be committed as long as all of that is still as it was.
 *
 *     touched  path -> what it relies on there
 *     written  path -> the node itself, or the node with all below it
 *     changes  path -> what watches will hear
 */
export class Transaction {
  readonly owner: DomainRecord;
  readonly startGeneration: number;
  /** The store's count of replaced bytes when this one began: how much it may keep alive. */
  readonly startReplacedBytes: number;
  readonly touched = new Map<string, number>();
  readonly written = new Map<string, "node" | "tree">();
  readonly changes = new Map<string, Change>();
  /** What its edits add to each domain. */
  readonly costs = new Map<DomainRecord, Cost>();
  #base: StoreNode | undefined;
  #root: StoreNode | undefined;
  #bytes = 0;

  constructor(owner: DomainRecord, root: StoreNode, start: { generation: number; replacedBytes: number }) {
    this.owner = owner;
    this.#base = root;
    this.#root = root;
    this.startGeneration = start.generation;
    this.startReplacedBytes = start.replacedBytes;
  }

  /** The tree at the start; `undefined` when the transaction can only fail. */
  get base(): StoreNode | undefined {
    return this.#base;
  }

  /** The tree that the transaction sees; `undefined` when the transaction can only fail. */
  get root(): StoreNode | undefined {
    return this.#root;
  }

  /** Bytes that are charged to its owner. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Notes what the outcome depends on. False when more nodes would be touched than `countMax`. */
  touch(path: string, depends: number, countMax: number): boolean {
    const known = this.touched.get(path);
    if (known === undefined) {
      if (this.touched.size >= countMax) return false;
      this.#charge(touchBytes(path));
    }
    this.touched.set(path, (known ?? 0) | depends);
    return true;
  }

  /** Takes over an edit of its root. */
  absorb(edit: Edit): void {
    this.#root = edit.root;
    for (const { path, before, after } of edit.replaced) {
      if (before !== undefined && before.generation > this.startGeneration) this.#charge(-nodeBytes(path, before));
      if (after !== undefined) this.#charge(nodeBytes(path, after));
    }
    for (const change of edit.changes) {
      const known = this.changes.get(change.path);
      this.changes.set(change.path, known === undefined ? change : merged(known, change));
      if (change.removed) this.written.set(change.path, "tree");
      else if (!this.written.has(change.path)) this.written.set(change.path, "node");
    }
  }

  addCosts(costs: ReadonlyMap<DomainRecord, Cost>): void {
    for (const [owner, { nodes, bytes }] of costs) {
      const known = this.costs.get(owner) ?? { nodes: 0, bytes: 0 };
      this.costs.set(owner, { nodes: known.nodes + nodes, bytes: known.bytes + bytes });
    }
  }

  /** Lets go of the snapshot: from now on every use is refused with `EAGAIN`. */
  doom(): void {
    this.#base = undefined;
    this.#root = undefined;
    this.touched.clear();
    this.written.clear();
    this.changes.clear();
    this.costs.clear();
    this.#charge(-this.#bytes);
  }

  /** A path that is not as it was when the transaction began, if there is one. */
  conflict(live: StoreNode): string | undefined {
    if (this.#base === undefined) return "/";
    if (this.#base === live) return undefined;
    for (const [path, depends] of this.touched) {
      const parts = partsOf(path);
      if (differs(lookup(this.#base, parts), lookup(live, parts), depends)) return path;
    }
    return undefined;
  }

  #charge(bytes: number): void {
    this.#bytes += bytes;
    this.owner.transactionBytes += bytes;
  }
}

const differs = (base: StoreNode | undefined, live: StoreNode | undefined, depends: number): boolean => {
  if (base === live) return false;
  if (base === undefined || live === undefined || (depends & DEPENDS_ON_TREE) !== 0) return true;
  if (base.generation !== live.generation) return true;
  return (depends & DEPENDS_ON_LIST) !== 0 && base.listGeneration !== live.listGeneration;
};

const merged = (left: Change, right: Change): Change => ({
  path: left.path,
  implicit: left.implicit && right.implicit,
  permissions: left.permissions || right.permissions,
  removed: left.removed || right.removed,
});

/** Puts onto `edit` what the transaction wrote: parents first, whole trees where something was removed. */
export const mergeInto = (edit: Edit, transaction: Transaction): void => {
  const written = [...transaction.written].toSorted(([left], [right]) => left.length - right.length);
  for (const [path, extent] of written) {
    const parts = partsOf(path);
    const wanted = lookup(transaction.root!, parts);
    const live = lookup(edit.root, parts);
    if (extent === "tree") {
      if (live !== undefined) edit.take(parts);
      if (wanted !== undefined) edit.graft(parts, wanted);
    } else if (wanted !== undefined && wanted.generation !== live?.generation) {
      const place = live ?? { ...wanted, children: undefined };
      const { value, permissions, generation } = wanted;
      edit.place(parts, { ...place, value, permissions, generation });
    }
  }
  edit.changes.push(...transaction.changes.values());
};
