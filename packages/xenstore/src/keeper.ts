import type { Edit } from "./edit.ts";
import { lookup, subtree } from "./node.ts";
import { partsOf } from "./path.ts";
import type { XenstoreErrorName } from "./refusal.ts";

/** What a change leaves at a path; without a value: nothing, and nothing below it. */
export interface KeptChange {
  readonly path: string;
  readonly value: Uint8Array | undefined;
}

/** Keeps what the control domain writes, for a store that outlives this one. */
export interface Keeper {
  /** Nodes that are kept: this one, and those below it. */
  readonly path: string;
  /**
   * Called before a change takes effect and before it is answered, in the order of the changes to be made. A name
   * refuses the change: then nothing of it happens.
   */
  keep(changes: readonly KeptChange[]): XenstoreErrorName | undefined;
}

/** What `keeper` has to know of an edit. Nodes that are made on the way to another are not told. */
export const keptChanges = (edit: Edit, keeper: Keeper): readonly KeptChange[] => {
  const told: KeptChange[] = [];
  for (const { path, implicit, removed } of edit.changes) {
    if (path !== keeper.path && !path.startsWith(`${keeper.path}/`)) continue;
    const node = lookup(edit.root, partsOf(path));
    if (removed || node === undefined) told.push({ path, value: undefined });
    if (node === undefined) continue;
    // What was removed and made again is here as it is now.
    if (removed) for (const [at, { value }] of subtree(node, path)) told.push({ path: at, value });
    else if (!implicit) told.push({ path, value: node.value });
  }
  return told;
};
