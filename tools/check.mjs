// The one gate: runs every check in turn and stops at the first that fails.
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";

const root = path.join(import.meta.dirname, "..");
const npx = (...words) => ["npx", "--no-install", ...words];
const packages = readdirSync(path.join(root, "packages"));

const steps = [
  ["format", npx("oxfmt", "--check")],
  ["lint", npx("oxlint")],
  ["build", npx("tsc", "-b")],
  ["generated files", [process.execPath, "tools/dist/generate.js", "--check"]],
  ["tests", [process.execPath, "tools/run-tests.mjs"]],
  ["unused code", npx("knip")],
  ...packages.map((name) => [`package ${name}`, npx("publint", "--strict", path.join("packages", name))]),
];

for (const [title, [command, ...words]] of steps) {
  console.log(`\n== ${title}: ${command === process.execPath ? "node" : command} ${words.join(" ")}`);
  const { status } = spawnSync(command, words, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) {
    console.error(`\ncheck failed: ${title}`);
    process.exit(status ?? 1);
  }
}
console.log("\nall checks passed");
