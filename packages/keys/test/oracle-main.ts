/**
 * `node oracle-main.js [--steps N] [--seed N]`: the library against the kernel of this machine. Run by itself, as
 * user 0; it makes a session keyring of its own. Exit code 1 and the last operations when they differ.
 */
import { parseArgs } from "node:util";
import { OracleRun } from "./oracle-run.ts";

const { values } = parseArgs({ options: { steps: { type: "string" }, seed: { type: "string" } } });
const steps = Number(values.steps ?? 100_000);
const seed = Number(values.seed ?? Date.now() % 1_000_000);
/** Links of revoked keys go after five minutes; a run is over long before. */
const RUN_STEPS = 5000;
const results = new Map<string, number>();

console.log(`seed ${seed}, ${steps} steps`);
for (let done = 0; done < steps; done += RUN_STEPS) {
  const run = new OracleRun(seed + done, results);
  try {
    await run.prepare();
    await run.steps(Math.min(RUN_STEPS, steps - done));
  } catch (error) {
    console.log(`seed ${seed + done} (a run of ${RUN_STEPS}):\n${run.trail.join("\n")}`);
    throw error;
  }
  if (steps > RUN_STEPS) console.log(`${done + RUN_STEPS} steps`);
}
const counts = [...results].toSorted().map(([name, count]) => `${name} ${count}`);
console.log(`${counts.join(", ")}\n${steps} steps agree`);
