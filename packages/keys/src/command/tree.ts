import { type Context, fetch, mustCall, serialsIn } from "./context.ts";
import { describeText } from "./description.ts";

/** Deeper keyrings are not visited. */
const DEPTH_MAX = 800;

/** A link that a walk came across. */
export interface Visited {
  readonly id: number;
  /** The keyring that holds the link; 0 for the session keyring itself. */
  readonly parent: number;
  /** "type;uid;gid;permissions;description", or the negated error number with which the key cannot be described. */
  readonly text: string | number;
}

/** Walks everything below the session keyring, the content of a keyring before the keyring itself. */
export async function* sessionTree(context: Context): AsyncGenerator<Visited> {
  const root = await mustCall(context, "keyctl_get_keyring_ID", "getKeyringId", [-3, 0]);
  yield* walk(context, { id: root, parent: 0 }, 0);
}

async function* walk(
  context: Context,
  { id, parent }: { readonly id: number; readonly parent: number },
  depth: number,
): AsyncGenerator<Visited> {
  const text = await describeText(context, id);
  if (typeof text === "string" && text.startsWith("keyring;") && depth < DEPTH_MAX) {
    const content = await fetch(context, "read", id);
    const children = typeof content === "number" ? [] : serialsIn(content);
    for (const child of children) yield* walk(context, { id: child, parent: id }, depth + 1);
  }
  yield { id, parent, text };
}
