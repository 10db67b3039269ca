/**
 * `xl list` is what people and scripts call again and again, so it starts without the program's grammar: that costs half
 * as much as all of Node. What these few options do not explain (help, mistakes) is left to the grammar, which has them
 * too; a test compares.
 */
import { parseArgs } from "node:util";

/** Options of `xl list`, as `parseArgs` wants them. */
export const QUICK_OPTIONS = {
  json: { type: "boolean" },
  long: { type: "boolean", short: "l" },
  memory: { type: "boolean", short: "m" },
  socket: { type: "string" },
} as const;

const parse = (args: readonly string[]) => {
  try {
    return parseArgs({ args: [...args], options: QUICK_OPTIONS, allowPositionals: true, strict: true });
  } catch {
    return undefined;
  }
};

/** Runs `xl list` and returns its exit code; undefined when the words are another command, or need the grammar. */
export const quickList = async ([command, ...words]: readonly string[]): Promise<number | undefined> => {
  const parsed = command === "list" ? parse(words) : undefined;
  if (parsed === undefined) return undefined;
  const { listCommand } = await import("./commands/list.ts");
  return listCommand(parsed.positionals, parsed.values);
};
