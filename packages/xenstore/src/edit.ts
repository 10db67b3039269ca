import type { DomainRecord, DomainTable } from "./domain-table.ts";
import { emptyNode, lookup, type StoreNode, subtree, withContent, withNode, withoutNode } from "./node.ts";
import { pathOf } from "./path.ts";
import { inherit, type Permissions } from "./permissions.ts";
import type { Change } from "./watch-dispatch.ts";

/** One node before and after an edit. */
export interface Replaced {
  readonly path: string;
  readonly before: StoreNode | undefined;
  readonly after: StoreNode | undefined;
}

/** Nodes and bytes that an edit adds to what one domain uses. */
export interface Cost {
  nodes: number;
  bytes: number;
}

const NODE_BYTES = 96;
const PERMISSION_BYTES = 32;

/** What a node costs its owner. */
export const nodeBytes = (path: string, node: StoreNode): number =>
  NODE_BYTES + path.length + node.value.length + PERMISSION_BYTES * node.permissions.length;

/** The next generation count. */
export type Clockwork = () => number;

/**
 * Changes being prepared: a new root, which nodes it replaces and what watches hear. Nothing is changed until the store
 * adopts it, and then everything is.
 */
export class Edit {
  readonly before: StoreNode;
  root: StoreNode;
  readonly replaced: Replaced[] = [];
  readonly changes: Change[] = [];
  readonly #next: Clockwork;

  constructor(root: StoreNode, next: Clockwork) {
    this.before = root;
    this.root = root;
    this.#next = next;
  }

  /** Gives a node that exists another value. */
  setValue(parts: readonly string[], node: StoreNode, value: Uint8Array): void {
    const { permissions } = node;
    this.place(parts, withContent(node, { value, permissions, generation: this.#next() }));
    this.#note(pathOf(parts), {});
  }

  /** Gives a node that exists other permissions. */
  setPermissions(parts: readonly string[], node: StoreNode, permissions: Permissions): void {
    const { value } = node;
    this.place(parts, withContent(node, { value, permissions, generation: this.#next() }));
    this.#note(pathOf(parts), { permissions: true });
  }

  /** Makes a node and those that are missing on the way from `parent`, which is `depth` components deep. */
  create(
    parts: readonly string[],
    from: { readonly parent: StoreNode; readonly depth: number },
    by: { readonly creator: DomainRecord; readonly domains: DomainTable },
    value: Uint8Array | undefined,
  ): void {
    let { permissions } = from.parent;
    for (let depth = from.depth + 1; depth <= parts.length; depth += 1) {
      permissions = inherit(permissions, by.creator, by.domains.isLive);
      const empty = emptyNode(permissions, this.#next());
      const isLast = depth === parts.length;
      this.place(parts.slice(0, depth), isLast && value !== undefined ? { ...empty, value } : empty);
      this.#note(pathOf(parts, depth), { implicit: !isLast });
    }
  }

  /** Removes a node that exists and is not the root, and all below it. */
  remove(parts: readonly string[]): void {
    this.take(parts);
    this.#note(pathOf(parts), { removed: true });
  }

  /** Puts a node at a path, in place of what is there, without telling watches. Its children are not looked at. */
  place(parts: readonly string[], node: StoreNode): void {
    this.replaced.push({ path: pathOf(parts), before: lookup(this.root, parts), after: node });
    this.root = withNode(this.root, parts, node, this.#next());
  }

  /** Takes a node away with all below it, without telling watches. */
  take(parts: readonly string[]): void {
    const top = lookup(this.root, parts)!;
    for (const [path, before] of subtree(top, pathOf(parts))) this.replaced.push({ path, before, after: undefined });
    this.root = withoutNode(this.root, parts, this.#next());
  }

  /** Puts a node with all below it where nothing is, without telling watches. */
  graft(parts: readonly string[], top: StoreNode): void {
    for (const [path, after] of subtree(top, pathOf(parts))) this.replaced.push({ path, before: undefined, after });
    this.root = withNode(this.root, parts, top, this.#next());
  }

  /** What the edit adds to each domain that owns something in it. */
  costs(domains: DomainTable): Map<DomainRecord, Cost> {
    const costs = new Map<DomainRecord, Cost>();
    const add = (path: string, node: StoreNode | undefined, sign: 1 | -1): void => {
      const owner = node === undefined ? undefined : domains.live(node.permissions[0]);
      if (node === undefined || owner === undefined || owner.privileged) return;
      const cost = costs.get(owner) ?? { nodes: 0, bytes: 0 };
      cost.nodes += sign;
      cost.bytes += sign * nodeBytes(path, node);
      costs.set(owner, cost);
    };
    for (const { path, before, after } of this.replaced) {
      add(path, before, -1);
      add(path, after, 1);
    }
    return costs;
  }

  #note(path: string, { implicit = false, permissions = false, removed = false }: Partial<Change>): void {
    this.changes.push({ path, implicit, permissions, removed });
  }
}
