/**
 * What stands in /sbin/request-key while the kernel's upcall is compared with the library's: does the steps that lie beside it,
 * for keys of that run, and builds no others.
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { KernelKeys } from "./kernel-keys.ts";
import { kernelAuthority, kernelPerforms } from "./upcall-sides.ts";
import { type Cast, type HelperStep, type Outcome, takeSteps } from "./upcall-steps.ts";

/** Where the steps are, and where it says what they came to. */
export const STEPS_FILE = "steps.json";
export const OUTCOMES_FILE = "outcomes.json";

/** What a run tells the helper. */
export interface Task {
  /** Of the key that is to be built. */
  readonly description: string;
  readonly cast: Omit<Cast, "target" | "authority">;
  readonly steps: readonly HelperStep[];
}

/** What the helper tells the run. */
export interface Report {
  readonly target: number;
  readonly outcomes: readonly Outcome[];
}

/** Acts as the helper that the kernel has started with these arguments; returns the exit code. */
export const help = async (directory: string, [, key = ""]: readonly string[]): Promise<number> => {
  const task = JSON.parse(readFileSync(path.join(directory, STEPS_FILE), "utf8")) as Task;
  const kernel = new KernelKeys();
  const target = Number(key);
  const room = Buffer.alloc(5000);
  const size = kernel.keyctlBytes(6, target, room, room.length);
  if (size < 0 || !room.toString("latin1", 0, size - 1).endsWith(`;${task.description}`)) return 1;
  const cast: Cast = { ...task.cast, target, authority: kernelAuthority(kernel) };
  const report: Report = { target, outcomes: await takeSteps(task.steps, cast, kernelPerforms(kernel)) };
  writeFileSync(path.join(directory, OUTCOMES_FILE), JSON.stringify(report));
  return 0;
};
