/** What the macros of a command line stand for. Texts are byte strings. */
export interface MacroValues {
  readonly operation: string;
  readonly key: string;
  readonly type: string;
  readonly description: string;
  readonly callout: string;
  readonly uid: string;
  readonly gid: string;
  readonly threadRing: string;
  readonly processRing: string;
  readonly sessionRing: string;
}

/** An argument of a command, understood. */
export type Argument =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "value"; readonly name: keyof MacroValues }
  | { readonly kind: "key"; readonly type: string; readonly description: string };

const letters: Readonly<Record<string, keyof MacroValues>> = {
  o: "operation",
  k: "key",
  t: "type",
  d: "description",
  c: "callout",
  u: "uid",
  g: "gid",
  T: "threadRing",
  P: "processRing",
  S: "sessionRing",
};

/**
 * Understands an argument: a macro must be all of it. A string is the reason why it is malformed, in the words that
 * request-key(8) has for it.
 */
export const parseArgument = (word: string): Argument | string => {
  if (!word.startsWith("%")) return { kind: "text", text: word };
  if (word === "%") return "Missing macro name";
  if (word.startsWith("%%")) return { kind: "text", text: word.slice(1) };
  if (word.startsWith("%{")) return parseKeyMacro(word);
  if (word.length > 2) return { kind: "text", text: word };
  const name = letters[word[1]!];
  return name === undefined || !Object.hasOwn(letters, word[1]!) ? "Unsupported macro" : { kind: "value", name };
};

/** %{type:description} */
const parseKeyMacro = (word: string): Argument | string => {
  const end = word.indexOf("}");
  if (end < 0) return "Unterminated keysub macro";
  if (end !== word.length - 1) return "Keysub macro has trailing rubbish";
  const inside = word.slice(2, end);
  const colon = inside.indexOf(":");
  if (colon < 0) return "Keysub macro lacks ':'";
  const type = inside.slice(0, colon);
  const description = inside.slice(colon + 1);
  if (type === "") return "Keysub type empty";
  return description === "" ? "Keysub description empty" : { kind: "key", type, description };
};
