import { bytesOf, call, type Context, fetch, tryCall } from "./context.ts";
import { EXIT_REFUSED, mistake, Refusal } from "./refusal.ts";
import { INPUT_BYTES_MAX } from "./terminal.ts";

const specials: Readonly<Record<string, number>> = {
  "@t": -1,
  "@p": -2,
  "@s": -3,
  "@u": -4,
  "@us": -5,
  "@g": -6,
  "@a": -7,
};

/** strtoul(3): blanks, a sign, digits of the base. Base 0 means 0x.. hexadecimal, 0.. octal, else decimal. */
const NUMBER: Readonly<Record<0 | 10, RegExp>> = {
  0: /^[\t-\r ]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/,
  10: /^[\t-\r ]*([+-]?)([0-9]+)$/,
};
const UNSIGNED_LONG_MAX = 2n ** 64n - 1n;

/** The 32 low bits of a number as the C library reads it; an empty text is 0. Undefined where something is left over. */
export const parseNumber = (text: string, base: 0 | 10): number | undefined => {
  if (text === "") return 0;
  const match = NUMBER[base].exec(text);
  if (match === null) return undefined;
  const [, sign, digits = ""] = match;
  const isOctal = base === 0 && /^0[0-7]+$/.test(digits);
  const read = BigInt(isOctal ? `0o${digits.slice(1)}` : digits);
  const value = read > UNSIGNED_LONG_MAX ? UNSIGNED_LONG_MAX : sign === "-" ? -read : read;
  return Number(BigInt.asUintN(32, value));
};

const unsigned = (text: string, base: 0 | 10, what: string): number => {
  const value = parseNumber(text, base);
  if (value === undefined) throw mistake(`Unparsable ${what}: '${text}'`);
  return value;
};

/** Seconds. */
export const timeoutOf = (text: string): number => unsigned(text, 10, "timeout");
/** A user id. */
export const uidOf = (text: string): number => unsigned(text, 0, "uid");
/** A group id. */
export const gidOf = (text: string): number => unsigned(text, 0, "gid");
/** A permission mask. */
export const maskOf = (text: string): number => unsigned(text, 0, "permissions");

const errors: Readonly<Record<string, number>> = { rejected: 129, revoked: 128, expired: 127 };

/** An error number, or the name of one that keys are often rejected with. */
export const errorOf = (text: string): number =>
  Object.hasOwn(errors, text) ? errors[text]! : unsigned(text, 0, "error");

/** A key: a number, the name of one of the caller's keyrings, or %type:description. */
export const keyOf = async (context: Context, text: string): Promise<number> => {
  if (text.startsWith("@")) {
    if (!Object.hasOwn(specials, text)) throw mistake(`Unknown special key: '${text}'`);
    return specials[text]!;
  }
  if (text.startsWith("%")) return await keyByName(context, text.slice(1));
  const value = parseNumber(text, 0);
  if (value === undefined) throw mistake(`Unparsable key: '${text}'`);
  return value | 0;
};

const keyByName = async (context: Context, spec: string): Promise<number> => {
  const colon = spec.indexOf(":");
  const description = spec.slice(colon + 1);
  if (colon < 0 || description === "") throw mistake("Incorrect key-by-name spec");
  const type = colon === 0 ? "keyring" : spec.slice(0, colon);
  const found = await tryCall(context, "requestKey", [bytesOf(type), bytesOf(description), null, 0]);
  if (found > 0) return found;
  const listed = await findListed(context, type, description);
  if (listed === undefined) throw new Refusal(EXIT_REFUSED, `Can't find '${type}:${description}'`);
  return listed;
};

/** One line of /proc/keys: serial, eight columns that do not matter here, type, text. */
const LISTED = /^([0-9a-f]+) \S+ +\S+ +\S+ [0-9a-f]+ +\d+ +\d+ (.{9}) (.*)$/;

/** Looks through the keys that the caller may view. */
const findListed = async (context: Context, type: string, description: string): Promise<number | undefined> => {
  for await (const line of listedKeys(context)) {
    const [, serial = "", shownType = "", text = ""] = LISTED.exec(line) ?? [];
    if (shownType.trimEnd() !== type || !text.startsWith(description)) continue;
    if (!["", ":", " "].includes(text.charAt(description.length))) continue;
    const id = Number.parseInt(serial, 16);
    const described = await fetch(context, "describe", id);
    if (typeof described === "number") continue;
    const whole = Buffer.from(described).toString("latin1", 0, described.length - 1);
    if (whole.slice(whole.lastIndexOf(";") + 1) === description) return id;
  }
  return undefined;
};

/** The lines of /proc/keys, page by page. */
export async function* listedKeys(context: Context): AsyncGenerator<string> {
  for (let after = 0; ;) {
    const { bytes } = await call(context, "procKeys", [after]);
    if (bytes.length === 0) return;
    for (const line of Buffer.from(bytes).toString("latin1").split("\n").slice(0, -1)) {
      yield line;
      after = Number.parseInt(line, 16);
    }
  }
}

/** Data from the command line: as it is, or with -x in front pairs of hexadecimal digits. */
export const dataOf = (text: string, isHex: boolean): Buffer => (isHex ? fromHex(text) : bytesOf(text));

/** Data from standard input. */
export const inputOf = (context: Context, isHex: boolean): Buffer => {
  const input = context.terminal.input();
  if (input === undefined)
    throw new Refusal(EXIT_REFUSED, `Too much data read on stdin: over ${INPUT_BYTES_MAX} bytes`);
  return isHex ? fromHex(input.toString("latin1")) : input;
};

const BLANK = /[\t-\r ]/;
const DIGIT = /[0-9a-fA-F]/;

const fromHex = (text: string): Buffer => {
  const bytes = Buffer.alloc(text.length >> 1);
  let length = 0;
  for (let at = 0; at < text.length;) {
    if (BLANK.test(text[at]!)) {
      at += 1;
      continue;
    }
    if (!DIGIT.test(text[at]!)) throw new Refusal(EXIT_REFUSED, "Bad hex doublet");
    if (at + 1 >= text.length) throw new Refusal(EXIT_REFUSED, "Short hex doublet");
    if (!DIGIT.test(text[at + 1]!)) throw new Refusal(EXIT_REFUSED, "Bad hex doublet");
    bytes[length] = Number.parseInt(text.slice(at, at + 2), 16);
    length += 1;
    at += 2;
  }
  return bytes.subarray(0, length);
};

/** Takes -x off the front of the arguments. */
export const takeHex = (words: readonly string[]): { readonly isHex: boolean; readonly rest: readonly string[] } => {
  const isHex = words[0] === "-x";
  return { isHex, rest: isHex ? words.slice(1) : words };
};
