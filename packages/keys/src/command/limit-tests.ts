import { bytesOf, type Context, type Run, tryCall } from "./context.ts";
import { EDQUOT, EINVAL } from "../errno.ts";
import { mistake, UsageError } from "./refusal.ts";

const THREAD = -1;
const DESCRIPTION_MAX = 4095;
const PAYLOAD_MAX = 32_767;
const PER_LINE = 32;

const report = ({ terminal }: Context, size: number, result: number): number => {
  terminal.error(`\nadd_key at size ${size}: ${result}\n`);
  return 1;
};

/** Adds keys with descriptions of 0 to 8191 bytes: those up to the limit are taken. */
const limits = async (context: Context): Promise<number> => {
  for (let size = 0; size < 2 * (DESCRIPTION_MAX + 1); size += 1) {
    if (size % PER_LINE === 0) context.terminal.out(`${size === 0 ? "" : "\n"}TEST SIZE ${size}`);
    const given = [bytesOf("user"), bytesOf("a".repeat(size)), bytesOf("a"), THREAD] as const;
    const result = await tryCall(context, "addKey", [...given]);
    context.terminal.out(".");
    const isTaken = size > 0 && size <= DESCRIPTION_MAX;
    if (isTaken ? result < 0 : result !== -EINVAL) return report(context, size, result);
    if (result > 0) await tryCall(context, "unlink", [result, THREAD]);
    context.terminal.out("_");
  }
  context.terminal.out("\n");
  return 0;
};

const STEP = 64;
const PAYLOADS_MAX = 2 ** 20 + 2 ** 12;

/** Adds keys with payloads of ever more bytes. What does not fit into the caller's quota is as good as taken. */
const limits2 = async (context: Context): Promise<number> => {
  for (let size = 0; size < PAYLOADS_MAX; size += STEP) {
    if (size % (PER_LINE * STEP) === 0) {
      context.terminal.out(`${size === 0 ? "" : "\n"}TEST SIZE ${String(size).padStart(7)} `);
    }
    const result = await tryCall(context, "addKey", [bytesOf("user"), bytesOf("limits2"), Buffer.alloc(size), THREAD]);
    const isTaken = size > 0 && size <= PAYLOAD_MAX;
    if (isTaken ? result < 0 && result !== -EDQUOT : result !== -EINVAL) return report(context, size, result);
    if (result > 0) await tryCall(context, "unlink", [result, THREAD]);
    context.terminal.out(".");
  }
  context.terminal.out("\n");
  return 0;
};

/** `--test limits`, `--test limits2` */
export const selfTest: Run = async (context, words) => {
  if (words.length === 0) throw new UsageError("no test is named");
  if (words[0] === "limits") return await limits(context);
  if (words[0] === "limits2") return await limits2(context);
  throw mistake("Unknown test command");
};
