/**
 * How `xl` talks: messages on stderr, colours only on a terminal, exit codes that mean something.
 */
import { XenolithError } from "@xenolith/abi/error";

/** The daemon refused, or what was looked for is not as it should be. */
export const EXIT_REFUSED = 1;
/** No daemon answers. */
export const EXIT_ABSENT = 3;
/** There is no such domain. */
export const EXIT_NO_DOMAIN = 4;
/** The time given with --timeout was over. */
export const EXIT_TIMEOUT = 124;
/** `xl` itself failed: bad arguments, bad image, no memory. */
export const EXIT_FAILED = 125;
/** Ended by a signal: 128 + its number is added by the caller. */
export const EXIT_SIGNAL_BASE = 128;

const CONTROL_CHARACTERS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** `text` with control characters (but newlines and tabs) made visible: names and reasons come from hostile guests. */
export const printable = (text: string): string =>
  text.replace(CONTROL_CHARACTERS, (byte) => `\\u{${byte.codePointAt(0)!.toString(16)}}`);

/** Says `message` on stderr. */
export const complain = (message: string): void => {
  process.stderr.write(`xl: ${printable(message)}\n`);
};

/** One line for any failure; the code stands behind it so that scripts and searches find it. */
export const describeFailure = (error: unknown): string => {
  if (error instanceof XenolithError) return `${error.message} [${error.code}]`;
  return error instanceof Error ? error.message : String(error);
};

const SGR: Readonly<Record<"bold" | "green" | "yellow" | "red", string>> = {
  bold: "1",
  green: "32",
  yellow: "33",
  red: "31",
};

/** `text` in a colour, on a terminal that wants colours. */
export const paint = (colour: keyof typeof SGR, text: string, stream: NodeJS.WriteStream = process.stdout): string =>
  stream.isTTY && process.env["NO_COLOR"] === undefined ? `\u001b[${SGR[colour]}m${text}\u001b[0m` : text;

/** Lines of a two-column table. */
export const table = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(0, ...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd()).join("\n");
};
