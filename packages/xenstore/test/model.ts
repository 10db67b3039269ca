/** The store as plainly as it can be said: a map from paths to nodes, copied for every transaction. */

export interface ModelNode {
  readonly value: string;
  /** As in GET_PERMS: "n0 r7". */
  readonly permissions: string;
  /** Changes with value and permissions. */
  readonly version: number;
}

type Tree = Map<string, ModelNode>;

export type ModelStep =
  | { readonly op: "read" | "list" | "permissions" | "mkdir" | "rm"; readonly path: string }
  | { readonly op: "write"; readonly path: string; readonly value: string }
  | { readonly op: "chmod"; readonly path: string; readonly value: string };

interface ModelTransaction {
  readonly caller: number;
  readonly base: Tree;
  readonly view: Tree;
  readonly depends: { readonly path: string; readonly on: "node" | "list" | "tree" }[];
  readonly log: ModelStep[];
}

interface ModelChange {
  readonly path: string;
  readonly kind: "made" | "implicit" | "permissions" | "removed";
}

export interface ModelWatch {
  readonly caller: number;
  readonly path: string;
  readonly token: string;
}

const OK = "OK\0";
const parentOf = (path: string): string => path.slice(0, Math.max(path.lastIndexOf("/"), 1)) || "/";
const isBelow = (path: string, above: string): boolean =>
  path !== above && (above === "/" || path.startsWith(`${above}/`));
const childrenOf = (tree: Tree, path: string): string[] =>
  [...tree.keys()].filter((other) => other !== "/" && parentOf(other) === path).toSorted();

export class Model {
  live: Tree = new Map();
  readonly watches: ModelWatch[] = [];
  readonly #transactions = new Map<string, ModelTransaction>();
  readonly #nodesMax: number;
  #version = 0;

  constructor(nodesMax: number) {
    this.#nodesMax = nodesMax;
    for (const path of ["/", "/tool", "/tool/xenstored", "/local", "/local/domain"])
      this.#set(this.live, path, "", "n0");
  }

  /** The answer to a step, and the events that it causes, as "domid path token". */
  step(caller: number, step: ModelStep, transaction?: string): { answer: string; events: string[] } {
    const open = transaction === undefined ? undefined : this.#transactions.get(transaction);
    if (transaction !== undefined && open === undefined) return { answer: "!ENOENT", events: [] };
    const before = new Map(this.live);
    const tree = open?.view ?? this.live;
    const spare = new Map(tree);
    const changes: ModelChange[] = [];
    const answer = this.#run(caller, step, tree, changes, open?.depends ?? []);
    if (answer === OK && this.#overQuota(caller, spare, tree, open)) {
      tree.clear();
      for (const [path, node] of spare) tree.set(path, node);
      return { answer: "!ENOSPC", events: [] };
    }
    if (open === undefined) return { answer, events: this.#events(changes, before) };
    if (answer === OK) open.log.push(step);
    return { answer, events: [] };
  }

  begin(caller: number, id: string): void {
    const base = new Map(this.live);
    this.#transactions.set(id, { caller, base, view: new Map(base), depends: [], log: [] });
  }

  abort(id: string): void {
    this.#transactions.delete(id);
  }

  commit(id: string): { answer: string; events: string[] } {
    const open = this.#transactions.get(id)!;
    this.#transactions.delete(id);
    if (open.depends.some(({ path, on }) => this.#differs(open.base, path, on)))
      return { answer: "!EAGAIN", events: [] };
    const before = new Map(this.live);
    const changes: ModelChange[] = [];
    for (const step of open.log) this.#run(open.caller, step, this.live, changes, []);
    if (this.#overQuota(open.caller, before, this.live, undefined)) {
      this.live = before;
      return { answer: "!ENOSPC", events: [] };
    }
    return { answer: OK, events: this.#events(changes, before) };
  }

  #differs(base: Tree, path: string, on: "node" | "list" | "tree"): boolean {
    if (base.get(path)?.version !== this.live.get(path)?.version) return true;
    if (on === "node" || !base.has(path)) return false;
    const below = on === "list" ? [path] : [...this.#lists.keys()].filter((at) => at === path || isBelow(at, path));
    const lists = (tree: Tree): string => below.map((at) => this.#listVersion(tree, at)).join();
    const nodes = (tree: Tree): string =>
      [...tree].flatMap(([at, { version }]) => (on === "tree" && isBelow(at, path) ? [version] : [])).join();
    return lists(base) !== lists(this.live) || nodes(base) !== nodes(this.live);
  }

  /** Counts how often the list of a node changed; kept in a map of its own, by the node's identity. */
  readonly #lists = new Map<string, number>();
  readonly #listSnapshots = new WeakMap<Tree, Map<string, number>>();
  #listVersion(tree: Tree, path: string): number {
    return (tree === this.live ? this.#lists : this.#listSnapshots.get(tree))?.get(path) ?? 0;
  }

  /** Remembers the lists' counts for a tree that was just copied. */
  keepLists(id: string): void {
    this.#listSnapshots.set(this.#transactions.get(id)!.base, new Map(this.#lists));
  }

  #run(
    caller: number,
    step: ModelStep,
    tree: Tree,
    changes: ModelChange[],
    depends: ModelTransaction["depends"],
  ): string {
    const { path } = step;
    const wanted = step.op === "read" || step.op === "list" || step.op === "permissions" ? "r" : "w";
    depends.push({ path, on: step.op === "list" ? "list" : "node" });
    let nearest = path;
    while (!tree.has(nearest)) nearest = parentOf(nearest);
    const node = tree.get(nearest)!;
    if (!this.#may(node.permissions, caller, wanted)) return "!EACCES";
    const exists = nearest === path;
    if (step.op === "write" || step.op === "mkdir") return this.#make(caller, step, tree, nearest, changes, depends);
    if (step.op === "rm" && (!exists || path === "/")) {
      if (exists) return "!EINVAL";
      return tree.has(parentOf(path)) ? OK : "!ENOENT";
    }
    if (!exists) return "!ENOENT";
    if (step.op === "read") return node.value;
    if (step.op === "permissions") return node.permissions;
    if (step.op === "list")
      return childrenOf(tree, path)
        .map((child) => child.slice(child.lastIndexOf("/") + 1))
        .join(" ");
    if (step.op === "chmod") {
      const owner = Number(node.permissions.split(" ")[0]!.slice(1));
      const wantedOwner = Number(step.value.split(" ")[0]!.slice(1));
      if (caller !== 0 && (owner !== caller || wantedOwner !== owner)) return "!EACCES";
      this.#set(tree, path, node.value, step.value);
      changes.push({ path, kind: "permissions" });
      return OK;
    }
    depends.push({ path, on: "tree" });
    for (const other of [...tree.keys()]) if (other === path || isBelow(other, path)) tree.delete(other);
    this.#bumpList(tree, parentOf(path));
    changes.push({ path, kind: "removed" });
    return OK;
  }

  #make(
    caller: number,
    step: ModelStep,
    tree: Tree,
    nearest: string,
    changes: ModelChange[],
    depends: ModelTransaction["depends"],
  ): string {
    const { path } = step;
    const value = step.op === "write" ? step.value : "";
    if (nearest === path) {
      if (step.op === "mkdir") return OK;
      this.#set(tree, path, value, tree.get(path)!.permissions);
      changes.push({ path, kind: "made" });
      return OK;
    }
    const [first, ...rest] = tree.get(nearest)!.permissions.split(" ");
    const permissions = [caller === 0 ? first! : `${first![0]}${caller}`, ...rest].join(" ");
    const missing: string[] = [];
    for (let at = path; at !== nearest; at = parentOf(at)) missing.unshift(at);
    for (const at of [nearest, ...missing]) depends.push({ path: at, on: "node" });
    for (const at of missing) {
      this.#set(tree, at, at === path ? value : "", permissions);
      this.#bumpList(tree, parentOf(at));
      changes.push({ path: at, kind: at === path ? "made" : "implicit" });
    }
    return OK;
  }

  #bumpList(tree: Tree, path: string): void {
    if (tree !== this.live) return;
    this.#version += 1;
    this.#lists.set(path, this.#version);
  }

  #set(tree: Tree, path: string, value: string, permissions: string): void {
    this.#version += 1;
    tree.set(path, { value, permissions, version: this.#version });
  }

  #may(permissions: string, caller: number, wanted: string): boolean {
    const [first, ...rest] = permissions.split(" ");
    if (caller === 0 || Number(first!.slice(1)) === caller) return true;
    const letter = (rest.find((entry) => Number(entry.slice(1)) === caller) ?? first!)[0]!;
    return letter === "b" || letter === wanted;
  }

  #owned(tree: Tree, caller: number): number {
    return [...tree.values()].filter(({ permissions }) => permissions.split(" ")[0]!.slice(1) === String(caller))
      .length;
  }

  #overQuota(caller: number, before: Tree, after: Tree, open: ModelTransaction | undefined): boolean {
    if (caller === 0) return false;
    const added = this.#owned(after, caller) - this.#owned(before, caller);
    const pending = open === undefined ? 0 : this.#owned(before, caller) - this.#owned(open.base, caller);
    const live = open === undefined ? this.#owned(before, caller) : this.#owned(this.live, caller);
    return added > 0 && live + pending + added > this.#nodesMax;
  }

  #events(changes: readonly ModelChange[], before: Tree): string[] {
    const events = new Set<string>();
    for (const change of changes) {
      for (const watch of this.watches) {
        for (const path of this.#heard(change, changes, watch, before)) {
          events.add(`${watch.caller} ${path} ${watch.token}`);
        }
      }
    }
    return [...events].toSorted();
  }

  #heard(change: ModelChange, all: readonly ModelChange[], watch: ModelWatch, before: Tree): string[] {
    const { path } = change;
    const old = before.get(path);
    const now = this.live.get(path);
    if (old === undefined && now === undefined) return [];
    if (change.kind === "removed" && isBelow(watch.path, path)) {
      const gone = before.has(watch.path) && !this.live.has(watch.path);
      return gone && this.#may(before.get(parentOf(watch.path))!.permissions, watch.caller, "r") ? [watch.path] : [];
    }
    if (watch.path !== path && !isBelow(path, watch.path)) return [];
    const same = all.filter((other) => other.path === path);
    if (same.every(({ kind }) => kind === "implicit")) return [];
    const lists = now === undefined ? [] : [now.permissions];
    if (old !== undefined && same.some(({ kind }) => kind === "permissions")) lists.push(old.permissions);
    if (old !== undefined && now === undefined) lists.push(before.get(parentOf(path))!.permissions);
    return lists.some((permissions) => this.#may(permissions, watch.caller, "r")) ? [path] : [];
  }
}
