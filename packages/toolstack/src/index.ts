export { main } from "./program.ts";
export { formatSize, parseDuration, parseSize } from "./quantity.ts";
export { parseDirectory, parseEnvironment, planRun } from "./run-options.ts";
export type { RunFlags, RunPlan } from "./run-options.ts";
