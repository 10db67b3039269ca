import { type DomainRecord, DomainTable } from "./domain-table.ts";
import { type Cost, Edit, nodeBytes } from "./edit.ts";
import { type Keeper, keptChanges } from "./keeper.ts";
import { emptyRoot, locate, lookup, type StoreNode } from "./node.ts";
import { INTRODUCE_DOMAIN, partsOf, pathOf, RELEASE_DOMAIN } from "./path.ts";
import { CLOSED, inherit, mayAccess, ownsNode, type Permissions } from "./permissions.ts";
import type { Quota } from "./quota.ts";
import { RecentWriters } from "./recent-writers.ts";
import { type Refusal, refuse, refused } from "./refusal.ts";
import {
  DEPENDS_ON_LIST,
  DEPENDS_ON_NODE,
  DEPENDS_ON_TREE,
  mergeInto,
  touchBytes,
  Transaction,
} from "./transaction.ts";
import { dispatch, dispatchSpecial } from "./watch-dispatch.ts";
import { WatchIndex } from "./watch-index.ts";

/** What a commit came to. */
export type CommitResult =
  | { readonly outcome: "committed" }
  | { readonly outcome: "conflict"; readonly culprits: ReadonlySet<number> }
  | { readonly outcome: "refused"; readonly refusal: Refusal };

/** Bytes of replaced nodes after which an unprivileged transaction must let go of its snapshot. */
const SNAPSHOT_BYTES_MAX = 8 * 2 ** 20;

const OK = true;

/**
 * The tree, its watches, and what each domain uses of them. Every operation takes the domain that asks, a canonical path
 * and, inside a transaction, that; it returns its result or a refusal, and a refused operation changed nothing.
 *
 * Source: xenstore.txt, xenstore-paths.pandoc.
 */
export class Store {
  readonly domains: DomainTable;
  readonly watches = new WatchIndex();
  readonly specialWatches = new WatchIndex();
  readonly #specials = new Map<string, Permissions>([
    [INTRODUCE_DOMAIN, CLOSED],
    [RELEASE_DOMAIN, CLOSED],
  ]);
  #root: StoreNode = emptyRoot();
  #generation = 0;
  /** Bytes of nodes that were replaced since the beginning. */
  #replacedBytes = 0;
  /** Open transactions of unprivileged domains, oldest first. */
  readonly #open = new Set<Transaction>();
  readonly #recent = new RecentWriters();
  /** Keeps what the control domain writes; undefined: nobody does. */
  keeper: Keeper | undefined;

  constructor(quota?: Partial<Quota>) {
    this.domains = new DomainTable(quota);
    for (const path of ["/tool/xenstored", "/local/domain"]) this.mkdir(this.domains.control, path);
  }

  /** The tree as it is; it will never change. */
  get root(): StoreNode {
    return this.#root;
  }

  /** Transactions of unprivileged domains that hold a snapshot. */
  get openTransactionCount(): number {
    return this.#open.size;
  }

  readonly #next = (): number => {
    this.#generation += 1;
    return this.#generation;
  };

  /** The value of a node. `EACCES`, `ENOENT`. */
  read(caller: DomainRecord, path: string, transaction?: Transaction): Uint8Array | Refusal {
    const node = this.#reach(caller, path, "r", DEPENDS_ON_NODE, transaction);
    return refused(node) ? node : node.value;
  }

  /** A node whose children are wanted. `EACCES`, `ENOENT`. */
  list(caller: DomainRecord, path: string, transaction?: Transaction): StoreNode | Refusal {
    return this.#reach(caller, path, "r", DEPENDS_ON_NODE | DEPENDS_ON_LIST, transaction);
  }

  /** The permissions of a node or special path. `EACCES`, `ENOENT`. */
  permissions(caller: DomainRecord, path: string, transaction?: Transaction): Permissions | Refusal {
    const special = this.#specials.get(path);
    if (special !== undefined) return mayAccess(special, caller, "r") ? special : refuse("EACCES");
    const node = this.#reach(caller, path, "r", DEPENDS_ON_NODE, transaction);
    return refused(node) ? node : node.permissions;
  }

  /** Sets a value; makes the node and its parents. `EACCES`, `ENOSPC`. */
  write(caller: DomainRecord, path: string, value: Uint8Array, transaction?: Transaction): true | Refusal {
    if (value.length > this.domains.limit(caller, "node-size")) return refuse("ENOSPC");
    return this.#put(caller, path, value, transaction);
  }

  /** Makes a node and its parents; one that exists stays as it is. `EACCES`, `ENOSPC`. */
  mkdir(caller: DomainRecord, path: string, transaction?: Transaction): true | Refusal {
    return this.#put(caller, path, undefined, transaction);
  }

  /** Removes a node and all below it. `EACCES`; `ENOENT` if its parent is missing too; `EINVAL` for the root. */
  remove(caller: DomainRecord, path: string, transaction?: Transaction): true | Refusal {
    const parts = partsOf(path);
    const node = this.#reach(caller, path, "w", DEPENDS_ON_NODE, transaction);
    if (refused(node)) {
      if (node.error !== "ENOENT") return node;
      return lookup(this.#rootOf(transaction)!, parts.slice(0, -1)) === undefined ? node : OK;
    }
    if (parts.length === 0) return refuse("EINVAL");
    if (transaction !== undefined) {
      const touched = this.#touch(caller, transaction, path, DEPENDS_ON_TREE);
      if (refused(touched)) return touched;
    }
    const edit = this.#edit(transaction);
    edit.remove(parts);
    return this.#finish(edit, caller, transaction);
  }

  /** Replaces the permissions of a node or special path. Only the control domain changes an owner. `EACCES`, `ENOENT`, `ENOSPC`. */
  setPermissions(caller: DomainRecord, path: string, wanted: Permissions, transaction?: Transaction): true | Refusal {
    if (wanted.length > this.domains.limit(caller, "node-permissions")) return refuse("ENOSPC");
    if (this.#specials.has(path)) {
      if (!caller.privileged) return refuse("EACCES");
      this.#specials.set(path, wanted);
      return OK;
    }
    const node = this.#reach(caller, path, "w", DEPENDS_ON_NODE, transaction);
    if (refused(node)) return node;
    const [owner] = node.permissions;
    const keepsOwner = owner.domid === wanted[0].domid && owner.incarnation === wanted[0].incarnation;
    if (!ownsNode(node.permissions, caller) || !(caller.privileged || keepsOwner)) return refuse("EACCES");
    const edit = this.#edit(transaction);
    edit.setPermissions(partsOf(path), node, wanted);
    return this.#finish(edit, caller, transaction);
  }

  /** Opens a transaction. `ENOSPC` when the domain has too many. */
  begin(caller: DomainRecord): Transaction | Refusal {
    if (caller.transactionCount >= this.domains.limit(caller, "transactions")) return refuse("ENOSPC");
    const start = { generation: this.#generation, replacedBytes: this.#replacedBytes };
    const transaction = new Transaction(caller, this.#root, start);
    caller.transactionCount += 1;
    if (!caller.privileged) this.#open.add(transaction);
    return transaction;
  }

  /** Ends a transaction without effect. */
  abort(transaction: Transaction): void {
    transaction.owner.transactionCount -= 1;
    this.#open.delete(transaction);
    transaction.doom();
  }

  /** Ends a transaction, with all of its effects or none; only then watches hear of them. */
  commit(transaction: Transaction): CommitResult {
    const { owner } = transaction;
    const conflict = transaction.conflict(this.#root);
    if (conflict !== undefined) {
      const lostSnapshot = transaction.base === undefined;
      const culprits = lostSnapshot ? new Set<number>() : this.#recent.writersOf(conflict, transaction.startGeneration);
      culprits.delete(owner.domid);
      this.abort(transaction);
      return { outcome: "conflict", culprits };
    }
    const edit = this.#edit(undefined);
    mergeInto(edit, transaction);
    this.abort(transaction);
    const refusal = this.#afford(edit.costs(this.domains), owner) ?? this.#keep(edit, owner);
    if (refusal !== undefined) return { outcome: "refused", refusal };
    this.#apply(edit, owner);
    return { outcome: "committed" };
  }

  /** Fires a special path. */
  fireSpecial(name: string, domid: number): void {
    dispatchSpecial(this.specialWatches, name, this.#specials.get(name) ?? CLOSED, domid);
  }

  /** Forgets a domain: its nodes go, and permissions that name it name nobody. */
  forget(record: DomainRecord): void {
    const edit = this.#edit(undefined);
    for (const path of [...record.nodes].toSorted((left, right) => left.length - right.length)) {
      const parts = partsOf(path);
      if (lookup(edit.root, parts) !== undefined && parts.length > 0) edit.remove(parts);
    }
    // It is gone, whether that can be kept or not.
    this.#keep(edit, this.domains.control);
    this.#apply(edit, this.domains.control);
    this.domains.remove(record);
  }

  #rootOf(transaction: Transaction | undefined): StoreNode | undefined {
    return transaction === undefined ? this.#root : transaction.root;
  }

  /** A new edit of the transaction's tree, which is not doomed, or of the live one. */
  #edit(transaction: Transaction | undefined): Edit {
    return new Edit(this.#rootOf(transaction)!, this.#next);
  }

  #touch(caller: DomainRecord, transaction: Transaction, path: string, depends: number): true | Refusal {
    if (transaction.root === undefined) return refuse("EAGAIN");
    const room = this.domains.limit(caller, "memory") - caller.memoryBytes;
    const known = transaction.touched.has(path);
    if (!known && touchBytes(path) > room) return refuse("ENOSPC");
    return transaction.touch(path, depends, this.domains.limit(caller, "transaction-nodes")) || refuse("ENOSPC");
  }

  /** The node, if the caller may use it; whether one that is missing is missing is told to those who may use its parent. */
  #reach(
    caller: DomainRecord,
    path: string,
    wanted: "r" | "w",
    depends: number,
    transaction: Transaction | undefined,
  ): StoreNode | Refusal {
    if (transaction !== undefined) {
      const touched = this.#touch(caller, transaction, path, depends);
      if (refused(touched)) return touched;
    }
    const parts = partsOf(path);
    const { nearest, depth } = locate(this.#rootOf(transaction)!, parts);
    if (!mayAccess(nearest.permissions, caller, wanted)) return refuse("EACCES");
    return depth === parts.length ? nearest : refuse("ENOENT");
  }

  #put(
    caller: DomainRecord,
    path: string,
    value: Uint8Array | undefined,
    transaction: Transaction | undefined,
  ): true | Refusal {
    const parts = partsOf(path);
    const node = this.#reach(caller, path, "w", DEPENDS_ON_NODE, transaction);
    if (refused(node)) return node.error === "ENOENT" ? this.#create(caller, parts, value, transaction) : node;
    if (value === undefined) return OK;
    const edit = this.#edit(transaction);
    edit.setValue(parts, node, value);
    return this.#finish(edit, caller, transaction);
  }

  #create(
    caller: DomainRecord,
    parts: readonly string[],
    value: Uint8Array | undefined,
    transaction: Transaction | undefined,
  ): true | Refusal {
    const edit = this.#edit(transaction);
    const { nearest, depth } = locate(edit.root, parts);
    const listed = inherit(nearest.permissions, caller, this.domains.isLive).length;
    if (listed > this.domains.limit(caller, "node-permissions")) return refuse("ENOSPC");
    if (transaction !== undefined) {
      for (let length = depth; length < parts.length; length += 1) {
        const touched = this.#touch(caller, transaction, pathOf(parts, length), DEPENDS_ON_NODE);
        if (refused(touched)) return touched;
      }
    }
    edit.create(parts, { parent: nearest, depth }, { creator: caller, domains: this.domains }, value);
    return this.#finish(edit, caller, transaction);
  }

  #finish(edit: Edit, caller: DomainRecord, transaction: Transaction | undefined): true | Refusal {
    const costs = edit.costs(this.domains);
    const refusal = this.#afford(costs, caller, transaction);
    if (refusal !== undefined) return refusal;
    if (transaction !== undefined) {
      transaction.absorb(edit);
      transaction.addCosts(costs);
      return OK;
    }
    const unkept = this.#keep(edit, caller);
    if (unkept !== undefined) return unkept;
    this.#apply(edit, caller);
    return OK;
  }

  /** Has what the control domain writes kept. Guests may not make it write to a disk. */
  #keep(edit: Edit, writer: DomainRecord): Refusal | undefined {
    if (this.keeper === undefined || !writer.privileged) return undefined;
    const changes = keptChanges(edit, this.keeper);
    const error = changes.length === 0 ? undefined : this.keeper.keep(changes);
    return error === undefined ? undefined : refuse(error);
  }

  /** Whether every owner has room for what an unprivileged caller adds. Checked before anything is kept. */
  #afford(
    costs: ReadonlyMap<DomainRecord, Cost>,
    caller: DomainRecord,
    transaction?: Transaction,
  ): Refusal | undefined {
    if (caller.privileged) return undefined;
    for (const [owner, { nodes, bytes }] of costs) {
      const pending = transaction?.costs.get(owner) ?? { nodes: 0, bytes: 0 };
      const nodesAfter = owner.nodes.size + pending.nodes + nodes;
      if (nodes > 0 && nodesAfter > this.domains.limit(owner, "nodes")) return refuse("ENOSPC");
      const bytesAfter = owner.memoryBytes + (transaction === undefined ? 0 : pending.bytes) + bytes;
      if (bytes > 0 && bytesAfter > this.domains.limit(owner, "memory")) return refuse("ENOSPC");
    }
    return undefined;
  }

  #apply(edit: Edit, writer: DomainRecord): void {
    for (const { path, before, after } of edit.replaced) {
      if (before !== undefined) this.#disown(path, before);
      if (after !== undefined) this.#own(path, after);
    }
    this.#root = edit.root;
    this.#recent.note(edit.changes, writer.domid, this.#generation);
    this.#letGoOfOldSnapshots();
    dispatch(this.watches, edit.changes, { before: edit.before, after: edit.root });
  }

  #own(path: string, node: StoreNode): void {
    const owner = this.domains.live(node.permissions[0]);
    if (owner === undefined || owner.privileged) return;
    owner.nodes.add(path);
    owner.nodeBytes += nodeBytes(path, node);
  }

  #disown(path: string, node: StoreNode): void {
    const bytes = nodeBytes(path, node);
    this.#replacedBytes += bytes;
    const owner = this.domains.live(node.permissions[0]);
    if (owner === undefined || owner.privileged) return;
    owner.nodes.delete(path);
    owner.nodeBytes -= bytes;
  }

  /** A snapshot keeps alive what was replaced since; nobody may keep more than a fixed amount. */
  #letGoOfOldSnapshots(): void {
    for (const transaction of this.#open) {
      if (this.#replacedBytes - transaction.startReplacedBytes <= SNAPSHOT_BYTES_MAX) return;
      this.#open.delete(transaction);
      transaction.doom();
    }
  }
}
