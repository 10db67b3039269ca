// SPDX-License-Identifier: Apache-2.0
/**
 * The main job, in one process: published programs and hostile guests as domains on real machine frames; one data set in 16
 * guests, taken back from one of them in mid-search; a stream between two guests, taken back while it runs.
 *
 *   node examples/demo/demo.mjs [--json]     --json: prints what was found out as one object, and nothing else
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Host } from "@xenolith/host";
import { runChannels } from "./channel.mjs";
import { handles } from "./process-figures.mjs";
import { runPrograms } from "./programs.mjs";
import { createReport } from "./report.mjs";
import { runShares } from "./share.mjs";

const here = import.meta.dirname;

/** Compiles stream.c in a process of its own, while the first parts run: images with atomics slow the compiler down. */
const compileStream = async (directory) => {
  const output = path.join(directory, "stream.wasm");
  const words = [path.join(here, "../../guest/xencc.mjs"), path.join(here, "stream.c"), "-o", output];
  const compiler = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "inherit"] });
  const [exitCode] = await once(compiler, "exit");
  assert.equal(exitCode, 0, "stream.c cannot be compiled");
  return readFileSync(output);
};

/** What must be the same before and after: domains, mappings, open files. Threads that are kept warm are there both times. */
const inventory = async (host) => {
  await host.warm();
  const { domainCount, vmas, threadCount } = host.info();
  return { domainCount, vmas, threadCount, ...handles() };
};

const checkEnd = async ({ host, report }, before) => {
  report.title("At the end");
  const findings = host.audit();
  assert.deepEqual(findings, []);
  report.good("the auditor recomputed every page, grant, mapping and event: no finding");
  const after = await inventory(host);
  assert.deepEqual(after, before);
  report.good(
    `as before: ${after.vmas} mappings of guests, ${after.machineMappings} of machine memory, ${after.descriptors} open files`,
  );
  report.facts.end = { findings, before, after };
};

const run = async (report, directory) => {
  const host = await Host.open();
  try {
    const stage = { host, report };
    const before = await inventory(host);
    const stream = compileStream(directory);
    stream.catch(() => {});
    await runPrograms(stage);
    await runShares(stage);
    await runChannels(stage, await stream);
    await checkEnd(stage, before);
  } finally {
    await host.close();
  }
};

const report = createReport({ isJson: process.argv.includes("--json"), stream: process.stdout });
const directory = mkdtempSync(path.join(tmpdir(), "xenolith-demo-"));
try {
  await run(report, directory);
  report.end();
} finally {
  rmSync(directory, { recursive: true, force: true });
}
