import { expect } from "./add-commands.ts";
import { bytesOf, type Context, done, mustCall, print, type Run, tryCall } from "./context.ts";
import { errorText } from "../error-text.ts";
import { keyOf } from "./operands.ts";
import { UsageError } from "./refusal.ts";
import { sessionTree } from "./tree.ts";

const EACCES = 13;

/** `unlink key [keyring]`: without a keyring, from every keyring of the session. */
export const unlink: Run = async (context, words) => {
  const [key = "", ring] = expect(words, 1, 2);
  const id = await keyOf(context, key);
  if (ring !== undefined) {
    await mustCall(context, "keyctl_unlink", "unlink", [id, await keyOf(context, ring)]);
    return done(context);
  }
  let count = 0;
  for await (const visited of sessionTree(context)) {
    if (visited.id !== id || visited.parent === 0) continue;
    if ((await tryCall(context, "unlink", [id, visited.parent])) >= 0) count += 1;
  }
  print(context, `${count} links removed\n`, { removed: count });
  return 0;
};

/** `reap [-v]`: removes links to keys that can never be used again. */
export const reap: Run = async (context, words) => {
  const [flag] = expect(words, 0, 1);
  if (flag !== undefined && flag !== "-v") throw new UsageError("unknown option");
  const tell = (text: string): void => {
    if (flag !== undefined && !context.json) context.terminal.out(text);
  };
  let count = 0;
  for await (const { id, parent, text } of sessionTree(context)) {
    if (typeof text === "string" || text === -EACCES || parent === 0) continue;
    const result = await tryCall(context, "unlink", [id, parent]);
    tell(result < 0 ? `Reap ${id}... failed ${errorText(result)}\n` : `Reap ${id}\n`);
    if (result >= 0) count += 1;
  }
  print(context, `${count} keys reaped\n`, { reaped: count });
  return 0;
};

/** `purge type`, `purge [-p] [-i] type description`, `purge -s type description` */
export const purge: Run = async (context, words) => {
  const flags = new Set<string>();
  let rest = words;
  while (rest[0] !== undefined && /^-[psi]$/.test(rest[0])) {
    flags.add(rest[0]);
    rest = rest.slice(1);
  }
  const bySearch = flags.has("-s");
  if (rest[0]?.startsWith("-") === true || (bySearch && flags.size > 1)) throw new UsageError("unknown options");
  const [type = "", description] = expect(rest, flags.size > 0 ? 2 : 1, 2);
  let count: number;
  if (description === undefined) count = await purgeWhere(context, (text) => typeIs(text, type));
  else if (bySearch) count = await purgeBySearch(context, type, description);
  else {
    const matches = matcher(description, { isPrefix: flags.has("-p"), isBlind: flags.has("-i") });
    count = await purgeWhere(context, (text) => typeIs(text, type) && matches(lastField(text)), true);
  }
  print(context, `purged ${count} keys\n`, { purged: count });
  return 0;
};

const typeIs = (text: string, type: string): boolean => text.startsWith(`${type};`);
const lastField = (text: string): string => text.slice(text.lastIndexOf(";") + 1);

/** Only the letters of ASCII have two cases here, as in the C locale. */
const folded = (text: string): string => text.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());

const matcher = (
  wanted: string,
  { isPrefix, isBlind }: { readonly isPrefix: boolean; readonly isBlind: boolean },
): ((description: string) => boolean) => {
  const fold = isBlind ? folded : (text: string): string => text;
  return isPrefix
    ? (description) => fold(description).startsWith(fold(wanted))
    : (description) => fold(description) === fold(wanted);
};

const purgeWhere = async (context: Context, matches: (text: string) => boolean, isTold = false): Promise<number> => {
  let count = 0;
  for await (const { id, parent, text } of sessionTree(context)) {
    if (typeof text === "number" || parent === 0 || !matches(text)) continue;
    const result = await tryCall(context, "unlink", [id, parent]);
    if (result < 0) continue;
    count += 1;
    if (isTold && !context.json) context.terminal.out(`${text.slice(0, text.indexOf(";"))} '${lastField(text)}'\n`);
  }
  return count;
};

/** Has the daemon look in each keyring, for types that compare in a way of their own. */
const purgeBySearch = async (context: Context, type: string, description: string): Promise<number> => {
  let count = 0;
  for await (const { id: ring, text } of sessionTree(context)) {
    if (typeof text === "number" || !typeIs(text, "keyring")) continue;
    for (;;) {
      const found = await tryCall(context, "search", [ring, bytesOf(type), bytesOf(description), 0]);
      if (found < 0 || (await tryCall(context, "unlink", [found, ring])) < 0) break;
      count += 1;
    }
  }
  return count;
};
