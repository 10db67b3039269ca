/**
 * Whether a guest that touches a page it does not have is stopped by a WebAssembly trap, rather than taking the whole
 * process with it. Tried for real, in a child process with this process's V8 flags, because that child may die.
 */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** What became of the child. */
export interface TrapOutcome {
  /** Whether every access ended in a trap. */
  readonly traps: boolean;
  /** What happened instead, in words. */
  readonly detail: string;
}

/** How many accesses the child tries. */
const TOUCH_COUNT = 4;

/** A child that hangs would hang `xl info`; it needs 0.1 s. */
const CHILD_MS_MAX = 30_000;
const OUTPUT_CHARACTERS_MAX = 4096;

/** V8 and Node flags that decide how WebAssembly is compiled and bounded; others, as --inspect, are not passed on. */
const relevantFlag = /^--(no-?)?(wasm|liftoff|turbofan|disable-wasm|enable-wasm|sandbox|trap)/;

/** @param flags the flags of the process to ask about. */
export const tryTraps = async (flags: readonly string[] = process.execArgv): Promise<TrapOutcome> => {
  const program = fileURLToPath(new URL("./trap-child.js", import.meta.url));
  const child = spawn(
    process.execPath,
    [...flags.filter((flag) => relevantFlag.test(flag.replaceAll("_", "-"))), program],
    {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: CHILD_MS_MAX,
      killSignal: "SIGKILL",
    },
  );
  let output = "";
  const collect = (chunk: Buffer): void => {
    output = (output + chunk.toString("utf8")).slice(0, OUTPUT_CHARACTERS_MAX);
  };
  child.stdout.on("data", collect);
  child.stderr.on("data", collect);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => {
      resolve(judge(output, code, signal));
    });
  });
};

const judge = (output: string, code: number | null, signal: NodeJS.Signals | null): TrapOutcome => {
  const lines = output.split("\n").filter((line) => line !== "");
  const trapped = lines.filter((line) => line.endsWith(": trap"));
  if (trapped.length === TOUCH_COUNT && code === 0) return { traps: true, detail: "loads and stores trap" };
  if (signal !== null)
    return { traps: false, detail: `the process died by ${signal} after ${String(trapped.length)} traps` };
  const reason = lines.find((line) => /Error|no trap/.test(line)) ?? lines[0] ?? "it said nothing";
  return { traps: false, detail: `the child ended with exit code ${String(code)}: ${reason}` };
};
