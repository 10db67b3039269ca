import { type Argument, parseArgument } from "./macros.ts";

/** One line of a configuration that says what is done for which keys. */
export interface Rule {
  readonly file: string;
  readonly line: number;
  /** Patterns for the operation, the type, the description and the callout; those that the line has. */
  readonly patterns: readonly string[];
  /** Undefined for a malformed line; then `problem` is the reason. */
  readonly command: Command | undefined;
  readonly problem: string | undefined;
}

/** What is run. */
export interface Command {
  readonly program: string;
  /** Whether the program gets the callout on its standard input and prints the payload. */
  readonly isPipe: boolean;
  readonly arguments: readonly Argument[];
}

/** Longest line, in bytes. */
const LINE_BYTES_MAX = 4095;
const ARGUMENTS_MAX = 254;
const PATTERNS = 4;

const FIELD_NAMES = ["an operation", "a type", "a description", "a callout", "a program"];

/** Understands a line; undefined for a comment. Blanks and tabs separate fields, and there is no quoting. */
export const parseLine = (text: string, place: { readonly file: string; readonly line: number }): Rule | undefined => {
  if (text === "" || text.startsWith("#") || /^[\t-\r ]/.test(text)) return undefined;
  const fields = text.split(/[\t-\r ]+/).filter((field) => field !== "");
  const patterns = fields.slice(0, PATTERNS);
  const malformed = (problem: string): Rule => ({ ...place, patterns, command: undefined, problem });
  if (text.length > LINE_BYTES_MAX) return malformed(`Line too long: ${text.length} bytes, over ${LINE_BYTES_MAX}`);
  if (text.includes("\0")) return malformed("Syntax error: a NUL");
  const [word, ...words] = fields.slice(PATTERNS);
  if (word === undefined) return malformed(`Syntax error: ${FIELD_NAMES[fields.length]} is missing`);
  const isPipe = word.startsWith("|");
  const program = isPipe ? word.slice(1) : word;
  if (!program.includes("/")) return malformed(`Syntax error: program '${program}' has no '/'`);
  if (words.length > ARGUMENTS_MAX) return malformed(`Too many arguments: ${words.length}, over ${ARGUMENTS_MAX}`);
  const parsed: Argument[] = [];
  for (const each of words) {
    const argument = parseArgument(each);
    if (typeof argument === "string") return malformed(`${argument}: '${each}'`);
    parsed.push(argument);
  }
  return { ...place, patterns, command: { program, isPipe, arguments: parsed }, problem: undefined };
};
