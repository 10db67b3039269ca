import { setTimeout as delay } from "node:timers/promises";
import { expect } from "./add-commands.ts";
import { type Context, mustRead, print, type Run, serialsIn, tryCall } from "./context.ts";
import { asValue, describeText, inaccessible, nameOf, ownMask, parseDescription } from "./description.ts";
import { keyOf } from "./operands.ts";
import { refusedBy } from "./refusal.ts";

const SESSION = -3;
/** Keys whose lines would be indented further are not shown. */
const INDENT_MAX = 32;
const REFRESH_MS = 1000;
const CLEAR_SCREEN = "\u001b[H\u001b[2J";

interface Tree {
  readonly id: number;
  readonly value: object;
  readonly children: Tree[];
}

/** The state of one drawing: the margin is shared by all lines, as the lines below a key continue it. */
interface Drawing {
  readonly context: Context;
  readonly isHex: boolean;
  readonly margin: string[];
  readonly write: (line: string) => void;
}

interface Place {
  readonly id: number;
  readonly depth: number;
  readonly hasLaterSiblings: boolean;
}

const drawKey = async (drawing: Drawing, { id, depth, hasLaterSiblings }: Place): Promise<Tree | undefined> => {
  if (depth > INDENT_MAX) return undefined;
  const { context, margin, write } = drawing;
  const text = await describeText(context, id);
  if (typeof text === "number") {
    write(`${id}: ${inaccessible(text)}\n`);
    return { id, value: { serial: id, errno: -text }, children: [] };
  }
  const description = parseDescription(text);
  const serial = drawing.isHex ? `0x${id.toString(16).padStart(8, "0")}` : String(id).padStart(10);
  const ids = `${String(description.uid).padStart(5)} ${String(description.gid).padStart(5)}`;
  const indent = depth === 0 ? "" : `${margin.slice(0, depth).join("")}\\_ `;
  write(`${serial} ${ownMask(description)}  ${ids}  ${indent}${nameOf(description)}\n`);
  const tree: Tree = { id, value: asValue(id, description), children: [] };
  if (description.type !== "keyring") return tree;
  const serials = serialsIn(await mustRead(context, id));
  const width = depth === 0 ? 1 : 4;
  for (let at = 0; at < width; at += 1) margin[depth + at] = " ";
  if (hasLaterSiblings) margin[depth] = "|";
  for (const [at, child] of serials.entries()) {
    const place = { id: child, depth: depth + width, hasLaterSiblings: at < serials.length - 1 };
    const below = await drawKey(drawing, place);
    if (below !== undefined) tree.children.push(below);
  }
  return tree;
};

const valueOf = ({ value, children }: Tree): object =>
  children.length === 0 ? value : { ...value, keys: children.map(valueOf) };

/** Draws once: line by line where it goes to the terminal, so that an error comes after what it could show. */
const draw = async (
  context: Context,
  key: string | undefined,
  isHex: boolean,
  write: (line: string) => void,
): Promise<Tree> => {
  const named = key === undefined ? SESSION : await keyOf(context, key);
  write(key === undefined ? "Session Keyring\n" : "Keyring\n");
  const id = await tryCall(context, "getKeyringId", [named, 0]);
  if (id < 0) throw refusedBy("Unable to dump key", id);
  const tree = await drawKey({ context, isHex, margin: [], write }, { id, depth: 0, hasLaterSiblings: false });
  return tree!;
};

/** Draws again whenever the tree has changed, until the program is interrupted. */
const watch = async (context: Context, key: string | undefined, isHex: boolean): Promise<never> => {
  let shown: string | undefined;
  for (;;) {
    let text = "";
    await draw(context, key, isHex, (line) => {
      text += line;
    });
    if (text !== shown) context.terminal.out(`${process.stdout.isTTY ? CLEAR_SCREEN : ""}${text}\n`);
    shown = text;
    await delay(REFRESH_MS);
  }
};

/** `show [-x] [keyring]`, and with `--watch` a tree that is drawn again when it changes. */
export const show: Run = async (context, words) => {
  const isWatched = words.includes("--watch");
  const given = isWatched ? words.filter((word) => word !== "--watch") : words;
  const isHex = given[0] === "-x";
  const [key] = expect(isHex ? given.slice(1) : given, 0, 1);
  if (isWatched) return await watch(context, key, isHex);
  const tree = await draw(context, key, isHex, context.json ? () => {} : (line) => context.terminal.out(line));
  if (context.json) print(context, "", valueOf(tree));
  return 0;
};
