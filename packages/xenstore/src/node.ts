import { cellsOf, findName, insertName, type NameTree, removeName } from "./name-tree.ts";
import { childPath } from "./path.ts";
import { CLOSED, type Permissions } from "./permissions.ts";

/**
 * A node, never changed: a change makes new nodes from the place up to the root, and whoever holds an old root sees the
 * tree as it was.
 */
export interface StoreNode {
  readonly value: Uint8Array;
  readonly permissions: Permissions;
  readonly children: NameTree<StoreNode>;
  /** When value or permissions were last set; no two settings have the same. */
  readonly generation: number;
  /** When a child last came or went. */
  readonly listGeneration: number;
}

const EMPTY = new Uint8Array(0);

/** A node without value or children. */
export const emptyNode = (permissions: Permissions, generation: number): StoreNode => ({
  value: EMPTY,
  permissions,
  children: undefined,
  generation,
  listGeneration: generation,
});

export const emptyRoot = (): StoreNode => emptyNode(CLOSED, 0);

/** The node, or the last one on the way to it, and how many components lead there. */
export const locate = (
  root: StoreNode,
  parts: readonly string[],
): { readonly nearest: StoreNode; readonly depth: number } => {
  let nearest = root;
  for (let depth = 0; depth < parts.length; depth += 1) {
    const child = findName(nearest.children, parts[depth]!);
    if (child === undefined) return { nearest, depth };
    nearest = child;
  }
  return { nearest, depth: parts.length };
};

/** The node at a path, if there is one. */
export const lookup = (root: StoreNode, parts: readonly string[]): StoreNode | undefined => {
  const { nearest, depth } = locate(root, parts);
  return depth === parts.length ? nearest : undefined;
};

// Copies name every field: spreading an object takes several times as long, and a write makes one copy a level.

const withChildren = (node: StoreNode, children: NameTree<StoreNode>, listGeneration: number): StoreNode => ({
  value: node.value,
  permissions: node.permissions,
  children,
  generation: node.generation,
  listGeneration,
});

/** A node with another content and the same children. */
export const withContent = (
  node: StoreNode,
  { value, permissions, generation }: Pick<StoreNode, "value" | "permissions" | "generation">,
): StoreNode => ({ value, permissions, children: node.children, generation, listGeneration: node.listGeneration });

const ancestors = (root: StoreNode, parts: readonly string[]): StoreNode[] => {
  const chain = [root];
  for (const name of parts.slice(0, -1)) chain.push(findName(chain.at(-1)!.children, name)!);
  return chain;
};

const rebuilt = (chain: readonly StoreNode[], parts: readonly string[], lowest: StoreNode): StoreNode => {
  let node = lowest;
  for (let index = chain.length - 2; index >= 0; index -= 1) {
    const above = chain[index]!;
    node = withChildren(above, insertName(above.children, parts[index]!, node), above.listGeneration);
  }
  return node;
};

/** The tree with `node` at a path whose parent exists. */
export const withNode = (root: StoreNode, parts: readonly string[], node: StoreNode, generation: number): StoreNode => {
  const name = parts.at(-1);
  if (name === undefined) return node;
  const chain = ancestors(root, parts);
  const parent = chain.at(-1)!;
  const isNew = findName(parent.children, name) === undefined;
  const children = insertName(parent.children, name, node);
  return rebuilt(chain, parts, withChildren(parent, children, isNew ? generation : parent.listGeneration));
};

/** The tree without the node at a path, which exists and is not the root. */
export const withoutNode = (root: StoreNode, parts: readonly string[], generation: number): StoreNode => {
  const chain = ancestors(root, parts);
  const parent = chain.at(-1)!;
  const children = removeName(parent.children, parts.at(-1)!);
  return rebuilt(chain, parts, withChildren(parent, children, generation));
};

/** A node and everything below it, parents first. Iterative: paths can be 1500 components deep. */
export function* subtree(top: StoreNode, path: string): Generator<readonly [path: string, node: StoreNode], void> {
  const waiting: (readonly [string, StoreNode])[] = [[path, top]];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    yield next;
    const [above, node] = next;
    for (const { name, value } of cellsOf(node.children)) waiting.push([childPath(above, name), value]);
  }
}
