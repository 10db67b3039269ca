/**
 * `npm run bench -- NAME... [--json | --markdown] [--small]`: runs benches and prints each figure beside its floor. Without a name:
 * all of them, each in a process of its own, so that none inherits another's heap or compiler flags. Exit code 2 for an
 * unknown name; a figure over its limit does not fail the run, the reader decides.
 */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { parseArgs } from "node:util";
import { formatResults, markdownRows, type Bench } from "./harness.ts";

const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(".bench.js"))
  .map((file) => file.slice(0, -".bench.js".length));

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean" },
    markdown: { type: "boolean" },
    small: { type: "boolean" },
    help: { type: "boolean" },
  },
});

const unknown = positionals.filter((name) => !names.includes(name));
if (values.help === true || unknown.length > 0) {
  const complaint = unknown.length > 0 ? `no bench is called ${unknown.join(", ")}\n` : "";
  process.stderr.write(
    `${complaint}usage: npm run bench -- [NAME...] [--json | --markdown] [--small]\nbenches: ${names.join(" ")}\n`,
  );
  process.exit(unknown.length > 0 ? 2 : 0);
}

const runHere = async (bench: string): Promise<void> => {
  const module = (await import(`./${bench}.bench.js`)) as { readonly bench: Bench };
  const results = await module.bench({ small: values.small === true });
  if (values.json === true) process.stdout.write(`${JSON.stringify({ bench, results })}\n`);
  else process.stdout.write((values.markdown === true ? markdownRows : formatResults)(bench, results));
};

const runApart = (bench: string): void => {
  const flags = (["json", "markdown", "small"] as const)
    .filter((name) => values[name] === true)
    .map((name) => `--${name}`);
  const program = [...process.execArgv, import.meta.filename, bench, ...flags];
  const { status } = spawnSync(process.execPath, program, { stdio: "inherit" });
  if (status !== 0) process.exitCode = 1;
};

const [only] = positionals;
if (only !== undefined && positionals.length === 1) await runHere(only);
else for (const bench of positionals.length > 0 ? positionals : names) runApart(bench);
