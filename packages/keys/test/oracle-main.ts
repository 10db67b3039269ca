/**
 * `node oracle-main.js [--steps N] [--seed N]`: the library against the kernel of this machine, in session keyrings of
 * its own: as three users for user 0, otherwise as who it is. Exit code 1 and the last operations when they differ. With `--upcalls N`: that many requests whose helpers
 * do random steps; a program of ours stands in /sbin/request-key meanwhile.
 */
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { OracleRun } from "./oracle-run.ts";
import { UpcallRun, whyNoUpcalls } from "./upcall-run.ts";

/** Links of revoked keys go after five minutes; a run is over long before. */
const RUN_STEPS = 5000;

const { values } = parseArgs({
  options: { steps: { type: "string" }, seed: { type: "string" }, upcalls: { type: "string" } },
});
const steps = Number(values.steps ?? 100_000);
const seed = Number(values.seed ?? Date.now() % 1_000_000);

/** One run, in this process. */
const runHere = async (): Promise<void> => {
  const results = new Map<string, number>();
  const run = new OracleRun(seed, results);
  try {
    await run.prepare();
    await run.steps(steps);
  } catch (error) {
    console.log(`seed ${seed}:\n${run.trail.join("\n")}`);
    throw error;
  } finally {
    run.cleanUp();
  }
  const counts = [...results].map(([name, count]) => `${name} ${count}`).toSorted();
  console.log(`seed ${seed}: ${counts.join(", ")}\n${steps} steps agree`);
};

/** Many runs, each in a process of its own, which has no keyrings yet. */
const runApart = (): void => {
  for (let done = 0; done < steps; done += RUN_STEPS) {
    const words = ["--steps", String(Math.min(RUN_STEPS, steps - done)), "--seed", String(seed + done)];
    const { status } = spawnSync(process.execPath, [...process.execArgv, import.meta.filename, ...words], {
      stdio: "inherit",
    });
    if (status !== 0) process.exit(1);
  }
  console.log(`all ${steps} steps agree`);
};

/** Requests that the kernel hands to a helper. */
const runUpcalls = async (count: number): Promise<void> => {
  const reason = whyNoUpcalls();
  if (reason !== undefined) throw new Error(reason);
  const outcomes = new Map<string, number>();
  const run = new UpcallRun(seed, outcomes);
  try {
    await run.requests(count);
  } catch (error) {
    console.log(`seed ${seed}:\n${run.trail}`);
    throw error;
  } finally {
    run.cleanUp();
  }
  const counts = [...outcomes].map(([name, times]) => `${name} ${times}`).toSorted();
  console.log(`seed ${seed}: ${counts.join(", ")}\n${count} upcalls agree`);
};

if (values.upcalls !== undefined) await runUpcalls(Number(values.upcalls));
else if (steps > RUN_STEPS) runApart();
else await runHere();
