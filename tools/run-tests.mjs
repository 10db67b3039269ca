// Runs node's test runner over every compiled test file, or over those whose path contains one of the arguments.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";

const root = path.join(import.meta.dirname, "..");
const packages = readdirSync(path.join(root, "packages")).map((name) => path.join("packages", name));

/** The compiled test files of one project whose source still exists: a build never deletes what it wrote earlier. */
const testsOf = (project, folder) => {
  const compiled = path.join(root, project, "dist", folder);
  if (!existsSync(compiled)) return [];
  return readdirSync(compiled)
    .filter((name) => name.endsWith(".test.js"))
    .filter((name) => existsSync(path.join(root, project, folder, name.replace(/\.js$/, ".ts"))))
    .map((name) => path.join(project, "dist", folder, name));
};

const wanted = process.argv.slice(2);
const files = [...packages.flatMap((project) => testsOf(project, "test")), ...testsOf("tests", ".")].filter(
  (file) => wanted.length === 0 || wanted.some((part) => file.includes(part)),
);
if (files.length === 0) {
  console.error(`no compiled test matches ${wanted.join(" ")}`);
  process.exit(1);
}
// Node would leave one processor idle: of two, every second one.
const atOnce = `--test-concurrency=${availableParallelism()}`;
const runner = ["--enable-source-maps", "--test", "--test-reporter=spec", atOnce, ...files];
const { status } = spawnSync(process.execPath, runner, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
process.exit(status ?? 1);
