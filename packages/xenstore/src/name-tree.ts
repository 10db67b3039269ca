/**
 * A persistent map from names to values: a balanced search tree of frozen cells. An update copies the path to the cell
 * and shares the rest, so that a snapshot is one reference and a change costs O(log n) whatever shares the map.
 * `undefined` is the empty map. `listBytes` adds up the names with a terminator each, as DIRECTORY counts them.
 */
export interface NameCell<V> {
  readonly name: string;
  readonly value: V;
  readonly left: NameTree<V>;
  readonly right: NameTree<V>;
  readonly height: number;
  readonly count: number;
  readonly listBytes: number;
}

export type NameTree<V> = NameCell<V> | undefined;

export const countNames = <V>(tree: NameTree<V>): number => tree?.count ?? 0;

/** Bytes of all names, each with its terminator. */
export const listBytes = <V>(tree: NameTree<V>): number => tree?.listBytes ?? 0;

export const findName = <V>(tree: NameTree<V>, name: string): V | undefined => {
  let cell = tree;
  while (cell !== undefined && cell.name !== name) cell = name < cell.name ? cell.left : cell.right;
  return cell?.value;
};

/** The map with `name` standing for `value`. */
export const insertName = <V>(tree: NameTree<V>, name: string, value: V): NameCell<V> => {
  if (tree === undefined) return cell(name, value, undefined, undefined);
  if (name === tree.name) return cell(name, value, tree.left, tree.right);
  if (name < tree.name) return balanced(tree, insertName(tree.left, name, value), tree.right);
  return balanced(tree, tree.left, insertName(tree.right, name, value));
};

/** The map without `name`. */
export const removeName = <V>(tree: NameTree<V>, name: string): NameTree<V> => {
  if (tree === undefined) return undefined;
  if (name < tree.name) return balanced(tree, removeName(tree.left, name), tree.right);
  if (name > tree.name) return balanced(tree, tree.left, removeName(tree.right, name));
  if (tree.left === undefined) return tree.right;
  if (tree.right === undefined) return tree.left;
  const next = first(tree.right);
  return balanced(next, tree.left, removeName(tree.right, next.name));
};

/** Cells in the order of their names. */
export function* cellsOf<V>(tree: NameTree<V>): Generator<NameCell<V>, void> {
  const above: NameCell<V>[] = [];
  let at = tree;
  while (at !== undefined || above.length > 0) {
    for (; at !== undefined; at = at.left) above.push(at);
    const next = above.pop()!;
    yield next;
    at = next.right;
  }
}

/** Names from byte `offset` of the list on, as many whole ones as fit into `bytesMax`; `last` when none is left. */
export const sliceNames = <V>(
  tree: NameTree<V>,
  offset: number,
  bytesMax: number,
): { readonly names: string[]; readonly last: boolean } => {
  const names: string[] = [];
  const above: NameCell<V>[] = [];
  let skip = offset;
  for (let at = tree; at !== undefined;) {
    const before = listBytes(at.left);
    if (skip <= before) above.push(at);
    if (skip < before) at = at.left;
    else if (skip === before) break;
    else [skip, at] = [skip - before - at.name.length - 1, skip > before + at.name.length ? at.right : undefined];
  }
  let left = bytesMax;
  while (above.length > 0) {
    const next = above.pop()!;
    left -= next.name.length + 1;
    if (left < 0) return { names, last: false };
    names.push(next.name);
    for (let at = next.right; at !== undefined; at = at.left) above.push(at);
  }
  return { names, last: true };
};

const first = <V>(tree: NameCell<V>): NameCell<V> => {
  let at = tree;
  while (at.left !== undefined) at = at.left;
  return at;
};

const heightOf = <V>(tree: NameTree<V>): number => tree?.height ?? 0;

const cell = <V>(name: string, value: V, left: NameTree<V>, right: NameTree<V>): NameCell<V> => ({
  name,
  value,
  left,
  right,
  height: 1 + Math.max(heightOf(left), heightOf(right)),
  count: 1 + countNames(left) + countNames(right),
  listBytes: name.length + 1 + listBytes(left) + listBytes(right),
});

const balanced = <V>({ name, value }: NameCell<V>, left: NameTree<V>, right: NameTree<V>): NameCell<V> => {
  const lean = heightOf(left) - heightOf(right);
  if (lean > 1) return leanLeft(name, value, left!, right);
  if (lean < -1) return leanRight(name, value, left, right!);
  return cell(name, value, left, right);
};

const leanLeft = <V>(name: string, value: V, left: NameCell<V>, right: NameTree<V>): NameCell<V> => {
  if (heightOf(left.left) >= heightOf(left.right)) {
    return cell(left.name, left.value, left.left, cell(name, value, left.right, right));
  }
  const top = left.right!;
  const lower = cell(left.name, left.value, left.left, top.left);
  return cell(top.name, top.value, lower, cell(name, value, top.right, right));
};

const leanRight = <V>(name: string, value: V, left: NameTree<V>, right: NameCell<V>): NameCell<V> => {
  if (heightOf(right.right) >= heightOf(right.left)) {
    return cell(right.name, right.value, cell(name, value, left, right.left), right.right);
  }
  const top = right.left!;
  const upper = cell(right.name, right.value, top.right, right.right);
  return cell(top.name, top.value, cell(name, value, left, top.left), upper);
};
